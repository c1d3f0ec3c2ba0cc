//! Charts of a folder of results, each as SVG, and as PNG at twice its size where that is built in. To add one: a file here with a
//! `draw`, and a line in [`draw_all`].

mod canvas;
mod face;
mod frame;
mod instrument;
mod load_time;
mod model_size;
mod peaks;
mod pen;
#[cfg(feature = "png")]
mod png;
mod runs;
mod scale;
mod smallest_cap;
mod style;
mod timeline;

use anyhow::Context;

use crate::escape::file_name;
use crate::host_cap::HostCap;
use crate::presentation::Presentation;
use crate::results::{read_timeline, refuse_link};
use crate::summary::Line;
use crate::table::{caps_by_scene, caps_title, groups};
use canvas::Canvas;

/// More techniques than a chart can be read of.
const MOST_ROWS: usize = 60;
/// More devices, sizes, dtypes, cache states and caps than anybody looks at.
const MOST_GROUPS: usize = 500;

/// A chart that was drawn.
pub struct Drawn {
    /// The name of its SVG file.
    pub file: String,
    /// What it shows, for those who cannot see it.
    pub shows: String,
}

/// Draws every chart of what is presented, and returns them in the order of a report.
pub fn draw_all(presentation: &Presentation) -> anyhow::Result<Vec<Drawn>> {
    let plots = &presentation.plots;
    if plots.starts_with(&presentation.results) {
        refuse_link(plots)?;
    }
    std::fs::create_dir_all(plots)
        .with_context(|| format!("{}: the charts cannot be written there", plots.display()))?;
    let mut drawn = Vec::new();
    let mut save = |name: String, shows: String, canvas: Canvas| {
        drawn.push(Drawn {
            file: format!("{name}.svg"),
            shows,
        });
        canvas.save(&plots.join(name))
    };
    for scene in caps_by_scene(&presentation.smallest_caps) {
        let c = &scene[0].configuration;
        let of = Name::of(&c.device, &c.dtype, &c.cache);
        let name = of.size(&c.model).chart("smallest-cap");
        let shows = format!("Smallest host memory: {}", caps_title(&scene));
        let scene = &scene[..scene.len().min(MOST_ROWS)];
        save(name, shows, smallest_cap::draw(scene)?)?;
    }
    let lines = presentation.lines.iter();
    let measured: Vec<Line> = lines.filter(|line| line.ok > 0).cloned().collect();
    for group in groups(&measured).into_iter().take(MOST_GROUPS) {
        let group = group.first(MOST_ROWS);
        let of = Name::of(group.device, group.dtype, group.cache);
        let of = of.size(group.model).cap(group.host_cap_bytes);
        let title = group.title();
        let shows = |what: &str| format!("{what} by technique: {title}");
        save(
            of.chart("peaks"),
            shows("Peak memory"),
            peaks::draw(&group)?,
        )?;
        save(
            of.chart("load-time"),
            shows("Load time"),
            load_time::draw(&group)?,
        )?;
        let timelines = group.lines.iter().map(|line| {
            let run_id = line.median_run().map(|run| &*run.run_id);
            let run_id = run_id.unwrap_or_default();
            let read = read_timeline(&presentation.results, run_id);
            let samples = read.unwrap_or_else(|error| {
                eprintln!("warning: {error:#}: it is left out");
                Vec::new()
            });
            (*line, samples)
        });
        let timelines: Vec<_> = timelines.collect();
        if timelines.iter().any(|(_, samples)| samples.len() > 1) {
            let canvas = timeline::draw(&group, &timelines)?;
            save(of.chart("timeline"), shows("Memory over time"), canvas)?;
        }
    }
    for series in model_size::by_device(&measured) {
        let of = Name::of(series.device, series.dtype, series.cache);
        if let Some(canvas) = model_size::draw(&series)? {
            let shows = format!(
                "Peak memory and load time against the size of the model: {}",
                series.title()
            );
            save(of.chart("model-size"), shows, canvas)?;
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
        file_name(&parts.flatten().collect::<Vec<_>>().join("-"))
    }
}

#[cfg(all(test, feature = "png"))]
mod tests {
    use std::sync::Arc;

    use lab::{Measures, Spoiling, Status};
    use meter::{Phase, Sample};

    use super::*;
    use crate::record::Record;
    use crate::smallest_cap::found;
    use crate::summary::{Spoilt, summarise};

    const LONG: &str = "a-technique-whose-name-has-40-characters";
    const GIB: u64 = 1 << 30;

    fn record(experiment: &str, model_bytes: u64) -> Record {
        Record {
            experiment: experiment.to_owned(),
            device: "vulkan".to_owned(),
            memory_model: "discrete".to_owned(),
            model: format!("of-{model_bytes}"),
            dtype: "f32".to_owned(),
            cache: "warm".to_owned(),
            model_bytes,
            status: Status::Ok,
            verified: true,
            measures: Measures {
                load_seconds: Some(123.4),
                host_heap_peak_bytes: Some(model_bytes),
                host_rss_peak_bytes: Some(2 * model_bytes),
                host_file_peak_bytes: Some(model_bytes),
                host_contract_bytes: Some(3 * model_bytes),
                device_in_use_peak_bytes: Some(model_bytes),
                device_contract_bytes: Some(2 * model_bytes),
                ..Measures::default()
            }
            .into(),
            ..Record::unmeasured()
        }
    }

    fn lines(records: &[Record]) -> Vec<Line> {
        summarise(records, Spoilt::LeftOut)
    }

    /// Every text of a chart, none of which may be cut off.
    fn whole_texts(canvas: &Canvas) -> Vec<String> {
        let (texts, clipped) = canvas.texts();
        assert!(clipped.is_empty(), "over the edge: {clipped:?}");
        texts
    }

    #[test]
    fn no_text_of_a_chart_is_cut_off() {
        assert_eq!(LONG.len(), 40);
        let spoilt = Record {
            spoilt_by: vec![Spoiling::Swap],
            ..record(LONG, 5 * GIB)
        };
        let records = [
            record("naive", GIB),
            record("naive", 5 * GIB),
            record("naive", 5 * GIB),
            spoilt,
        ];
        let lines = lines(&records);
        let group = groups(&lines).pop().unwrap();
        assert_eq!(group.lines.len(), 2);
        let sample = |time_seconds| Sample {
            time_seconds,
            phase: Phase::Read,
            host_anon_bytes: GIB,
            host_file_bytes: GIB,
            host_heap_bytes: Some(GIB),
            device_in_use_bytes: Some(GIB),
            device_reserved_bytes: None,
        };
        let timelines: Vec<_> = group
            .lines
            .iter()
            .map(|line| (*line, vec![sample(0.0), sample(1000.0)]))
            .collect();
        let capped = |experiment, cap| Record {
            host_cap_bytes: Some(cap),
            ..record(experiment, GIB)
        };
        let caps = found(&[capped(LONG, 2 * GIB), capped("naive", 9 * GIB)]);
        let charts = [
            peaks::draw(&group).unwrap(),
            load_time::draw(&group).unwrap(),
            timeline::draw(&group, &timelines).unwrap(),
            model_size::draw(&model_size::by_device(&lines)[0])
                .unwrap()
                .unwrap(),
            smallest_cap::draw(&caps.iter().collect::<Vec<_>>()).unwrap(),
        ];
        for chart in charts {
            let texts = whole_texts(&chart);
            assert!(texts.iter().any(|text| text.contains(LONG)), "{texts:?}");
        }
    }

    #[test]
    fn peaks_are_compared_by_an_instrument_that_all_have() {
        let mut peer = record("pytorch:naive", GIB);
        Arc::make_mut(&mut peer.measures).host_heap_peak_bytes = None;
        Arc::make_mut(&mut peer.measures).host_contract_bytes = None;
        let shown = |records: &[Record]| {
            let lines = lines(records);
            let group = groups(&lines).pop().unwrap();
            let texts = whole_texts(&peaks::draw(&group).unwrap());
            assert!(!texts.contains(&"not measured".to_owned()), "{texts:?}");
            texts
        };
        let has = |texts: &[String], label: &str| texts.iter().any(|text| text == label);
        let ours = shown(&[record("naive", GIB)]);
        assert!(has(&ours, "host heap"));
        let both = shown(&[record("naive", GIB), peer]);
        assert!(has(&both, "host resident peak, by the kernel") && !has(&both, "host heap"));
    }

    #[test]
    fn a_median_says_how_many_runs_it_rests_on_where_they_differ() {
        let shown = |records: &[Record]| {
            let lines = lines(records);
            let group = groups(&lines).pop().unwrap();
            let charts = [peaks::draw(&group), load_time::draw(&group)];
            charts.map(|chart| whole_texts(&chart.unwrap()).join("|"))
        };
        let (a, b) = (record("naive", GIB), record("streamed", GIB));
        for texts in shown(&[a.clone(), b.clone(), a.clone(), b.clone()]) {
            assert!(
                texts.contains("medians of 2 runs") && !texts.contains("n = "),
                "{texts}"
            );
        }
        for texts in shown(&[a.clone(), a, b]) {
            assert!(
                texts.contains("n = 2") && texts.contains("n = 1"),
                "{texts}"
            );
        }
    }
}
