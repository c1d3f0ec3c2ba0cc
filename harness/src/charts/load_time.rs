//! Load time by technique, with every sample shown.

use std::collections::BTreeMap;

use lab::Quantity;

use super::canvas::Canvas;
use super::frame::Frame;
use super::pen::{Align, Pen};
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

/// More dots lie on one another: their density is shown.
const MOST_DOTS: usize = 300;

fn dots(pen: &Pen<'_>, scale: &Scale, middle: i32, line: &Line) -> anyhow::Result<()> {
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
    Ok(())
}

/// A column for each pixel, as high as it has runs.
fn density(pen: &Pen<'_>, scale: &Scale, middle: i32, line: &Line) -> anyhow::Result<()> {
    const HEIGHT: f64 = 14.0;
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    for seconds in line
        .good
        .iter()
        .filter_map(|good| good.measures.load_seconds)
    {
        *counts.entry(scale.pixel(seconds)).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(1);
    for (x, count) in counts {
        let half = (HEIGHT * count as f64 / most as f64).ceil() as i32;
        pen.rectangle((x, middle - half), (x + 1, middle + half), &HOST)?;
    }
    Ok(())
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
            match group.lines.iter().any(|line| line.good.len() > MOST_DOTS) {
                true => "as high as there are runs at that time, spoilt ones among them; bar and number: the median",
                false => "each dot a run in a fresh process, a ring one that is spoilt; bar and number: the median",
            },
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
            match line.good.len() > MOST_DOTS {
                true => density(pen, &scale, middle, line)?,
                false => dots(pen, &scale, middle, line)?,
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
