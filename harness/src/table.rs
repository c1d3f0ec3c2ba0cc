//! The summary in tables: one for each device, size, dtype, cache state and host cap, and one of the smallest
//! caps survived.

use lab::{Measures, Quantity, Spoiling};

use crate::driver::device_name;
use crate::sheet::{ABSENT, Sheet, numbers, words};
use crate::smallest_cap::{Found, step_bytes};
use crate::summary::{Line, Spread};
use crate::units;

/// The lines of one device, size, dtype, cache state and host cap.
pub struct Group<'a> {
    pub device: &'a str,
    pub model: &'a str,
    pub dtype: &'a str,
    pub cache: &'a str,
    pub host_cap_bytes: Option<u64>,
    pub lines: Vec<&'a Line>,
    /// How many more there are.
    pub left_out: usize,
}

/// Lines that belong into one table or chart, in their order.
pub fn groups(lines: &[Line]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for line in lines {
        let c = &line.configuration;
        let is_same = |group: &Group<'_>| {
            (group.device, group.model, group.dtype, group.cache)
                == (&*c.device, &*c.model, &*c.dtype, &*c.cache)
                && group.host_cap_bytes == c.host_cap_bytes
        };
        match groups.last_mut().filter(|group| is_same(group)) {
            Some(group) => group.lines.push(line),
            None => groups.push(Group {
                device: &c.device,
                model: &c.model,
                dtype: &c.dtype,
                cache: &c.cache,
                host_cap_bytes: c.host_cap_bytes,
                lines: vec![line],
                left_out: 0,
            }),
        }
    }
    groups
}

impl Group<'_> {
    /// `flex, medium (1.51 GiB, f32), warm cache`
    pub fn title(&self) -> String {
        let model = units::bytes(self.lines[0].model_bytes);
        let cap = self.host_cap_bytes.map(units::bytes);
        let cap = cap.map_or(String::new(), |cap| format!(", host cap {cap}"));
        let device = self.lines[0].device_name();
        let left_out = match self.left_out {
            0 => String::new(),
            more => format!(", without {more} more that summary.csv has"),
        };
        format!(
            "{device}, {} ({model}, {}), {} cache{cap}{left_out}",
            self.model, self.dtype, self.cache
        )
    }

    /// The first so many lines of it.
    pub fn first(mut self, most: usize) -> Self {
        self.left_out += self.lines.len().saturating_sub(most);
        self.lines.truncate(most);
        self
    }

    /// Whether the device has memory of its own.
    pub fn is_discrete(&self) -> bool {
        self.lines.iter().any(|line| !line.is_unified)
    }

    /// What did not go as it should.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for line in &self.lines {
            let name = &line.configuration.experiment;
            if let Some((status, reason)) = &line.trouble {
                remarks.push(format!("{name}: {status}: {reason}"));
            }
            if line.broken_contracts > 0 {
                let (broken, judged) = (line.broken_contracts, line.judged_contracts);
                remarks.push(format!(
                    "{name}: over its memory contract in {broken} of {judged} runs"
                ));
            }
        }
        // One remark for all that the same thing has spoilt.
        let mut spoilt: Vec<(String, Vec<&str>)> = Vec::new();
        for line in &self.lines {
            let name = &*line.configuration.experiment;
            let reclaim = reclaim_remark(line).into_iter();
            for said in reclaim.chain(spoilt_remarks(line)) {
                match spoilt.iter_mut().find(|(known, _)| *known == said) {
                    Some((_, names)) => names.push(name),
                    None => spoilt.push((said, vec![name])),
                }
            }
        }
        let told = spoilt.into_iter();
        remarks.extend(told.map(|(said, names)| format!("{}: {said}", names.join(", "))));
        remarks
    }

    /// The group as a table.
    pub fn sheet(&self) -> Sheet {
        let mut columns = vec![words("technique")];
        let mut frameworks: Vec<&String> = self
            .lines
            .iter()
            .filter_map(|line| line.framework.as_ref())
            .collect();
        frameworks.sort();
        frameworks.dedup();
        let shows_framework = frameworks.len() > 1;
        let shows_ready = self.lines.iter().any(|line| ready(line).is_some());
        if shows_framework {
            columns.push(words("by"));
        }
        if self.is_discrete() {
            columns.push(numbers("device peak"));
        }
        let rest = [
            "host heap peak",
            "host resident peak",
            "of it file pages",
            "load",
        ];
        columns.extend(rest.map(numbers));
        if shows_ready {
            columns.push(numbers("load and first forward"));
        }
        columns.push(numbers("ok"));
        let rows = self.lines.iter().map(|line| {
            let mut row = vec![line.configuration.experiment.clone()];
            if shows_framework {
                row.push(line.framework.clone().unwrap_or_else(|| ABSENT.to_owned()));
            }
            if self.is_discrete() {
                row.push(peak(line, |measures| measures.device_in_use_peak_bytes));
            }
            row.push(peak(line, |measures| measures.host_heap_peak_bytes));
            row.push(peak(line, |measures| measures.host_rss_peak_bytes));
            row.push(peak(line, |measures| measures.host_file_peak_bytes));
            row.push(match (load(line), &line.trouble) {
                (Some(spread), _) => time(spread),
                (None, Some((status, _))) => status.to_string(),
                (None, None) => ABSENT.to_owned(),
            });
            if shows_ready {
                row.push(ready(line).map_or(ABSENT.to_owned(), time));
            }
            row.push(format!("{}/{}", line.ok, line.runs));
            row
        });
        Sheet {
            title: self.title(),
            columns,
            rows: rows.collect(),
            remarks: self.remarks(),
        }
    }
}

