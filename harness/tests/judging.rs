//! Claims that can fail, comparisons that can fail, and what is said of a recorded run.

mod common;

use common::{Place, TINY, number};

const CLAIMS: &str = "
[[claims]]
sentence = 'naive holds the model twice'
value = '{naive.host_heap_peak_bytes} / {init-only.host_heap_peak_bytes}'
expect = 2.0
tolerance = 0.2
study = '12.8 of 6.4 GiB'
[[claims]]
sentence = 'nobody runs this'
value = '{sequential.load_seconds}'
at_most = 1
[[claims]]
sentence = 'only on a GPU'
value = '{naive.load_seconds}'
at_most = 1
memory = 'discrete'
[[claims]]
sentence = 'as is known, it differs'
value = '{naive.verified}'
expect = 0.0
differs = 'Burn is right'
";

fn place(more: &str) -> Place {
    let place = Place::new();
    place.write(
        "m.toml",
        &format!(
            "[matrix]\nexperiments = ['init-only', 'naive']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n{CLAIMS}{more}"
        ),
    );
    place
}

#[test]
fn claims_are_judged_in_the_report_and_what_was_not_measured_says_why() {
    let place = place("");
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    let report = std::fs::read_to_string(place.out("report.md")).unwrap();
    for expected in [
        "Of 4 claims 1 hold, 0 do not hold, 1 do not hold because Burn differs, 0 are undecided, and 2 were not measured.",
        "| naive holds the model twice | holds | 12.8 of 6.4 GiB | 2 ± 20 % |",
        "| nobody runs this | not measured |",
        "sequential was not run",
        "nothing was run on a device with memory of its own",
        "Burn is right",
        "## Memory contracts",
        "(plots/peaks-flex-",
    ] {
        assert!(
            report.contains(expected),
            "{report}\nshould contain {expected}"
        );
    }
    let page = std::fs::read_to_string(place.out("report.html")).unwrap();
    assert!(
        page.contains("<td>naive holds the model twice</td>"),
        "{page}"
    );

    // The report can be made again, of what is in the folder alone.
    std::fs::remove_file(place.path().join("m.toml")).unwrap();
    std::fs::remove_file(place.out("report.md")).unwrap();
    let output = place.run(&["report", "out"]);
    assert!(output.status.success());
    assert_eq!(
        std::fs::read_to_string(place.out("report.md")).unwrap(),
        report
    );
}

#[test]
fn a_claim_that_does_not_hold_is_a_finding_and_a_failure_where_that_is_asked_for() {
    let place = place(
        "[[claims]]\nsentence = 'naive is slow'\nvalue = '{naive.load_seconds}'\nat_least = 1e9\n",
    );
    let output = place.run(&["run", "m.toml", "--out", "out"]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "claims:    1 hold, 1 do not hold, 1 do not hold because Burn differs, 2 are undecided or were not measured",
        "contracts: 2 hold",
        "report:    out/report.md",
    ] {
        assert!(said.contains(expected), "{said}\nshould contain {expected}");
    }
    let (said, code) = place.run_manifest(&["--resume", "--check"]);
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("1 claims or memory contracts do not hold"),
        "{said}"
    );
    let report = std::fs::read_to_string(place.out("report.md")).unwrap();
    assert!(
        report.contains("| naive is slow | does not hold |"),
        "{report}"
    );
    assert!(report.contains("off by -100.0 %"), "{report}");
}

#[test]
fn a_broken_contract_is_a_finding_as_a_claim_is() {
    let place = place("");
    let (_, code) = place.run_manifest(&[]);
    assert_eq!(code, 0);
    place.edit("out", |row| {
        row.insert("contract_held".to_owned(), "false".to_owned());
    });
    let (said, code) = place.run_manifest(&["--resume"]);
    assert_eq!(code, 0, "{said}");
    let output = place.run(&["run", "m.toml", "--out", "out", "--resume", "--check"]);
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("naive: over its memory contract in 1 of 1 runs"),
        "{said}"
    );
}

