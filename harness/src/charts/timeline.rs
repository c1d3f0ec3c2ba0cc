//! Memory over time, a panel for each technique, with what the run was doing under it.

use lab::Quantity;
use meter::{Phase, Sample};

use super::canvas::Canvas;
use super::face::Face;
use super::pen::{Align, Pen};
use super::scale::{Scale, short};
use super::style::{DEVICE, FILE, GRID, GUIDE, HOST, MUTED, phase_colour};
use crate::summary::Line;
use crate::table::Group;

const TOP: i32 = 146;
const COLUMNS: usize = 2;
/// Of a panel with short names.
const PANEL_WIDTH: i32 = 480;
/// Left and right of a panel's plot.
const BESIDE: (i32, i32) = (56, 26);
const PANEL_HEIGHT: i32 = 196;
const STRIP: i32 = 9;

type Layer = (plotters::style::RGBColor, &'static str, fn(&Sample) -> u64);

pub fn draw(group: &Group<'_>, timelines: &[(&Line, Vec<Sample>)]) -> anyhow::Result<Canvas> {
    // Of commands in other languages only what the kernel counts is known.
    let mut samples = timelines.iter().flat_map(|(_, samples)| samples);
    let host: Layer = match samples.all(|sample| sample.host_heap_bytes.is_some()) {
        true => (HOST, "host heap", |sample| {
            sample.host_heap_bytes.unwrap_or(0)
        }),
        false => (HOST, "host anonymous pages", |sample| {
            sample.host_anon_bytes
        }),
    };
    let mut layers: Vec<Layer> = vec![
        host,
        (FILE, "host file pages (reclaimable)", |sample| {
            sample.host_file_bytes
        }),
    ];
    if group.is_discrete() {
        layers.push((DEVICE, "device memory in use", |sample| {
            sample.device_in_use_bytes.unwrap_or(0)
        }));
    }
    let model_bytes = group.lines[0].model_bytes as f64;
    let total = |sample: &Sample| {
        layers.iter().map(|layer| layer.2(sample)).sum::<u64>() as f64 / model_bytes
    };
    let all = timelines.iter().flat_map(|(_, samples)| samples);
    let highest = all.map(total).fold(1.0, f64::max);

    let names = timelines.iter().map(|(line, _)| name(line));
    let panel_width = PANEL_WIDTH.max(BESIDE.0 + Face::Bold.widest(names) + BESIDE.1);
    let width = COLUMNS as i32 * panel_width;
    let rows = timelines.len().div_ceil(COLUMNS) as i32;
    let height = TOP + rows * PANEL_HEIGHT + 8;
    Canvas::draw(width, height, |pen| {
        pen.title("Memory over time by loading technique", &group.title())?;
        let legend = layers
            .iter()
            .map(|(colour, label, _)| (*colour, (*label).to_owned()));
        pen.legend((20, 82), &legend.collect::<Vec<_>>())?;
        let phases = Phase::ALL.map(|phase| (phase_colour(phase), phase.to_string()));
        pen.small((20, 110), "strip:", &MUTED, Align::Left)?;
        pen.legend((64, 110), &phases)?;
        pen.small(
            (width - 20, 110),
            "stacked; multiples of the model's bytes",
            &MUTED,
            Align::Right,
        )?;
        for (place, (line, samples)) in timelines.iter().enumerate() {
            let left = (place % COLUMNS) as i32 * panel_width;
            let top = TOP + (place / COLUMNS) as i32 * PANEL_HEIGHT;
            panel(
                pen,
                (left, top),
                panel_width,
                line,
                samples,
                &layers,
                highest,
            )?;
        }
        Ok(())
    })
}

fn name(line: &Line) -> String {
    let mark = match line.is_spoilt(Quantity::Memory) {
        true => " (spoilt)",
        false => "",
    };
    format!("{}{mark}", line.configuration.experiment)
}

fn panel(
    pen: &Pen<'_>,
    (left, top): (i32, i32),
    width: i32,
    line: &Line,
    samples: &[Sample],
    layers: &[Layer],
    highest: f64,
) -> anyhow::Result<()> {
    let (left, right) = (left + BESIDE.0, left + width - BESIDE.1);
    let (plot_top, bottom) = (top + 22, top + PANEL_HEIGHT - 48);
    pen.bold((left, top + 8), &name(line), Align::Left)?;
    let y = Scale {
        max: highest * 1.05,
        from: bottom,
        to: plot_top,
        ticks: 4,
    };
    let Some(last) = samples.last().filter(|_| samples.len() > 1) else {
        return pen.small(
            (left, (plot_top + bottom) / 2),
            "no timeline was recorded",
            &MUTED,
            Align::Left,
        );
    };
    let x = Scale {
        max: last.time_seconds,
        from: left,
        to: right,
        ticks: 5,
    };
    pen.y_axis(&y, left, right, |tick| format!("{}×", short(tick)))?;
    let mut floor = vec![0.0; samples.len()];
    for (colour, _, bytes) in layers {
        let ceiling: Vec<f64> = samples
            .iter()
            .zip(&floor)
            .map(|(sample, floor)| floor + line.times_model(bytes(sample) as f64))
            .collect();
        let at = |index: usize, level: f64| (x.pixel(samples[index].time_seconds), y.pixel(level));
        let upper = ceiling
            .iter()
            .enumerate()
            .map(|(index, &level)| at(index, level));
        let lower = floor
            .iter()
            .enumerate()
            .rev()
            .map(|(index, &level)| at(index, level));
        pen.polygon(upper.chain(lower).collect(), colour)?;
        floor = ceiling;
    }
    for guide in [1.0, 2.0].into_iter().filter(|guide| *guide <= y.max) {
        let y = y.pixel(guide);
        for dash in (left..right).step_by(8) {
            pen.line(vec![(dash, y), ((dash + 4).min(right), y)], &GUIDE, 1)?;
        }
    }
    for pair in samples.windows(2) {
        let (from, to) = (x.pixel(pair[0].time_seconds), x.pixel(pair[1].time_seconds));
        pen.rectangle(
            (from, bottom + 4),
            (to, bottom + 4 + STRIP),
            &phase_colour(pair[0].phase),
        )?;
    }
    pen.line(vec![(left, bottom), (right, bottom)], &GRID, 1)?;
    for tick in x.ticks() {
        let label = format!("{} s", short(tick));
        pen.small(
            (x.pixel(tick), bottom + STRIP + 16),
            &label,
            &MUTED,
            Align::Middle,
        )?;
    }
    Ok(())
}
