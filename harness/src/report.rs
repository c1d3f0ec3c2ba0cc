//! `report.md` and `report.html`: what was measured, what is claimed of it, and whether it is so.

use std::fmt::Write;
use std::path::Path;

use checkpoint::read_text;
use lab::{Measures, Status};
use pulldown_cmark::{Event, Options, Parser, html};

use crate::atomic;
use crate::charts::Drawn;
use crate::claims::{Finding, Found, Judged, Judgement, Verdict};
use crate::escape;
use crate::presentation::Presentation;
use crate::record::Record;
use crate::results::{MACHINE, MAX_MACHINE_BYTES};
use crate::sheet::{ABSENT, Sheet, numbers, words};
use crate::summary::Line;

/// Writes both beside the results.
pub fn write(presentation: &Presentation, charts: &[Drawn]) -> anyhow::Result<()> {
    let markdown = markdown(presentation, charts);
    let folder = &presentation.results;
    atomic::write(&folder.join("report.md"), &markdown)?;
    atomic::write(&folder.join("report.html"), page(&markdown))
}

fn markdown(presentation: &Presentation, charts: &[Drawn]) -> String {
    let records = &presentation.records;
    let (first, last) = (&records[0], &records[records.len() - 1]);
    let (manifest, machine) = (
        escape::markdown(&last.manifest),
        escape::markdown(&last.machine),
    );
    let mut out = format!("# {manifest} on {machine}\n\n");
    write!(out, "{}\n\n", about(records, first, last)).expect("a string grows");

    let claims = presentation.claims();
    if !claims.is_empty() {
        write!(out, "## Claims\n\n{}\n\n", count(&claims)).expect("a string grows");
        out += &claims_sheet(&claims).markdown();
    }
    let contracts = contracts_sheet(&presentation.lines);
    if !contracts.rows.is_empty() {
        out += "## Memory contracts\n\nEach technique promises peaks; every run is held against them. The phase is that in which the peak was set.\n\n";
        out += &contracts.markdown();
    }
    out += "## Measured\n\nMedians of runs in fresh processes, and multiples of the model's bytes.\n\n";
    out += &presentation.markdown();
    if !charts.is_empty() {
        out += "## Charts\n\n";
        for chart in charts {
            let path = relative(&presentation.plots.join(&chart.file), &presentation.results);
            let shows = escape::markdown(&chart.shows);
            let path = escape::markdown_link(&path);
            write!(out, "![{shows}]({path})\n\n").expect("a string grows");
        }
    }
    if let Ok(machine) = read_text(&presentation.results.join(MACHINE), MAX_MACHINE_BYTES) {
        out += "## Machine\n\n";
        out += &escape::markdown_block("toml", &machine);
    }
    out
}