#[test]
fn a_comparison_fails_where_memory_grew_or_loads_are_slower_and_says_which() {
    let place = place("");
    for out in ["old", "new"] {
        let output = place.run(&["run", "m.toml", "--out", out, "--repeats", "3"]);
        assert!(output.status.success());
    }
    // The same rows twice.
    std::fs::copy(
        place.path().join("old/runs.csv"),
        place.path().join("new/runs.csv"),
    )
    .unwrap();
    let compare = |more: &[&str]| {
        let output = place.run(&[&["compare", "old", "new"], more].concat());
        let said =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    };
    let (code, said) = compare(&[]);
    assert_eq!(code, 0, "the same rows twice: {said}");
    assert!(said.contains("same"), "{said}");

    place.edit("new", |row| {
        let seconds: f64 = row["load_seconds"].parse().unwrap();
        row.insert("load_seconds".to_owned(), (2.0 * seconds).to_string());
        row.insert("machine".to_owned(), "box".to_owned());
    });
    let (code, said) = compare(&[]);
    assert_eq!(code, 5, "{said}");
    assert!(
        said.contains("worse than before: memory of 0 configurations, load time of 2"),
        "{said}"
    );
    assert!(
        said.contains("machine differs:") && said.contains("→ box"),
        "{said}"
    );

    place.edit("new", |row| {
        if row["experiment"] == "naive" {
            let grown = number(row, "host_heap_peak_bytes") + (4 << 20);
            row.insert("host_heap_peak_bytes".to_owned(), grown.to_string());
        }
    });
    let (code, said) = compare(&[]);
    assert_eq!(code, 5, "{said}");
    assert!(
        said.contains("worse: host heap") && said.contains("memory of 1"),
        "{said}"
    );
    let (_, said) = compare(&["--tolerance", "100000"]);
    assert!(said.contains("memory of 0"), "{said}");
    let (code, said) = compare(&["--json"]);
    assert_eq!(code, 5);
    assert!(
        said.contains("\"load_ratio\"") && said.contains("\"memory\": \"worse\""),
        "{said}"
    );

    let output = place.run(&["compare", "old", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("nowhere/runs.csv")
    );
}

#[test]
fn a_claim_about_time_gets_more_repeats_until_it_is_decided() {
    let place = place(
        "[[claims]]\nsentence = 'naive is fast'\nvalue = '{naive.load_seconds}'\nat_most = 1e9\n",
    );
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    let repeats = |experiment: &str| {
        let rows = place.rows();
        let own = rows.iter().filter(|row| row["experiment"] == experiment);
        own.count()
    };
    assert!(repeats("naive") >= 2, "one repeat decides nothing");
    assert_eq!(repeats("init-only"), 1, "nothing is asked of it");
    let report = std::fs::read_to_string(place.out("report.md")).unwrap();
    assert!(report.contains("| naive is fast | holds |"), "{report}");
}

#[test]
fn spoilt_runs_are_marked_and_left_out_unless_asked_for() {
    let place = place("");
    let (_, code) = place.run_manifest(&["--repeats", "3"]);
    assert_eq!(code, 0);
    place.edit("out", |row| {
        if row["repeat"] == "3" {
            row.insert("spoilt_by".to_owned(), "swap".to_owned());
            row.insert("host_heap_peak_bytes".to_owned(), (1u64 << 40).to_string());
        }
    });
    let plot = |more: &[&str]| {
        let output = place.run(&[&["plot", "out"], more].concat());
        let summary = std::fs::read_to_string(place.out("summary.csv")).unwrap();
        (String::from_utf8(output.stdout).unwrap(), summary)
    };
    let (said, summary) = plot(&[]);
    assert!(said.contains("1 of 3 runs, spoilt by swapping"), "{said}");
    assert!(!summary.contains("1099511627776"), "{summary}");
    let (_, summary) = plot(&["--include-spoilt"]);
    assert!(summary.contains("1099511627776"), "{summary}");
}

#[test]
fn a_recorded_run_is_explained_in_words() {
    let place = place("");
    let (_, code) = place.run_manifest(&[]);
    assert_eq!(code, 0);
    let output = place.run(&["explain", "naive", "--results", "out"]);
    let said = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "host heap:",
        "exact, set in phase",
        "Peak of anonymous pages (RssAnon): sampled",
        "the contract promises",
        "out/runs.csv",
    ] {
        assert!(said.contains(expected), "{said}\nshould contain {expected}");
    }
    // Without a folder, the newest results are looked through.
    let output = place.run(&["run", "m.toml", "--machine", "box", "--only", "naive"]);
    assert!(output.status.success());
    let said = String::from_utf8(place.run(&["explain", "naive"]).stdout).unwrap();
    assert!(said.contains("recorded in runs/box/m/runs.csv"), "{said}");
    let output = place.run(&["explain", "naiv"]);
    assert_eq!(output.status.code(), Some(2));
    let output = place.run(&["explain", "sequential", "--results", "out"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("no such run of sequential ended ok in out"),
        "{said}"
    );
}

#[test]
fn an_explanation_is_one_json_object_where_that_is_asked_for() {
    let place = place("");
    let (_, code) = place.run_manifest(&["--only", "naive"]);
    assert_eq!(code, 0);
    let output = place.run(&["explain", "naive", "--results", "out", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["experiment"], "naive");
    assert_eq!(object["run"]["model"], TINY);
    let peak = &object["peaks"][0];
    assert_eq!(peak["memory"], "host heap");
    assert_eq!(peak["contract_held"], true);
    assert_eq!(peak["peak_bytes"], object["run"]["host_heap_peak_bytes"]);
}

#[test]
fn what_measuring_costs_is_told_in_pairs_of_loads() {
    let place = Place::new();
    let output = place.run(&[
        "overhead",
        "--size",
        TINY,
        "--pairs",
        "2",
        "--out",
        "pairs.csv",
    ]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("What measuring costs: flex"), "{said}");
    let pairs = std::fs::read_to_string(place.path().join("pairs.csv")).unwrap();
    assert_eq!(pairs.lines().count(), 1 + 2 * 2, "{pairs}");
}

#[test]
fn a_device_without_its_driver_is_skipped_with_the_reason() {
    let found = lab::find_devices();
    let cuda = found
        .iter()
        .find(|device| device.spec.to_string() == "cuda")
        .unwrap();
    let Err(reason) = &cuda.state else {
        return;
    };
    let place = place("");
    let (said, code) = place.run_manifest(&["--only", "naive", "--device", "cuda"]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    assert_eq!(rows[0]["status"], "skipped");
    assert!(rows[0]["reason"].contains(reason), "{}", rows[0]["reason"]);
    for column in [
        "device_pool_used_peak_bytes",
        "device_pool_reserved_peak_bytes",
        "device_driver_peak_bytes",
    ] {
        assert_eq!(rows[0][column], "", "{column}");
    }
}