fn load(line: &Line) -> Option<Spread> {
    line.seconds(|measures| measures.load_seconds)
}

fn ready(line: &Line) -> Option<Spread> {
    line.seconds(Measures::ready_seconds)
}

fn peak(line: &Line, of: fn(&Measures) -> Option<u64>) -> String {
    match line.bytes(of) {
        Some(spread) => times_model(spread.median as u64, line.model_bytes),
        None => ABSENT.to_owned(),
    }
}

fn times_model(bytes: u64, model_bytes: u64) -> String {
    let times = bytes as f64 / model_bytes as f64;
    format!("{} ({times:.2}×)", units::bytes(bytes))
}

/// `1.62 s (1.58 to 2.10, n = 3)`
pub fn time(spread: Spread) -> String {
    let median = units::seconds(spread.median);
    match spread.runs {
        1 => format!("{median} (n = 1)"),
        runs => {
            let [min, max] = [spread.min, spread.max].map(units::seconds);
            let min = min.trim_end_matches(" s");
            let max = max.trim_end_matches(" s");
            format!("{median} ({min} to {max}, n = {runs})")
        }
    }
}

/// A median that moves by more than this share when spoilt runs are left out is shown both ways.
const MOVED_SHARE: f64 = 0.10;

/// How many runs under a cap came up to it.
fn reclaim_remark(line: &Line) -> Option<String> {
    let cap = line.configuration.host_cap_bytes?;
    let told = line.good.iter();
    let told: Vec<bool> = told
        .filter_map(|good| good.measures.lived_by_reclaim(cap))
        .collect();
    let lived = told.iter().filter(|lived| **lived).count();
    (lived > 0).then(|| {
        format!(
            "lived by reclaim in {lived} of {} runs: what they held came up to the cap, and the kernel took pages of files back",
            told.len()
        )
    })
}

/// What spoilt runs of a line, how many, and what it changes.
fn spoilt_remarks(line: &Line) -> Vec<String> {
    let mut remarks: Vec<String> = Vec::new();
    for (quantity, numbers) in [(Quantity::Memory, "peaks"), (Quantity::Time, "times")] {
        let spoilt = line.good.iter().filter(|good| good.is_spoilt(quantity));
        let (spoilt, all) = (spoilt.count(), line.good.len());
        if spoilt == 0 {
            continue;
        }
        let by: Vec<&str> = line
            .spoilt_by(quantity)
            .into_iter()
            .map(Spoiling::describe)
            .collect();
        let by = by.join(" and ");
        let mut said = match line.is_spoilt(quantity) {
            true => format!("all {all} runs are spoilt by {by}: the {numbers} are theirs"),
            false => {
                format!("{spoilt} of {all} runs, spoilt by {by}, are left out of the {numbers}")
            }
        };
        // What spoils peaks spoils times, too: once is enough.
        if quantity == Quantity::Time && !remarks.is_empty() {
            let memory = line
                .good
                .iter()
                .filter(|good| good.is_spoilt(Quantity::Memory));
            if memory.count() == spoilt {
                said = String::new();
            }
        }
        if quantity == Quantity::Time
            && let (Some(used), Some(all)) = (load(line), load_of_all(line))
            && (all.median / used.median - 1.0).abs() > MOVED_SHARE
        {
            let moved = format!(
                "with them the load's median is {}",
                units::seconds(all.median)
            );
            said = match said.is_empty() {
                true => moved,
                false => format!("{said}; {moved}"),
            };
        }
        if !said.is_empty() {
            remarks.push(said);
        }
    }
    remarks
}

