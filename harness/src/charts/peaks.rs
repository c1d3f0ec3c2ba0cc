//! Peaks by technique: device, host and the host's file pages, as multiples of the model.

use lab::Quantity;

use super::canvas::Canvas;
use super::face::Face;
use super::frame::{EDGE, Frame};
use super::instrument::{self, Instrument};
use super::pen::{Align, Pen};
use super::runs;
use super::scale::{Scale, short};
use super::style::{GUIDE, INK, MUTED};
use crate::summary::Line;
use crate::table::Group;
use crate::units;

const TOP: i32 = 118;
const BAR: i32 = 15;
const GAP: i32 = 3;

pub fn draw(group: &Group<'_>) -> anyhow::Result<Canvas> {
    let mut instruments: Vec<Instrument> = Vec::new();
    if group.is_discrete() {
        instruments.push(instrument::DEVICE);
    }
    instruments.push(instrument::of_host(&group.lines));
    instruments.push(instrument::FILE_PAGES);

    let pitch = instruments.len() as i32 * (BAR + GAP) + 16;
    let bottom = TOP + pitch * group.lines.len() as i32;
    let rows: Vec<Row<'_>> = group
        .lines
        .iter()
        .map(|line| Row::of(line, &instruments))
        .collect();
    let bars = || rows.iter().flat_map(|row| &row.bars);
    let highest = bars().map(Bar::end).fold(2.0, f64::max);
    let frame = Frame::of_rows(
        rows.iter().map(|row| &row.line.configuration.experiment),
        bars().map(Bar::label),
    );
    let scale = Scale {
        max: highest,
        from: frame.left,
        to: frame.right,
        ticks: 6,
    };
    let behind_each = runs::behind_each(group.lines.iter().copied(), Quantity::Memory);

    Canvas::draw(frame.width, bottom + 54, |pen| {
        let subtitle = group.title() + &runs::told(behind_each);
        pen.title("Peak memory by loading technique", &subtitle)?;
        legend(pen, &instruments, &rows)?;
        pen.x_axis(&scale, TOP - 8, bottom, |tick| format!("{}×", short(tick)))?;
        for guide in [1.0, 2.0] {
            pen.dashes(scale.pixel(guide), TOP - 8, bottom, &GUIDE)?;
        }
        pen.small(
            (frame.width - EDGE, bottom + 36),
            "multiples of the model's bytes",
            &MUTED,
            Align::Right,
        )?;
        for (place, row) in rows.iter().enumerate() {
            let top = TOP + pitch * place as i32;
            let middle = top + (instruments.len() as i32 * (BAR + GAP) - GAP) / 2;
            let at = frame.names_end();
            let name = &row.line.configuration.experiment;
            match runs::note(row.line, Quantity::Memory, behind_each) {
                Some(note) => {
                    pen.bold((at, middle - 8), name, Align::Right)?;
                    pen.small((at, middle + 10), &note, &MUTED, Align::Right)?;
                }
                None => pen.bold((at, middle), name, Align::Right)?,
            }
            row.draw(pen, &scale, middle)?;
        }
        Ok(())
    })
}

fn legend(pen: &Pen<'_>, instruments: &[Instrument], rows: &[Row<'_>]) -> anyhow::Result<()> {
    let kinds = instruments.iter();
    let kinds = kinds.map(|instrument| (instrument.colour, instrument.label.to_owned()));
    let mut x = pen.legend((EDGE, 82), &kinds.collect::<Vec<_>>())?;
    let mut bars = rows.iter().flat_map(|row| &row.bars);
    if bars.any(|bar| bar.promised.is_some()) {
        const CONTRACT: &str = "its contract";
        pen.rectangle((x, 74), (x + 2, 90), &INK)?;
        pen.text((x + 8, 82), CONTRACT, &INK, Align::Left)?;
        x += 8 + Face::Text.width(CONTRACT) + 22;
    }
    if rows.iter().any(|row| row.line.is_spoilt(Quantity::Memory)) {
        pen.hatched((x, 76), (x + 12, 88), &INK)?;
        pen.text((x + 18, 82), "spoilt", &INK, Align::Left)?;
    }
    Ok(())
}

/// A technique, and its bars from top to bottom.
struct Row<'a> {
    line: &'a Line,
    bars: Vec<Bar>,
}

/// What one instrument tells of a line, in multiples of the model.
struct Bar {
    instrument: Instrument,
    /// And in bytes.
    measured: Option<(f64, u64)>,
    promised: Option<f64>,
}

impl Bar {
    /// Where what is drawn of it ends.
    fn end(&self) -> f64 {
        let measured = self.measured.map_or(0.0, |(times, _)| times);
        measured.max(self.promised.unwrap_or(0.0))
    }

    fn label(&self) -> String {
        match self.measured {
            Some((times, bytes)) => format!("{times:.2}× · {}", units::bytes(bytes)),
            None => "not measured".to_owned(),
        }
    }
}

impl Row<'_> {
    fn of<'a>(line: &'a Line, instruments: &[Instrument]) -> Row<'a> {
        let bars = instruments.iter().map(|&instrument| {
            let measured = (instrument.peak)(line).map(|spread| spread.median);
            let promised = (instrument.promised)(line);
            Bar {
                instrument,
                measured: measured.map(|bytes| (line.times_model(bytes), bytes as u64)),
                promised: promised.map(|bytes| line.times_model(bytes as f64)),
            }
        });
        // What every process maps of its own program is no part of the story.
        let is_shown = |bar: &Bar| {
            !bar.instrument.is_extra || bar.measured.is_some_and(|(times, _)| times >= 0.005)
        };
        Row {
            line,
            bars: bars.filter(is_shown).collect(),
        }
    }

    fn draw(&self, pen: &Pen<'_>, scale: &Scale, middle: i32) -> anyhow::Result<()> {
        let first = middle - (self.bars.len() as i32 * (BAR + GAP) - GAP) / 2;
        for (place, bar) in self.bars.iter().enumerate() {
            let y = first + place as i32 * (BAR + GAP);
            let label = bar.label();
            let Some((times, _)) = bar.measured else {
                let at = (scale.from + 6, y + BAR / 2);
                pen.small(at, &label, &MUTED, Align::Left)?;
                continue;
            };
            let end = scale.pixel(times).max(scale.from + 1);
            let (from, to) = ((scale.from, y), (end, y + BAR));
            match self.line.is_spoilt(Quantity::Memory) {
                true => pen.hatched(from, to, &bar.instrument.colour)?,
                false => pen.rectangle(from, to, &bar.instrument.colour)?,
            }
            let mut label_at = end + 6;
            if let Some(promised) = bar.promised {
                let x = scale.pixel(promised);
                pen.rectangle((x, y - 1), (x + 2, y + BAR + 1), &INK)?;
                if (end - 2..label_at + Face::Small.width(&label)).contains(&x) {
                    label_at = x + 8;
                }
            }
            pen.small((label_at, y + BAR / 2), &label, &INK, Align::Left)?;
        }
        Ok(())
    }
}
