//! Peaks and load time against the size of the model.

use lab::Quantity;
use plotters::style::RGBColor;

use super::MOST_ROWS;
use super::canvas::Canvas;
use super::face::Face;
use super::frame::Frame;
use super::instrument::{self, Instrument};
use super::pen::{Align, Pen};
use super::runs;
use super::scale::{Scale, short};
use super::style::{INK, MUTED, SERIES};
use crate::summary::{Line, Spread};

/// Of a panel with few curves; many need room for their names.
const PANEL_HEIGHT: i32 = 330;
/// Between the names of curves.
const PITCH: i32 = 19;
/// What a panel needs beside its names: title, axis, and what stands below it.
const AROUND: i32 = 90;
const TOP: i32 = 84;
/// Between a plot and the names beside it: a line to each, and its marker.
const POINTERS: i32 = 24;
const GIB: f64 = (1u64 << 30) as f64;

/// The lines of one device, dtype and cache state, at all sizes, without a host cap.
pub struct Series<'a> {
    pub device: &'a str,
    pub dtype: &'a str,
    pub cache: &'a str,
    lines: Vec<&'a Line>,
}

pub fn by_device(lines: &[Line]) -> Vec<Series<'_>> {
    let mut all: Vec<Series<'_>> = Vec::new();
    let uncapped = lines
        .iter()
        .filter(|line| line.configuration.host_cap_bytes.is_none());
    for line in uncapped {
        let c = &line.configuration;
        let is_same = |s: &&mut Series<'_>| {
            (s.device, s.dtype, s.cache) == (&*c.device, &*c.dtype, &*c.cache)
        };
        match all.iter_mut().find(is_same) {
            Some(series) => series.lines.push(line),
            None => all.push(Series {
                device: &c.device,
                dtype: &c.dtype,
                cache: &c.cache,
                lines: vec![line],
            }),
        }
    }
    all
}

/// One chart of the canvas: a measure against the model's bytes.
struct Panel {
    title: &'static str,
    measure: fn(&Line) -> Option<Spread>,
    quantity: Quantity,
    unit: &'static str,
    /// What of the measure is one of the unit.
    scale: f64,
}

const LOAD: Panel = Panel {
    title: "load time",
    measure: |line| line.seconds(|measures| measures.load_seconds),
    quantity: Quantity::Time,
    unit: "s",
    scale: 1.0,
};

impl Panel {
    /// In the unit that the largest of these lines is read in best.
    fn of(instrument: Instrument, lines: &[&Line]) -> Panel {
        let peaks = lines.iter().filter_map(|line| (instrument.peak)(line));
        let most = peaks.map(|spread| spread.median).fold(0.0, f64::max);
        let (unit, scale) = match most < GIB / 2.0 {
            true => ("MiB", GIB / 1024.0),
            false => ("GiB", GIB),
        };
        Panel {
            title: instrument.label,
            measure: instrument.peak,
            quantity: Quantity::Memory,
            unit,
            scale,
        }
    }
}

impl Series<'_> {
    /// `flex, f32, warm cache`
    pub fn title(&self) -> String {
        let device = self.lines[0].device_name();
        format!("{device}, {}, {} cache", self.dtype, self.cache)
    }
}