fn load_of_all(line: &Line) -> Option<Spread> {
    Spread::of(
        line.good
            .iter()
            .filter_map(|good| good.measures.load_seconds),
    )
}

/// For the terminal.
pub fn terminal(lines: &[Line]) -> String {
    let sheets = groups(lines).into_iter().map(|group| {
        let mut sheet = group.sheet();
        sheet.title += ": medians, and multiples of the model";
        sheet.terminal()
    });
    sheets.collect()
}

/// `summary.md`: the same tables, for a write-up.
pub fn markdown(lines: &[Line]) -> String {
    let sheets = groups(lines).into_iter();
    sheets.map(|group| group.sheet().markdown()).collect()
}

/// What was found on one device, at one size, dtype and cache state.
pub fn caps_by_scene(found: &[Found]) -> Vec<Vec<&Found>> {
    let scene = |found: &Found| {
        let c = &found.configuration;
        (
            c.device.clone(),
            c.model.clone(),
            c.dtype.clone(),
            c.cache.clone(),
        )
    };
    let mut scenes: Vec<Vec<&Found>> = Vec::new();
    for one in found {
        match scenes
            .last_mut()
            .filter(|last| scene(last[0]) == scene(one))
        {
            Some(last) => last.push(one),
            None => scenes.push(vec![one]),
        }
    }
    scenes
}

/// `flex, medium (1.51 GiB, f32), cold cache`
pub fn caps_title(scene: &[&Found]) -> String {
    let c = &scene[0].configuration;
    let model = units::bytes(scene[0].model_bytes);
    let device = device_name(&c.device, scene[0].driver.as_deref());
    format!(
        "{device}, {} ({model}, {}), {} cache",
        c.model, c.dtype, c.cache
    )
}

fn caps_sheet(scene: &[&Found]) -> Sheet {
    let rows = scene.iter().map(|found| {
        let shown = |bytes: Option<u64>| match bytes {
            Some(bytes) => times_model(bytes, found.model_bytes),
            None => ABSENT.to_owned(),
        };
        let apart = match (found.smallest_of_repeats_bytes.len(), found.spread_bytes()) {
            (0 | 1, _) | (_, None) => ABSENT.to_owned(),
            (_, Some(bytes)) => format!("{} steps", bytes / step_bytes(found.model_bytes)),
        };
        let (too_small, how) = match &found.too_small {
            Some((bytes, how)) => (units::bytes(*bytes), how.clone()),
            None => (ABSENT.to_owned(), String::new()),
        };
        vec![
            found.configuration.experiment.clone(),
            shown(found.uncapped_rss_peak_bytes),
            match found.is_by_reclaim && found.smallest_bytes().is_some() {
                true => format!("{}, by reclaim", shown(found.smallest_bytes())),
                false => shown(found.smallest_bytes()),
            },
            apart,
            found.probes.to_string(),
            too_small,
            how,
        ]
    });
    let step = units::bytes(step_bytes(scene[0].model_bytes));
    Sheet {
        title: format!("{}: the smallest host cap survived", caps_title(scene)),
        columns: vec![
            words("technique"),
            numbers("resident peak without a cap"),
            numbers("smallest cap survived"),
            numbers("repeats apart"),
            numbers("probes"),
            numbers("largest cap too small"),
            words("how it ended there"),
        ],
        rows: rows.collect(),
        remarks: vec![format!(
            "Caps are above the baseline, in steps of {step}; the model was loaded and verified under them. By reclaim: what the \
             run held came up to its cap, and the kernel took pages of files back from it."
        )],
    }
}

/// A table for each scene; how runs ended stands in the last column.
pub fn smallest_caps(found: &[Found]) -> Vec<Sheet> {
    let scenes = caps_by_scene(found).into_iter();
    scenes.map(|scene| caps_sheet(&scene)).collect()
}
