//! A drawing in pixels, by plotters, saved as SVG with its font inside and as PNG at twice its size.

use std::path::Path;
use std::sync::{Arc, Once};

use anyhow::{Context, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use resvg::{tiny_skia, usvg};

use super::style::{GRID, INK, MUTED, SMALL, TEXT, TITLE};

const FAMILY: &str = "Inter";
const REGULAR: &[u8] = include_bytes!("../../assets/Inter-Regular.otf");
const BOLD: &[u8] = include_bytes!("../../assets/Inter-SemiBold.otf");
const REGULAR_WEB: &[u8] = include_bytes!("../../assets/Inter-Regular.woff2");
const BOLD_WEB: &[u8] = include_bytes!("../../assets/Inter-SemiBold.woff2");
const PNG_SCALE: f32 = 2.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy)]
pub enum Align {
    Left,
    Middle,
    Right,
}

/// A chart of `width` × `height` pixels, drawn in steps.
pub struct Canvas {
    pub width: i32,
    pub height: i32,
    svg: String,
}

/// What is drawn on: shapes and texts at pixels.
pub struct Pen<'a> {
    area: Area<'a>,
}

impl Canvas {
    /// A white canvas, with what `draw` puts on it.
    pub fn draw(
        width: i32,
        height: i32,
        draw: impl FnOnce(&Pen<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Canvas> {
        static FONTS: Once = Once::new();
        FONTS.call_once(|| {
            for (style, bytes) in [(FontStyle::Normal, REGULAR), (FontStyle::Bold, BOLD)] {
                // Cannot fail: the fonts are part of the program, and a test draws with them.
                let _ = register_font(FAMILY, style, bytes);
            }
        });
        let mut svg = String::new();
        {
            let size = (width as u32, height as u32);
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            area.fill(&WHITE)?;
            let pen = Pen { area };
            draw(&pen)?;
            pen.area.present()?;
        }
        Ok(Canvas { width, height, svg })
    }

    /// Writes `path.svg` and `path.png`.
    pub fn save(self, path: &Path) -> anyhow::Result<()> {
        let written = |path: &Path| format!("{}: the chart cannot be written", path.display());
        let svg = path.with_extension("svg");
        std::fs::write(&svg, self.with_font()).with_context(|| written(&svg))?;
        let png = path.with_extension("png");
        std::fs::write(&png, self.png()?).with_context(|| written(&png))
    }

    /// The SVG with the font inside: a picture in a web page cannot load one.
    fn with_font(&self) -> String {
        let face = |weight: u32, bytes: &[u8]| {
            format!(
                "@font-face{{font-family:{FAMILY};font-weight:{weight};\
                 src:url(data:font/woff2;base64,{}) format('woff2')}}",
                base64(bytes)
            )
        };
        let faces = face(400, REGULAR_WEB) + &face(700, BOLD_WEB);
        let end_of_tag = self.svg.find('>').map_or(0, |end| end + 1);
        let (tag, rest) = self.svg.split_at(end_of_tag);
        format!("{tag}\n<style>{faces}</style>{rest}")
    }

    fn png(&self) -> anyhow::Result<Vec<u8>> {
        let mut options = usvg::Options::default();
        let fonts = Arc::make_mut(&mut options.fontdb);
        fonts.load_font_data(REGULAR.to_vec());
        fonts.load_font_data(BOLD.to_vec());
        let tree = usvg::Tree::from_str(&self.svg, &options)?;
        let pixels = |length: i32| (length as f32 * PNG_SCALE) as u32;
        let mut picture = tiny_skia::Pixmap::new(pixels(self.width), pixels(self.height))
            .ok_or_else(|| anyhow!("a chart of {} × {} pixels", self.width, self.height))?;
        let scale = tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE);
        resvg::render(&tree, scale, &mut picture.as_mut());
        Ok(picture.encode_png()?)
    }
}

impl Pen<'_> {
    pub fn title(&self, title: &str, subtitle: &str) -> anyhow::Result<()> {
        self.styled(
            (20, 14),
            title,
            TITLE,
            FontStyle::Bold,
            &INK,
            Align::Left,
            VPos::Top,
        )?;
        self.styled(
            (20, 42),
            subtitle,
            TEXT,
            FontStyle::Normal,
            &MUTED,
            Align::Left,
            VPos::Top,
        )
    }

