//! The summary as a table: on the terminal, and as Markdown.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use crate::summary::{Line, Spread};
use crate::units;

/// What stands for a value that was not measured.
const ABSENT: &str = "–";

/// The lines of one device, size, dtype and cache state.
pub struct Group<'a> {
    pub device: &'a str,
    pub model: &'a str,
    pub dtype: &'a str,
    pub cache: &'a str,
    pub lines: Vec<&'a Line>,
}

/// Lines that belong into one table or chart, in their order.
pub fn groups(lines: &[Line]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for line in lines {
        let c = &line.configuration;
        let is_same = |group: &Group<'_>| {
            (group.device, group.model, group.dtype, group.cache)
                == (&*c.device, &*c.model, &*c.dtype, &*c.cache)
        };
        match groups.last_mut().filter(|group| is_same(group)) {
            Some(group) => group.lines.push(line),
            None => groups.push(Group {
                device: &c.device,
                model: &c.model,
                dtype: &c.dtype,
                cache: &c.cache,
                lines: vec![line],
            }),
        }
    }
    groups
}

impl Group<'_> {
    /// `flex, medium (1.51 GiB, f32), warm cache`
    pub fn title(&self) -> String {
        let model = units::bytes(self.lines[0].model_bytes);
        format!(
            "{}, {} ({model}, {}), {} cache",
            self.device, self.model, self.dtype, self.cache
        )
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
                let count = line.broken_contracts;
                remarks.push(format!(
                    "{name}: over its memory contract in {count} of {} runs",
                    line.ok
                ));
            }
        }
        remarks
    }

    fn header(&self) -> Vec<&'static str> {
        let mut header = vec!["technique"];
        if self.is_discrete() {
            header.push("device peak");
        }
        header.extend([
            "host heap peak",
            "host resident peak",
            "of it file pages",
            "load",
            "ok",
        ]);
        header
    }

    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.lines.iter().map(|line| {
            let mut row = vec![line.configuration.experiment.clone()];
            if self.is_discrete() {
                row.push(peak(line, line.device_in_use_peak_bytes));
            }
            row.push(peak(line, line.host_heap_peak_bytes));
            row.push(peak(line, line.host_rss_peak_bytes));
            row.push(peak(line, line.host_file_peak_bytes));
            row.push(load(line));
            row.push(format!("{}/{}", line.ok, line.runs));
            row
        })
    }
}

fn peak(line: &Line, bytes: Option<Spread>) -> String {
    match bytes {
        Some(spread) => {
            let times = line.times_model(spread.median);
            format!("{} ({times:.2}×)", units::bytes(spread.median as u64))
        }
        None => ABSENT.to_owned(),
    }
}

fn load(line: &Line) -> String {
    match (line.load_seconds, &line.trouble) {
        (Some(spread), _) => units::seconds(spread.median),
        (None, Some((status, _))) => status.to_string(),
        (None, None) => ABSENT.to_owned(),
    }
}

/// For the terminal.
pub fn terminal(lines: &[Line]) -> String {
    let mut out = String::new();
    for group in groups(lines) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(group.header());
        table.add_rows(group.rows());
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(
            out,
            "\n{}: medians, and multiples of the model",
            group.title()
        )
        .expect("a string grows");
        writeln!(out, "{table}").expect("a string grows");
        for remark in group.remarks() {
            writeln!(out, "  {remark}").expect("a string grows");
        }
    }
    out
}

/// `summary.md`: the same tables, for a write-up.
pub fn markdown(lines: &[Line]) -> String {
    let mut out = String::new();
    for group in groups(lines) {
        let header = group.header();
        let rule = header
            .iter()
            .enumerate()
            .map(|(column, _)| if column == 0 { "---" } else { "---:" });
        let rule: Vec<_> = rule.collect();
        writeln!(out, "**{}**\n", group.title()).expect("a string grows");
        writeln!(out, "| {} |", header.join(" | ")).expect("a string grows");
        writeln!(out, "| {} |", rule.join(" | ")).expect("a string grows");
        for row in group.rows() {
            writeln!(out, "| {} |", row.join(" | ")).expect("a string grows");
        }
        for remark in group.remarks() {
            writeln!(out, "\n{remark}").expect("a string grows");
        }
        out.push('\n');
    }
    out
}