fn about(records: &[Record], first: &Record, last: &Record) -> String {
    let ended = |is: fn(&&Record) -> bool| records.iter().filter(is).count();
    let ok = ended(|record| record.is_measured());
    let capped = ended(|record| {
        let died = matches!(record.status, Status::Oom | Status::Timeout);
        died && record.host_cap_bytes.is_some()
    });
    let skipped = ended(|record| record.status == Status::Skipped);
    let spoilt = ended(|record| record.is_measured() && !record.spoilt_by.is_empty());
    let mut commits: Vec<String> = Vec::new();
    for record in records {
        let commit = record.commit.clone().unwrap_or("unknown".to_owned());
        let dirty = if record.dirty == Some(true) {
            " with changes"
        } else {
            ""
        };
        let commit = format!("`{}`{dirty}", escape::markdown_code(&commit));
        if !commits.contains(&commit) {
            commits.push(commit);
        }
    }
    let mut text = format!(
        "{} runs, recorded from {} to {}: {ok} ended ok and verified",
        records.len(),
        escape::markdown(&first.started_at),
        escape::markdown(&last.started_at)
    );
    if capped > 0 {
        write!(text, ", {capped} did not survive their host cap").expect("a string grows");
    }
    if skipped > 0 {
        write!(text, ", {skipped} were skipped").expect("a string grows");
    }
    let mut by: Vec<(String, usize)> = Vec::new();
    let measured = records.iter().filter(|record| record.is_measured());
    for known in measured.filter_map(|record| record.verified_by.clone()) {
        match by.iter_mut().find(|(other, _)| *other == known) {
            Some((_, count)) => *count += 1,
            None => by.push((known, 1)),
        }
    }
    let by: Vec<String> = by
        .into_iter()
        .map(|(by, count)| format!("{count} by {}", escape::markdown(&by)))
        .collect();
    if !by.is_empty() {
        write!(text, " ({})", by.join(", ")).expect("a string grows");
    }
    if spoilt > 0 {
        write!(text, ", {spoilt} of the good ones are spoilt").expect("a string grows");
    }
    if records.iter().any(|record| record.verified_by.is_some()) {
        text += ". *Own forward* is this program's, of its own reading of the checkpoint: it finds what was loaded wrong, and not \
                 what was read wrong; *given logits* come from another program, and find both";
    }
    write!(
        text,
        ". Commit {}. Manifest `{}`, SHA-256 `{:.16}…`. Every row is in [runs.csv](runs.csv).",
        commits.join(", "),
        escape::markdown_code(&last.manifest),
        escape::markdown_code(&last.manifest_sha256)
    )
    .expect("a string grows");
    text
}

fn count(claims: &[Judged<'_>]) -> String {
    let of = |verdict| {
        let same = claims.iter().filter(|judged| judged.verdict() == verdict);
        same.count()
    };
    format!(
        "Of {} claims {} hold, {} do not hold, {} do not hold because Burn differs, {} are undecided, and {} were not measured.",
        claims.len(),
        of(Verdict::Holds),
        of(Verdict::DoesNotHold),
        of(Verdict::DiffersAsKnown),
        of(Verdict::Undecided),
        of(Verdict::NotMeasured)
    )
}

fn claims_sheet(claims: &[Judged<'_>]) -> Sheet {
    let rows = claims.iter().map(|judged| {
        let claim = judged.claim;
        let verdict = match judged.verdict() {
            Verdict::Holds => "holds".to_owned(),
            Verdict::DoesNotHold => "does not hold".to_owned(),
            Verdict::DiffersAsKnown => "does not hold: Burn differs".to_owned(),
            Verdict::Undecided => "undecided".to_owned(),
            Verdict::NotMeasured => "not measured".to_owned(),
        };
        let mut found: Vec<String> = judged.findings.iter().map(tell).collect();
        found.extend(claim.differs.clone());
        vec![
            claim.sentence.clone(),
            verdict,
            claim.study.clone().unwrap_or(ABSENT.to_owned()),
            claim.expectation.describe(),
            found.join("; "),
        ]
    });
    Sheet {
        title: String::new(),
        columns: ["claim", "verdict", "the study", "expected", "found"]
            .map(words)
            .to_vec(),
        rows: rows.collect(),
        remarks: Vec::new(),
    }
}

fn tell(judgement: &Judgement) -> String {
    let scene = &judgement.scene;
    let shown = |found: &Found| match found.interval {
        None => format!("{:.2} on {scene}", found.value),
        Some(interval) => format!(
            "{:.2} ({:.2} to {:.2}, n = {}) on {scene}",
            found.value, interval.low, interval.high, interval.runs
        ),
    };
    match &judgement.finding {
        Finding::Holds(found) => shown(found),
        Finding::DoesNotHold(found, off) => format!("{}, off {off}", shown(found)),
        Finding::Undecided(found, reason) => {
            let found = found.as_ref().map_or(scene.clone(), shown);
            format!("undecided: {found}: {reason}")
        }
        Finding::NotMeasured(reason) => format!("not measured on {scene}: {reason}"),
    }
}

fn contracts_sheet(lines: &[Line]) -> Sheet {
    let judged = lines.iter().filter(|line| line.judged_contracts > 0);
    let rows = judged.map(|line| {
        let of_contract = |peak: fn(&Measures) -> Option<u64>, contract| {
            let share = line.bytes(peak).zip(line.contract(contract));
            let share = share.map(|(peak, contract)| 100.0 * peak.max / contract as f64);
            share.map_or(ABSENT.to_owned(), |share| format!("{share:.1} %"))
        };
        let phase = |of: fn(&Measures) -> &Option<String>| {
            let run = line.median_run();
            run.and_then(|run| of(&run.measures).clone())
                .unwrap_or(ABSENT.to_owned())
        };
        let kept = line.judged_contracts - line.broken_contracts;
        vec![
            line.label(),
            format!("{kept}/{}", line.judged_contracts),
            of_contract(
                |measures| measures.host_heap_peak_bytes,
                |measures| measures.host_contract_bytes,
            ),
            phase(|measures| &measures.host_peak_phase),
            of_contract(
                |measures| measures.device_in_use_peak_bytes,
                |measures| measures.device_contract_bytes,
            ),
            phase(|measures| &measures.device_peak_phase),
            of_contract(
                |measures| measures.device_reserved_peak_bytes,
                |measures| measures.device_reserved_contract_bytes,
            ),
        ]
    });
    Sheet {
        title: String::new(),
        columns: vec![
            words("configuration"),
            numbers("kept"),
            numbers("host heap, of what is promised"),
            words("set in phase"),
            numbers("device, of what is promised"),
            words("set in phase"),
            numbers("device pools, of what is promised"),
        ],
        rows: rows.collect(),
        remarks: Vec::new(),
    }
}

/// With forward slashes, as links have them.
fn relative(path: &Path, from: &Path) -> String {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or(path.to_owned());
    let path = pathdiff::diff_paths(absolute(path), absolute(from)).unwrap_or(path.to_owned());
    let parts = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.collect::<Vec<_>>().join("/")
}

fn page(markdown: &str) -> String {
    let mut body = String::new();
    // What looks like markup came from names and reasons, which people download: it is text.
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES).map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        event => event,
    });
    html::push_html(&mut body, events);
    let title = markdown.lines().next().unwrap_or_default();
    let title = escape::html(&title.trim_start_matches("# ").replace('\\', ""));
    let policy = policy();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// What a browser may do with the page: show the charts beside it, in its own style. No script, and nothing from elsewhere.