/// `None` where there is one size only: there is nothing to compare.
pub fn draw(series: &Series<'_>) -> anyhow::Result<Option<Canvas>> {
    let smallest = series.lines.iter().map(|line| line.model_bytes).min();
    if series
        .lines
        .iter()
        .all(|line| Some(line.model_bytes) == smallest)
    {
        return Ok(None);
    }
    let mut panels: Vec<Panel> = Vec::new();
    if series.lines.iter().any(|line| !line.is_unified) {
        panels.push(Panel::of(instrument::DEVICE, &series.lines));
    }
    let host = instrument::of_host(&series.lines);
    panels.extend([Panel::of(host, &series.lines), LOAD]);
    let mut names: Vec<&str> = series
        .lines
        .iter()
        .map(|line| &*line.configuration.experiment)
        .collect();
    names.sort_by_key(|name| (crate::registry::position(name), *name));
    names.dedup();
    let left_out = names.len().saturating_sub(MOST_ROWS);
    names.truncate(MOST_ROWS);
    let panel_height = PANEL_HEIGHT.max(AROUND + PITCH * names.len() as i32);
    let height = TOP + panel_height * panels.len() as i32 + 10;
    let lines = || series.lines.iter().copied();
    let each = |quantity| runs::behind_each(lines(), quantity);
    let behind_each =
        each(Quantity::Memory).filter(|_| each(Quantity::Memory) == each(Quantity::Time));
    let left_out = match left_out {
        0 => String::new(),
        more => format!(", without {more} more"),
    };
    let subtitle = series.title() + &left_out + &runs::told(behind_each);
    let curves: Vec<Vec<Curve>> = panels
        .iter()
        .map(|panel| panel.curves(&names, &series.lines, behind_each))
        .collect();
    let labels = curves.iter().flatten().map(|curve| &curve.label);
    let ticks = panels.iter().zip(&curves);
    let ticks = ticks.flat_map(|(panel, curves)| panel.tick_labels(curves));
    let frame = Frame::around(
        Face::Small.widest(ticks),
        POINTERS + Face::Text.widest(labels),
    );
    let canvas = Canvas::draw(frame.width, height, |pen| {
        pen.title(
            "Peak memory and load time against the size of the model",
            &subtitle,
        )?;
        for (place, (panel, curves)) in panels.iter().zip(&curves).enumerate() {
            let top = TOP + panel_height * place as i32;
            plot(pen, frame, (top, top + panel_height - 58), panel, curves)?;
        }
        Ok(())
    })?;
    Ok(Some(canvas))
}

/// One technique: its place among all, and its peaks by model size.
struct Curve {
    place: usize,
    points: Vec<(f64, f64)>,
    label: String,
}

impl Panel {
    fn curves(&self, names: &[&str], lines: &[&Line], behind_each: Option<usize>) -> Vec<Curve> {
        let curves = names.iter().enumerate().filter_map(|(place, name)| {
            let own = lines
                .iter()
                .filter(|line| line.configuration.experiment == *name);
            let measured = own.filter_map(|line| Some((*line, (self.measure)(line)?.median)));
            let measured: Vec<_> = measured.collect();
            let own: Vec<&Line> = measured.iter().map(|(line, _)| *line).collect();
            (!own.is_empty()).then(|| Curve {
                place,
                points: measured
                    .iter()
                    .map(|(line, value)| (line.model_bytes as f64 / GIB, value / self.scale))
                    .collect(),
                label: label(name, &own, self.quantity, behind_each),
            })
        });
        curves.collect()
    }

    fn y(&self, curves: &[Curve], (top, bottom): (i32, i32)) -> Scale {
        Scale {
            max: most(curves, |point| point.1) * 1.08,
            from: bottom,
            to: top,
            ticks: 5,
        }
    }

    fn tick_label(&self, tick: f64) -> String {
        format!("{} {}", short(tick), self.unit)
    }

    fn tick_labels(&self, curves: &[Curve]) -> Vec<String> {
        let ticks = self.y(curves, (0, 0)).ticks().into_iter();
        ticks.map(|tick| self.tick_label(tick)).collect()
    }
}

/// `streamed`, with what a person has to know of its medians.
fn label(name: &str, lines: &[&Line], quantity: Quantity, behind_each: Option<usize>) -> String {
    let spoilt = lines.iter().any(|line| line.is_spoilt(quantity));
    let counts = || lines.iter().map(|line| runs::behind(line, quantity));
    let runs = match (behind_each, counts().min(), counts().max()) {
        (None, Some(least), Some(most)) if least == most => Some(format!("n = {most}")),
        (None, Some(least), Some(most)) => Some(format!("n = {least} to {most}")),
        _ => None,
    };
    let notes = [runs, spoilt.then(|| "spoilt".to_owned())];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    match notes.is_empty() {
        true => name.to_owned(),
        false => format!("{name} ({})", notes.join(", ")),
    }
}

