//! Load time by technique, with every sample shown.

use super::canvas::Canvas;
use super::frame::Frame;
use super::pen::Align;
use super::runs;
use super::scale::{Scale, short};
use super::style::{HOST, INK, MUTED};
use crate::summary::Line;
use crate::table::Group;
use crate::units;

const TOP: i32 = 112;
const PITCH: i32 = 40;

pub fn draw(group: &Group<'_>) -> anyhow::Result<Canvas> {
    let bottom = TOP + PITCH * group.lines.len() as i32;
    let samples = group.lines.iter().flat_map(|line| {
        line.load_samples_seconds
            .iter()
            .chain(&line.spoilt_load_samples_seconds)
    });
    let slowest = samples.copied().fold(f64::MIN_POSITIVE, f64::max);
    let behind_each = runs::behind_each(group.lines.iter().copied());
    let label = |line: &Line| {
        let median = units::seconds(line.load_seconds?.median);
        Some(match runs::note(line, behind_each) {
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
            "each dot a run in a fresh process, a ring one that may be spoilt; bar and number: the median",
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
            for &seconds in &line.load_samples_seconds {
                pen.dot((scale.pixel(seconds), middle), &HOST)?;
            }
            for &seconds in &line.spoilt_load_samples_seconds {
                pen.ring((scale.pixel(seconds), middle), &HOST)?;
            }
            if let (Some(spread), Some(label)) = (line.load_seconds, label(line)) {
                let x = scale.pixel(spread.median);
                pen.rectangle((x - 1, middle - 12), (x + 1, middle + 12), &INK)?;
                let end = scale.pixel(spread.max).max(x) + 14;
                pen.small((end, middle), &label, &INK, Align::Left)?;
            }
        }
        Ok(())
    })
}
