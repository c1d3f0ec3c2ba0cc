//! Charts of a folder of results, each as SVG, and as PNG at twice its size where that is built in. To add one: a file here with a
//! `draw`, and a line in [`draw_all`].

mod canvas;
mod load_time;
mod model_size;
mod peaks;
mod pen;
#[cfg(feature = "png")]
mod png;
mod scale;
mod smallest_cap;
mod style;
mod timeline;

use anyhow::Context;

use crate::host_cap::HostCap;
use crate::presentation::Presentation;
use crate::results::read_timeline;
use crate::summary::Line;
use crate::table::{caps_by_scene, groups};
use canvas::Canvas;

/// Draws every chart of what is presented. Returns the names of the SVG files, in the order of a report.
pub fn draw_all(presentation: &Presentation) -> anyhow::Result<Vec<String>> {
    let plots = &presentation.plots;
    std::fs::create_dir_all(plots)
        .with_context(|| format!("{}: the charts cannot be written there", plots.display()))?;
    let mut drawn = Vec::new();
    let mut save = |name: String, canvas: Canvas| {
        drawn.push(format!("{name}.svg"));
        canvas.save(&plots.join(name))
    };
    for scene in caps_by_scene(&presentation.smallest_caps) {
        let c = &scene[0].configuration;
        let of = Name::of(&c.device, &c.dtype, &c.cache);
        let name = of.size(&c.model).chart("smallest-cap");
        save(name, smallest_cap::draw(&scene)?)?;
    }
    let lines = presentation.lines.iter();
    let measured: Vec<Line> = lines.filter(|line| line.ok > 0).cloned().collect();
    for group in groups(&measured) {
        let of = Name::of(group.device, group.dtype, group.cache);
        let of = of.size(group.model).cap(group.host_cap_bytes);
        save(of.chart("peaks"), peaks::draw(&group)?)?;
        save(of.chart("load-time"), load_time::draw(&group)?)?;
        let timelines = group.lines.iter().map(|line| {
            let run_id = line.median_run_id.as_deref().unwrap_or_default();
            Ok((*line, read_timeline(&presentation.results, run_id)?))
        });
        let timelines: Vec<_> = timelines.collect::<anyhow::Result<_>>()?;
        if timelines.iter().any(|(_, samples)| samples.len() > 1) {
            save(of.chart("timeline"), timeline::draw(&group, &timelines)?)?;
        }
    }
    for series in model_size::by_device(&measured) {
        let of = Name::of(series.device, series.dtype, series.cache);
        if let Some(canvas) = model_size::draw(&series)? {
            save(of.chart("model-size"), canvas)?;
        }
    }
    Ok(drawn)
}

/// What a chart's file is called after.
#[derive(Clone, Copy)]
struct Name<'a> {
    device: &'a str,
    dtype: &'a str,
    cache: &'a str,
    model: Option<&'a str>,
    host_cap_bytes: Option<u64>,
}

impl<'a> Name<'a> {
    fn of(device: &'a str, dtype: &'a str, cache: &'a str) -> Name<'a> {
        Name {
            device,
            dtype,
            cache,
            model: None,
            host_cap_bytes: None,
        }
    }

    fn size(self, model: &'a str) -> Name<'a> {
        Name {
            model: Some(model),
            ..self
        }
    }

    fn cap(self, host_cap_bytes: Option<u64>) -> Name<'a> {
        Name {
            host_cap_bytes,
            ..self
        }
    }

    /// `peaks-vulkan-medium`, `model-size-vulkan`: with dtype, cache state and cap where they are not the usual
    /// ones.
    fn chart(self, kind: &str) -> String {
        let device = self.device.replace(':', "");
        let cap = self
            .host_cap_bytes
            .map(|bytes| format!("cap{}", HostCap::Bytes(bytes)));
        let unusual = [(self.dtype, "f32"), (self.cache, "warm")];
        let unusual = unusual.map(|(value, usual)| (value != usual).then_some(value));
        let parts = [Some(kind), Some(&*device), self.model]
            .into_iter()
            .chain(unusual)
            .chain([cap.as_deref()]);
        parts.flatten().collect::<Vec<_>>().join("-")
    }
}
