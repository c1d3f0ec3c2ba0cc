//! What charts are drawn with: texts, shapes, axes and legends at pixels.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::face::Face;
use super::scale::Scale;
use super::style::{GRID, INK, MUTED};

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy)]
pub enum Align {
    Left,
    Middle,
    Right,
}

impl Align {
    /// At the height of its point.
    fn beside(self) -> (HPos, VPos) {
        let horizontal = match self {
            Align::Left => HPos::Left,
            Align::Middle => HPos::Center,
            Align::Right => HPos::Right,
        };
        (horizontal, VPos::Center)
    }
}

/// What is drawn on: shapes and texts at pixels.
pub struct Pen<'a> {
    area: Area<'a>,
}

impl<'a> Pen<'a> {
    /// Draws on this area.
    pub fn new(area: Area<'a>) -> Pen<'a> {
        Pen { area }
    }

    /// Puts everything drawn into the picture.
    pub fn present(&self) -> anyhow::Result<()> {
        Ok(self.area.present()?)
    }

    pub fn title(&self, title: &str, subtitle: &str) -> anyhow::Result<()> {
        let align = (HPos::Left, VPos::Top);
        self.styled((20, 14), title, Face::Title, &INK, align)?;
        self.styled((20, 42), subtitle, Face::Text, &MUTED, align)
    }

    pub fn text(
        &self,
        at: (i32, i32),
        text: &str,
        colour: &RGBColor,
        align: Align,
    ) -> anyhow::Result<()> {
        self.styled(at, text, Face::Text, colour, align.beside())
    }

    pub fn bold(&self, at: (i32, i32), text: &str, align: Align) -> anyhow::Result<()> {
        self.styled(at, text, Face::Bold, &INK, align.beside())
    }

    pub fn small(
        &self,
        at: (i32, i32),
        text: &str,
        colour: &RGBColor,
        align: Align,
    ) -> anyhow::Result<()> {
        self.styled(at, text, Face::Small, colour, align.beside())
    }

    fn styled(
        &self,
        at: (i32, i32),
        text: &str,
        face: Face,
        colour: &RGBColor,
        (horizontal, vertical): (HPos, VPos),
    ) -> anyhow::Result<()> {
        let style = face
            .font()
            .color(colour)
            .pos(Pos::new(horizontal, vertical));
        Ok(self.area.draw(&Text::new(text.to_owned(), at, style))?)
    }

    pub fn rectangle(
        &self,
        from: (i32, i32),
        to: (i32, i32),
        colour: &RGBColor,
    ) -> anyhow::Result<()> {
        Ok(self
            .area
            .draw(&Rectangle::new([from, to], colour.filled()))?)
    }

    /// A rectangle of strokes: for what may be spoilt.
    pub fn hatched(
        &self,
        (left, top): (i32, i32),
        (right, bottom): (i32, i32),
        colour: &RGBColor,
    ) -> anyhow::Result<()> {
        const PITCH: usize = 7;
        let height = bottom - top;
        for start in ((left - height)..right).step_by(PITCH) {
            // From the lower edge upwards to the right, cut off at both sides.
            let from = start.max(left);
            let to = (start + height).min(right);
            let stroke = vec![(from, bottom - (from - start)), (to, bottom - (to - start))];
            self.line(stroke, colour, 2)?;
        }
        let corners = [
            (left, top),
            (right, top),
            (right, bottom),
            (left, bottom),
            (left, top),
        ];
        self.line(corners.to_vec(), colour, 2)
    }

    pub fn line(
        &self,
        points: Vec<(i32, i32)>,
        colour: &RGBColor,
        width: u32,
    ) -> anyhow::Result<()> {
        let style = colour.stroke_width(width);
        Ok(self.area.draw(&PathElement::new(points, style))?)
    }

    /// A vertical line of dashes.
    pub fn dashes(&self, x: i32, from: i32, to: i32, colour: &RGBColor) -> anyhow::Result<()> {
        for y in (from..to).step_by(8) {
            self.line(vec![(x, y), (x, (y + 4).min(to))], colour, 1)?;
        }
        Ok(())
    }

    pub fn polygon(&self, points: Vec<(i32, i32)>, colour: &RGBColor) -> anyhow::Result<()> {
        Ok(self.area.draw(&Polygon::new(points, colour.filled()))?)
    }

    /// A marker with a white rim, so that one on another stays visible. Shapes tell series apart where
    /// colours do not.
    pub fn marker(
        &self,
        (x, y): (i32, i32),
        shape: usize,
        colour: &RGBColor,
    ) -> anyhow::Result<()> {
        for (radius, colour) in [(7, &WHITE), (5, colour)] {
            match shape % 4 {
                0 => self
                    .area
                    .draw(&Circle::new((x, y), radius, colour.filled()))?,
                1 => self.rectangle(
                    (x - radius + 1, y - radius + 1),
                    (x + radius - 1, y + radius - 1),
                    colour,
                )?,
                2 => self.polygon(
                    vec![
                        (x, y - radius),
                        (x + radius, y),
                        (x, y + radius),
                        (x - radius, y),
                    ],
                    colour,
                )?,
                _ => self.polygon(
                    vec![
                        (x, y - radius),
                        (x + radius, y + radius),
                        (x - radius, y + radius),
                    ],
                    colour,
                )?,
            }
        }
        Ok(())
    }

    /// A dot that shows others through it.
    pub fn dot(&self, at: (i32, i32), colour: &RGBColor) -> anyhow::Result<()> {
        Ok(self
            .area
            .draw(&Circle::new(at, 5, colour.mix(0.55).filled()))?)
    }

    /// A ring: a dot of what may be spoilt.
    pub fn ring(&self, at: (i32, i32), colour: &RGBColor) -> anyhow::Result<()> {
        Ok(self
            .area
            .draw(&Circle::new(at, 5, colour.stroke_width(2)))?)
    }

    /// Coloured squares with what they stand for, from left to right. Returns where a further one begins.
    pub fn legend(&self, at: (i32, i32), entries: &[(RGBColor, String)]) -> anyhow::Result<i32> {
        let (mut x, y) = at;
        for (colour, label) in entries {
            self.rectangle((x, y - 6), (x + 12, y + 6), colour)?;
            self.text((x + 18, y), label, &INK, Align::Left)?;
            x += 18 + Face::Text.width(label) + 22;
        }
        Ok(x)
    }

    /// Vertical grid lines with labels under them.
    pub fn x_axis(
        &self,
        scale: &Scale,
        top: i32,
        bottom: i32,
        label: impl Fn(f64) -> String,
    ) -> anyhow::Result<()> {
        for tick in scale.ticks() {
            let x = scale.pixel(tick);
            self.line(vec![(x, top), (x, bottom)], &GRID, 1)?;
            self.small((x, bottom + 12), &label(tick), &MUTED, Align::Middle)?;
        }
        Ok(())
    }

    /// Horizontal grid lines with labels left of them.
    pub fn y_axis(
        &self,
        scale: &Scale,
        left: i32,
        right: i32,
        label: impl Fn(f64) -> String,
    ) -> anyhow::Result<()> {
        for tick in scale.ticks() {
            let y = scale.pixel(tick);
            self.line(vec![(left, y), (right, y)], &GRID, 1)?;
            self.small((left - 8, y), &label(tick), &MUTED, Align::Right)?;
        }
        Ok(())
    }
}
