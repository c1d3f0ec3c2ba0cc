//! Peaks and load time against the size of the model.

use plotters::style::RGBColor;

use super::canvas::Canvas;
use super::pen::{Align, Pen};
use super::scale::{Scale, short};
use super::style::{INK, MUTED, SERIES};
use crate::summary::{Line, Spread};

const WIDTH: i32 = 960;
/// Of a panel with few curves; many need room for their names.
const PANEL_HEIGHT: i32 = 330;
/// Between the names of curves.
const PITCH: i32 = 19;
/// What a panel needs beside its names: title, axis, and what stands below it.
const AROUND: i32 = 90;
const TOP: i32 = 84;
const LEFT: i32 = 76;
const RIGHT: i32 = WIDTH - 190;
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
    unit: &'static str,
    /// What of the measure is one of the unit.
    scale: f64,
}

const DEVICE: Panel = Panel {
    title: "device memory in use",
    measure: |line| line.device_in_use_peak_bytes,
    unit: "GiB",
    scale: GIB,
};
const HOST: Panel = Panel {
    title: "host heap",
    measure: |line| line.host_heap_peak_bytes,
    unit: "GiB",
    scale: GIB,
};
const LOAD: Panel = Panel {
    title: "load time",
    measure: |line| line.load_seconds,
    unit: "s",
    scale: 1.0,
};

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
        panels.push(DEVICE);
    }
    panels.extend([HOST, LOAD]);
    let mut names: Vec<&str> = series
        .lines
        .iter()
        .map(|line| &*line.configuration.experiment)
        .collect();
    names.sort_by_key(|name| (crate::registry::position(name), *name));
    names.dedup();
    let panel_height = PANEL_HEIGHT.max(AROUND + PITCH * names.len() as i32);
    let height = TOP + panel_height * panels.len() as i32 + 10;
    let subtitle = format!(
        "{}, {}, {} cache: medians",
        series.device, series.dtype, series.cache
    );
    let canvas = Canvas::draw(WIDTH, height, |pen| {
        pen.title(
            "Peak memory and load time against the size of the model",
            &subtitle,
        )?;
        for (place, panel) in panels.iter().enumerate() {
            let top = TOP + panel_height * place as i32;
            panel.draw(pen, (top, panel_height), &names, &series.lines)?;
        }
        Ok(())
    })?;
    Ok(Some(canvas))
}

/// One technique: its place among all, and its peaks by model size.
struct Curve<'a> {
    name: &'a str,
    place: usize,
    points: Vec<(f64, f64)>,
    is_spoilt: bool,
}

impl Panel {
    fn draw(
        &self,
        pen: &Pen<'_>,
        (top, height): (i32, i32),
        names: &[&str],
        lines: &[&Line],
    ) -> anyhow::Result<()> {
        let curves = names.iter().enumerate().filter_map(|(place, name)| {
            let own = lines
                .iter()
                .filter(|line| line.configuration.experiment == *name);
            let measured = own.filter_map(|line| Some((line, (self.measure)(line)?.median)));
            let measured: Vec<_> = measured.collect();
            (!measured.is_empty()).then(|| Curve {
                name,
                place,
                points: measured
                    .iter()
                    .map(|(line, value)| (line.model_bytes as f64 / GIB, value / self.scale))
                    .collect(),
                is_spoilt: measured.iter().any(|(line, _)| line.is_spoilt),
            })
        });
        let curves: Vec<Curve<'_>> = curves.collect();
        plot(pen, (top, top + height - 58), self, &curves)
    }
}

fn plot(
    pen: &Pen<'_>,
    (top, bottom): (i32, i32),
    panel: &Panel,
    curves: &[Curve<'_>],
) -> anyhow::Result<()> {
    let most = |axis: fn(&(f64, f64)) -> f64| {
        let points = curves.iter().flat_map(|curve| &curve.points);
        points.map(axis).fold(f64::MIN_POSITIVE, f64::max)
    };
    let x = Scale {
        max: most(|point| point.0) * 1.04,
        from: LEFT,
        to: RIGHT,
        ticks: 7,
    };
    let y = Scale {
        max: most(|point| point.1) * 1.08,
        from: bottom,
        to: top + 24,
        ticks: 5,
    };
    pen.bold((20, top + 6), panel.title, Align::Left)?;
    pen.x_axis(&x, top + 24, bottom, |tick| format!("{} GiB", short(tick)))?;
    pen.y_axis(&y, LEFT, RIGHT, |tick| {
        format!("{} {}", short(tick), panel.unit)
    })?;
    pen.small(
        (RIGHT, bottom + 30),
        "the model's bytes",
        &MUTED,
        Align::Right,
    )?;

    // Of curves that lie on one another the first drawn are the broadest, so that each shows as a stripe.
    let pixel = |point: &(f64, f64)| (x.pixel(point.0), y.pixel(point.1));
    let end = |curve: &Curve<'_>| curve.points.last().map_or(0, |point| y.pixel(point.1));
    for (order, curve) in curves.iter().enumerate() {
        let above = curves[order + 1..].iter();
        let hiding = above.filter(|other| end(other).abs_diff(end(curve)) <= 4);
        let breadth = 3 + 4 * hiding.count() as u32;
        let points = curve.points.iter().map(pixel).collect();
        pen.line(points, &colour(curve.place), breadth)?;
    }
    for curve in curves {
        for point in &curve.points {
            pen.marker(pixel(point), shape(curve.place), &colour(curve.place))?;
        }
    }
    labels(pen, curves, &y, (top + 24, bottom))
}

/// The names at the right ends of the curves, moved apart where they would overlap.
fn labels(
    pen: &Pen<'_>,
    curves: &[Curve<'_>],
    y: &Scale,
    (top, bottom): (i32, i32),
) -> anyhow::Result<()> {
    let end = |curve: &Curve<'_>| curve.points.last().map_or(0, |point| y.pixel(point.1));
    let mut order: Vec<&Curve<'_>> = curves.iter().collect();
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
        pen.line(
            vec![(RIGHT + 2, end(curve)), (RIGHT + 16, place)],
            &colour,
            1,
        )?;
        pen.marker((RIGHT + 24, place), shape(curve.place), &colour)?;
        let mark = if curve.is_spoilt { " (spoilt)" } else { "" };
        let label = format!("{}{mark}", curve.name);
        pen.text((RIGHT + 36, place), &label, &INK, Align::Left)?;
    }
    Ok(())
}

fn colour(place: usize) -> RGBColor {
    SERIES[place % SERIES.len()]
}

/// Where colours come round again the marker is another.
fn shape(place: usize) -> usize {
    place + place / SERIES.len()
}