    pub fn text(
        &self,
        at: (i32, i32),
        text: &str,
        colour: &RGBColor,
        align: Align,
    ) -> anyhow::Result<()> {
        self.styled(
            at,
            text,
            TEXT,
            FontStyle::Normal,
            colour,
            align,
            VPos::Center,
        )
    }

    pub fn bold(&self, at: (i32, i32), text: &str, align: Align) -> anyhow::Result<()> {
        self.styled(at, text, TEXT, FontStyle::Bold, &INK, align, VPos::Center)
    }

    pub fn small(
        &self,
        at: (i32, i32),
        text: &str,
        colour: &RGBColor,
        align: Align,
    ) -> anyhow::Result<()> {
        self.styled(
            at,
            text,
            SMALL,
            FontStyle::Normal,
            colour,
            align,
            VPos::Center,
        )
    }

    #[allow(clippy::too_many_arguments)]
    fn styled(
        &self,
        at: (i32, i32),
        text: &str,
        size: u32,
        style: FontStyle,
        colour: &RGBColor,
        align: Align,
        vertical: VPos,
    ) -> anyhow::Result<()> {
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Middle => HPos::Center,
            Align::Right => HPos::Right,
        };
        let font = (FAMILY, size).into_font().style(style);
        let style = font.color(colour).pos(Pos::new(horizontal, vertical));
        Ok(self.area.draw(&Text::new(text.to_owned(), at, style))?)
    }

    /// The width of a text as [`Pen::small`] and [`Pen::text`] set it, roughly.
    pub fn text_width(text: &str) -> i32 {
        let font = (FAMILY, TEXT).into_font();
        font.box_size(text)
            .map_or(8 * text.len() as i32, |(width, _)| width as i32)
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

    /// Coloured squares with what they stand for, from left to right.
    pub fn legend(&self, at: (i32, i32), entries: &[(RGBColor, String)]) -> anyhow::Result<()> {
        let (mut x, y) = at;
        for (colour, label) in entries {
            self.rectangle((x, y - 6), (x + 12, y + 6), colour)?;
            self.text((x + 18, y), label, &INK, Align::Left)?;
            x += 18 + Self::text_width(label) + 22;
        }
        Ok(())
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

/// A linear scale from 0 to `max` onto pixels.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub max: f64,
    pub from: i32,
    pub to: i32,
    /// About this many ticks.
    pub ticks: usize,
}

impl Scale {
    pub fn pixel(&self, value: f64) -> i32 {
        let share = value / self.max;
        self.from + (share * f64::from(self.to - self.from)).round() as i32
    }

    /// Round numbers from 0 to `max`.
    pub fn ticks(&self) -> Vec<f64> {
        let step = nice_step(self.max / self.ticks as f64);
        let count = (self.max / step + 1e-9).floor() as usize;
        (0..=count).map(|tick| tick as f64 * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| step * power >= least * 0.999);
    step.unwrap_or(10.0) * power
}

/// A number without needless zeros: `0.5`, `2`, `10`.
pub fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_scale() {
        let scale = Scale {
            max: 2.3,
            from: 0,
            to: 100,
            ticks: 5,
        };
        assert_eq!(scale.ticks(), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!((scale.pixel(0.0), scale.pixel(2.3)), (0, 100));
        assert_eq!(short(0.5), "0.5");
        assert_eq!(short(10.0), "10");
    }

    #[test]
    fn a_chart_is_saved_with_its_font_as_svg_and_at_twice_its_size_as_png() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chart");
        let canvas = Canvas::draw(200, 80, |pen| pen.title("Peak", "of it"));
        canvas.unwrap().save(&path).unwrap();
        let svg = std::fs::read_to_string(path.with_extension("svg")).unwrap();
        assert!(svg.contains("font/woff2;base64,") && svg.contains("Peak"));
        let png = tiny_skia::Pixmap::load_png(path.with_extension("png")).unwrap();
        assert_eq!((png.width(), png.height()), (400, 160));
        // The title is drawn: with a font that is not found, resvg leaves texts out in silence.
        let dark = png.pixels().iter().filter(|pixel| pixel.red() < 100);
        assert!(dark.count() > 100);
    }
}
