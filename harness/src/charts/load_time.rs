//! Load time by technique, with every sample shown.

use lab::Quantity;

use super::canvas::Canvas;
use super::frame::Frame;
use super::pen::Align;
use super::runs;
use super::scale::{Scale, short};
use super::style::{HOST, INK, MUTED};
use crate::summary::{Line, Spread};
use crate::table::Group;
use crate::units;

const TOP: i32 = 112;
const PITCH: i32 = 40;

fn load(line: &Line) -> Option<Spread> {
    line.seconds(|measures| measures.load_seconds)
}

pub fn draw(group: &Group<'_>) -> anyhow::Result<Canvas> {
    let bottom = TOP + PITCH * group.lines.len() as i32;
    let samples = group.lines.iter().flat_map(|line| &line.good);
    let slowest = samples
        .filter_map(|good| good.measures.load_seconds)
        .fold(f64::MIN_POSITIVE, f64::max);
    let behind_each = runs::behind_each(group.lines.iter().copied(), Quantity::Time);
    let label = |line: &Line| {
        let median = units::seconds(load(line)?.median);
        Some(match runs::note(line, Quantity::Time, behind_each) {
            Some(note) => format!("{median} ({note})"),
            None => median,
        })
    };
    let frame = Frame::of_rows(
        group
            .lines
            .iter()
            .map(|line| &line.configuration.experiment),
        group.lines.iter().filter_map(|line| label(line)),
    );
    let scale = Scale {
        max: slowest * 1.02,
        from: frame.left,
        to: frame.right,
        ticks: 7,
    };
    Canvas::draw(frame.width, bottom + 54, |pen| {
        let subtitle = group.title() + &runs::told(behind_each);
        pen.title("Load time by loading technique", &subtitle)?;
        pen.small(
            (20, 78),
            "each dot a run in a fresh process, a ring one that is spoilt; bar and number: the median",
            &MUTED,
            Align::Left,
        )?;
        pen.x_axis(&scale, TOP - 8, bottom, |tick| format!("{} s", short(tick)))?;
        pen.small(
            (frame.right, bottom + 36),
            "until the device is synchronised",
            &MUTED,
            Align::Right,
        )?;
        for (row, line) in group.lines.iter().enumerate() {
            let middle = TOP + PITCH * row as i32 + PITCH / 2 - 4;
            let name = &line.configuration.experiment;
            pen.bold((frame.names_end(), middle), name, Align::Right)?;
            for good in &line.good {
                let Some(seconds) = good.measures.load_seconds else {
                    continue;
                };
                let at = (scale.pixel(seconds), middle);
                match good.is_spoilt(Quantity::Time) {
                    true => pen.ring(at, &HOST)?,
                    false => pen.dot(at, &HOST)?,
                }
            }
            if let (Some(spread), Some(label)) = (load(line), label(line)) {
                let x = scale.pixel(spread.median);
                pen.rectangle((x - 1, middle - 12), (x + 1, middle + 12), &INK)?;
                // Behind the last dot or ring.
                let times = line
                    .good
                    .iter()
                    .filter_map(|good| good.measures.load_seconds);
                let last = times.fold(spread.max, f64::max);
                let end = scale.pixel(last).max(x) + 14;
                pen.small((end, middle), &label, &INK, Align::Left)?;
            }
        }
        Ok(())
    })
}
