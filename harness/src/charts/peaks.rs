//! Peaks by technique: device, host heap and the host's file pages, as multiples of the model.

use super::canvas::{Align, Canvas, Scale, short};
use super::style::{DEVICE, FILE, GUIDE, HOST, INK, MUTED};
use crate::summary::{Line, Spread};
use crate::table::Group;
use crate::units;

const WIDTH: i32 = 960;
const TOP: i32 = 118;
const LEFT: i32 = 150;
const BAR: i32 = 15;
const GAP: i32 = 3;

/// A kind of memory: how it is shown, and what was measured of it.
type Kind = (
    plotters::style::RGBColor,
    &'static str,
    fn(&Line) -> Option<Spread>,
);

pub fn draw(group: &Group<'_>) -> anyhow::Result<Canvas> {
    let mut kinds: Vec<Kind> = Vec::new();
    if group.is_discrete() {
        kinds.push((DEVICE, "device memory in use", |line| {
            line.device_in_use_peak_bytes
        }));
    }
    kinds.push((HOST, "host heap", |line| line.host_heap_peak_bytes));
    kinds.push((FILE, "host file pages (reclaimable)", |line| {
        line.host_file_peak_bytes
    }));

    let pitch = kinds.len() as i32 * (BAR + GAP) + 16;
    let bottom = TOP + pitch * group.lines.len() as i32;
    let times =
        |line: &Line, kind: &Kind| kind.2(line).map(|spread| line.times_model(spread.median));
    let all = group
        .lines
        .iter()
        .flat_map(|line| kinds.iter().filter_map(move |kind| times(line, kind)));
    let highest = all.fold(2.0, f64::max);
    let scale = Scale {
        max: highest * 1.2,
        from: LEFT,
        to: WIDTH - 24,
        ticks: 6,
    };

    Canvas::draw(WIDTH, bottom + 54, |pen| {
        pen.title("Peak memory by loading technique", &group.title())?;
        let legend = kinds
            .iter()
            .map(|(colour, label, _)| (*colour, (*label).to_owned()));
        pen.legend((20, 82), &legend.collect::<Vec<_>>())?;
        pen.x_axis(&scale, TOP - 8, bottom, |tick| format!("{}×", short(tick)))?;
        for guide in [1.0, 2.0] {
            pen.dashes(scale.pixel(guide), TOP - 8, bottom, &GUIDE)?;
        }
        pen.small(
            (WIDTH - 24, bottom + 36),
            "multiples of the model's bytes",
            &MUTED,
            Align::Right,
        )?;

        for (row, line) in group.lines.iter().enumerate() {
            let top = TOP + pitch * row as i32;
            let middle = top + (kinds.len() as i32 * (BAR + GAP) - GAP) / 2;
            pen.bold(
                (LEFT - 12, middle),
                &line.configuration.experiment,
                Align::Right,
            )?;
            // What every process maps of its own program is no part of the story.
            let is_shown = |kind: &&Kind| {
                kind.0 != FILE || times(line, kind).is_some_and(|times| times >= 0.005)
            };
            let shown: Vec<&Kind> = kinds.iter().filter(is_shown).collect();
            let first = middle - (shown.len() as i32 * (BAR + GAP) - GAP) / 2;
            for (place, kind) in shown.into_iter().enumerate() {
                let y = first + place as i32 * (BAR + GAP);
                let Some(bytes) = kind.2(line).map(|spread| spread.median) else {
                    pen.small((LEFT + 6, y + BAR / 2), "not measured", &MUTED, Align::Left)?;
                    continue;
                };
                let end = scale.pixel(line.times_model(bytes)).max(LEFT + 1);
                pen.rectangle((LEFT, y), (end, y + BAR), &kind.0)?;
                let label = format!(
                    "{:.2}× · {}",
                    line.times_model(bytes),
                    units::bytes(bytes as u64)
                );
                pen.small((end + 6, y + BAR / 2), &label, &INK, Align::Left)?;
            }
        }
        Ok(())
    })
}
