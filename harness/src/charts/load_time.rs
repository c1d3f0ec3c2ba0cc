//! Load time by technique, with every sample shown.

use super::canvas::Canvas;
use super::pen::Align;
use super::scale::{Scale, short};
use super::style::{HOST, INK, MUTED};
use crate::table::Group;
use crate::units;

const WIDTH: i32 = 960;
const TOP: i32 = 112;
const LEFT: i32 = 150;
const RIGHT: i32 = WIDTH - 100;
const PITCH: i32 = 40;

pub fn draw(group: &Group<'_>) -> anyhow::Result<Canvas> {
    let bottom = TOP + PITCH * group.lines.len() as i32;
    let samples = group.lines.iter().flat_map(|line| {
        line.load_samples_seconds
            .iter()
            .chain(&line.spoilt_load_samples_seconds)
    });
    let slowest = samples.copied().fold(f64::MIN_POSITIVE, f64::max);
    let scale = Scale {
        max: slowest * 1.05,
        from: LEFT,
        to: RIGHT,
        ticks: 7,
    };
    Canvas::draw(WIDTH, bottom + 54, |pen| {
        pen.title("Load time by loading technique", &group.title())?;
        pen.small(
            (20, 78),
            "each dot a run in a fresh process, a ring one that may be spoilt; bar and number: the median",
            &MUTED,
            Align::Left,
        )?;
        pen.x_axis(&scale, TOP - 8, bottom, |tick| format!("{} s", short(tick)))?;
        pen.small(
            (RIGHT, bottom + 36),
            "until the device is synchronised",
            &MUTED,
            Align::Right,
        )?;
        for (row, line) in group.lines.iter().enumerate() {
            let middle = TOP + PITCH * row as i32 + PITCH / 2 - 4;
            pen.bold(
                (LEFT - 12, middle),
                &line.configuration.experiment,
                Align::Right,
            )?;
            for &seconds in &line.load_samples_seconds {
                pen.dot((scale.pixel(seconds), middle), &HOST)?;
            }
            for &seconds in &line.spoilt_load_samples_seconds {
                pen.ring((scale.pixel(seconds), middle), &HOST)?;
            }
            if let Some(spread) = line.load_seconds {
                let x = scale.pixel(spread.median);
                pen.rectangle((x - 1, middle - 12), (x + 1, middle + 12), &INK)?;
                let end = scale.pixel(spread.max).max(x) + 14;
                pen.small(
                    (end, middle),
                    &units::seconds(spread.median),
                    &INK,
                    Align::Left,
                )?;
            }
        }
        Ok(())
    })
}