fn policy() -> String {
    use base64::Engine;
    use sha2::Digest;
    let style = sha2::Sha256::digest(STYLE.as_bytes());
    let style = base64::engine::general_purpose::STANDARD.encode(style);
    format!(
        "default-src 'none'; img-src 'self' file: data:; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    )
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;\
    color:#212529}table{border-collapse:collapse;display:block;overflow-x:auto;font-size:.9rem}\
    th,td{border-bottom:1px solid #e2e5e9;padding:.3rem .7rem;vertical-align:top}th{text-align:left}\
    img{max-width:100%;border:1px solid #e2e5e9}pre{background:#f6f7f8;padding:1rem;overflow-x:auto}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_results_to_the_charts() {
        let path = relative(
            Path::new("plots/m/quick/a.svg"),
            Path::new("results/m/quick"),
        );
        assert_eq!(path, "../../../plots/m/quick/a.svg");
        let path = relative(Path::new("out/plots/a.svg"), Path::new("out"));
        assert_eq!(path, "plots/a.svg");
    }

    #[test]
    fn the_page_has_the_reports_tables_and_what_a_driver_said_is_no_markup() {
        let page = page("# a <b>\n\n| x | y |\n| --- | ---: |\n| 1 | 2 |\n");
        assert!(
            page.contains("<table>") && page.contains("<title>a &lt;b&gt;</title>"),
            "{page}"
        );
        let page = super::page("# a\n\n<script>alert(1)</script>\n\nand <b>bold</b>\n");
        assert!(
            !page.contains("<script>") && !page.contains("<b>"),
            "{page}"
        );
    }
}