fn most(curves: &[Curve], axis: fn(&(f64, f64)) -> f64) -> f64 {
    let points = curves.iter().flat_map(|curve| &curve.points);
    points.map(axis).fold(f64::MIN_POSITIVE, f64::max)
}

fn plot(
    pen: &Pen<'_>,
    frame: Frame,
    (top, bottom): (i32, i32),
    panel: &Panel,
    curves: &[Curve],
) -> anyhow::Result<()> {
    let x = Scale {
        max: most(curves, |point| point.0) * 1.04,
        from: frame.left,
        to: frame.right,
        ticks: 7,
    };
    let y = panel.y(curves, (top + 24, bottom));
    pen.bold((20, top + 6), panel.title, Align::Left)?;
    pen.x_axis(&x, top + 24, bottom, |tick| format!("{} GiB", short(tick)))?;
    pen.y_axis(&y, frame.left, frame.right, |tick| panel.tick_label(tick))?;
    pen.small(
        (frame.right, bottom + 30),
        "the model's bytes",
        &MUTED,
        Align::Right,
    )?;

    // Of curves that lie on one another the first drawn are the broadest, so that each shows as a stripe.
    let pixel = |point: &(f64, f64)| (x.pixel(point.0), y.pixel(point.1));
    let end = |curve: &Curve| curve.points.last().map_or(0, |point| y.pixel(point.1));
    for (order, curve) in curves.iter().enumerate() {
        let above = curves[order + 1..].iter();
        let hiding = above.filter(|other| end(other).abs_diff(end(curve)) <= 4);
        let breadth = 3 + 4 * hiding.count().min(MOST_STRIPES) as u32;
        let points = curve.points.iter().map(pixel).collect();
        pen.line(points, &colour(curve.place), breadth)?;
    }
    for curve in curves {
        for point in &curve.points {
            pen.marker(pixel(point), shape(curve.place), &colour(curve.place))?;
        }
    }
    names(pen, frame.right, curves, (&x, &y), (top + 24, bottom))
}

/// The names at the right ends of the curves, moved apart where they would overlap.
fn names(
    pen: &Pen<'_>,
    right: i32,
    curves: &[Curve],
    (x, y): (&Scale, &Scale),
    (top, bottom): (i32, i32),
) -> anyhow::Result<()> {
    let end = |curve: &Curve| curve.points.last().map_or(0, |point| y.pixel(point.1));
    let mut order: Vec<&Curve> = curves.iter().collect();
    order.sort_by_key(|curve| (end(curve), curve.place));
    let mut places: Vec<i32> = Vec::new();
    for curve in &order {
        let least = places.last().map_or(top, |above| above + PITCH);
        places.push(end(curve).max(least));
    }
    // What was pushed out at the bottom moves up again.
    let mut lowest = bottom;
    for place in places.iter_mut().rev() {
        *place = (*place).min(lowest);
        lowest = *place - PITCH;
    }
    for (curve, place) in order.into_iter().zip(places) {
        let colour = colour(curve.place);
        // From the last point, which may be of a smaller model than others'.
        let last = curve.points.last().map_or(right, |point| x.pixel(point.0));
        let pointer = vec![
            (last, end(curve)),
            (right + 2, end(curve)),
            (right + 16, place),
        ];
        pen.line(pointer, &colour, 1)?;
        pen.marker((right + POINTERS, place), shape(curve.place), &colour)?;
        let at = (right + POINTERS + 12, place);
        pen.text(at, &curve.label, &INK, Align::Left)?;
    }
    Ok(())
}

/// More curves on one another than this are not told apart by stripes.
const MOST_STRIPES: usize = 3;

fn colour(place: usize) -> RGBColor {
    SERIES[place % SERIES.len()]
}

/// Where colours come round again the marker is another.
fn shape(place: usize) -> usize {
    place + place / SERIES.len()
}
