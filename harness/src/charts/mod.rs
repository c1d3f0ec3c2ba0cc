//! Charts of a folder of results, each as SVG and as PNG at twice its size. To add one: a file here with a
//! `draw`, and a line in [`draw_all`].

mod canvas;
mod load_time;
mod model_size;
mod peaks;
mod style;
mod timeline;

use std::path::Path;

use anyhow::Context;

use crate::record::read_timeline;
use crate::summary::Line;
use crate::table::groups;
use canvas::Canvas;

/// Draws every chart of these lines into the folder `plots`.
pub fn draw_all(lines: &[Line], results: &Path, plots: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(plots)
        .with_context(|| format!("{}: the charts cannot be written there", plots.display()))?;
    let measured: Vec<Line> = lines.iter().filter(|line| line.ok > 0).cloned().collect();
    for group in groups(&measured) {
        let save = |kind: &str, canvas: Canvas| {
            let file = name(
                kind,
                group.device,
                Some(group.model),
                group.dtype,
                group.cache,
            );
            canvas.save(&plots.join(file))
        };
        save("peaks", peaks::draw(&group)?)?;
        save("load-time", load_time::draw(&group)?)?;
        let timelines = group.lines.iter().map(|line| {
            let run_id = line.median_run_id.as_deref().unwrap_or_default();
            Ok((*line, read_timeline(results, run_id)?))
        });
        let timelines: Vec<_> = timelines.collect::<anyhow::Result<_>>()?;
        if timelines.iter().any(|(_, samples)| samples.len() > 1) {
            save("timeline", timeline::draw(&group, &timelines)?)?;
        }
    }
    for series in model_size::by_device(&measured) {
        let file = name(
            "model-size",
            series.device,
            None,
            series.dtype,
            series.cache,
        );
        if let Some(canvas) = model_size::draw(&series)? {
            canvas.save(&plots.join(file))?;
        }
    }
    Ok(())
}

/// `peaks-vulkan-medium`, `model-size-vulkan`: with dtype and cache state where they are not the usual ones.
fn name(kind: &str, device: &str, model: Option<&str>, dtype: &str, cache: &str) -> String {
    let device = device.replace(':', "");
    let unusual =
        [(dtype, "f32"), (cache, "warm")].map(|(value, usual)| (value != usual).then_some(value));
    let parts = [Some(kind), Some(&*device), model]
        .into_iter()
        .chain(unusual);
    parts.flatten().collect::<Vec<_>>().join("-")
}
