//! Peaks by technique: device, host heap and the host's file pages, as multiples of the model.

use plotters::style::RGBColor;

use super::canvas::Canvas;
use super::pen::{Align, Pen};
use super::scale::{Scale, short};
use super::style::{DEVICE, FILE, GUIDE, HOST, INK, MUTED};
use crate::summary::{Line, Spread};
use crate::table::Group;
use crate::units;

const WIDTH: i32 = 960;
const TOP: i32 = 118;
const LEFT: i32 = 150;
const BAR: i32 = 15;
const GAP: i32 = 3;

/// A kind of memory: how it is shown, what was measured of it, and what was promised.
struct Kind {
    colour: RGBColor,
    label: &'static str,
    measured: fn(&Line) -> Option<Spread>,
    promised: fn(&Line) -> Option<u64>,
}

pub fn draw(group: &Group<'_>) -> anyhow::Result<Canvas> {
    let mut kinds: Vec<Kind> = Vec::new();
    if group.is_discrete() {
        kinds.push(Kind {
            colour: DEVICE,
            label: "device memory in use",
            measured: |line| line.device_in_use_peak_bytes,
            promised: |line| line.device_contract_bytes,
        });
    }
    kinds.push(Kind {
        colour: HOST,
        label: "host heap",
        measured: |line| line.host_heap_peak_bytes,
        promised: |line| line.host_contract_bytes,
    });
    kinds.push(Kind {
        colour: FILE,
        label: "host file pages (reclaimable)",
        measured: |line| line.host_file_peak_bytes,
        promised: |_| None,
    });

    let pitch = kinds.len() as i32 * (BAR + GAP) + 16;
    let bottom = TOP + pitch * group.lines.len() as i32;
    let times = |line: &Line, kind: &Kind| {
        (kind.measured)(line).map(|spread| line.times_model(spread.median))
    };
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
            .map(|kind| (kind.colour, kind.label.to_owned()));
        let end = pen.legend((20, 82), &legend.collect::<Vec<_>>())?;
        pen.rectangle((end, 74), (end + 2, 90), &INK)?;
        pen.text((end + 8, 82), "its contract", &INK, Align::Left)?;
        if group.lines.iter().any(|line| line.is_spoilt) {
            let end = end + 8 + Pen::text_width("its contract") + 22;
            pen.hatched((end, 76), (end + 12, 88), &INK)?;
            pen.text((end + 18, 82), "may be spoilt", &INK, Align::Left)?;
        }
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
                kind.colour != FILE || times(line, kind).is_some_and(|times| times >= 0.005)
            };
            let shown: Vec<&Kind> = kinds.iter().filter(is_shown).collect();
            let first = middle - (shown.len() as i32 * (BAR + GAP) - GAP) / 2;
            for (place, kind) in shown.into_iter().enumerate() {
                let y = first + place as i32 * (BAR + GAP);
                let Some(bytes) = (kind.measured)(line).map(|spread| spread.median) else {
                    pen.small((LEFT + 6, y + BAR / 2), "not measured", &MUTED, Align::Left)?;
                    continue;
                };
                let end = scale.pixel(line.times_model(bytes)).max(LEFT + 1);
                match line.is_spoilt {
                    true => pen.hatched((LEFT, y), (end, y + BAR), &kind.colour)?,
                    false => pen.rectangle((LEFT, y), (end, y + BAR), &kind.colour)?,
                }
                let mut label_at = end + 6;
                if let Some(promised) = (kind.promised)(line) {
                    let x = scale.pixel(line.times_model(promised as f64));
                    pen.rectangle((x, y - 1), (x + 2, y + BAR + 1), &INK)?;
                    if (end - 2..end + 90).contains(&x) {
                        label_at = x + 8;
                    }
                }
                let label = format!(
                    "{:.2}× · {}",
                    line.times_model(bytes),
                    units::bytes(bytes as u64)
                );
                pen.small((label_at, y + BAR / 2), &label, &INK, Align::Left)?;
            }
        }
        Ok(())
    })
}
