//! Results that are taken among the committed ones, and what is made of those.

mod common;

use common::{Place, TINY};

/// A checkout of nothing but a manifest and a README, with one run recorded in `out`.
fn checkout() -> Place {
    let place = Place::new();
    std::fs::create_dir_all(place.path().join("harness/manifests")).unwrap();
    place.write(
        "README.md",
        "[charts](plots)\n\n<!-- generated: table results/box/m flex {TINY} -->\n<!-- end generated -->\n"
            .replace("{TINY}", TINY)
            .as_str(),
    );
    place.write(
        "m.toml",
        &format!("[matrix]\nexperiments = ['naive']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n"),
    );
    let (said, code) = place.run_manifest(&["--machine", "box"]);
    assert_eq!(code, 0, "{said}");
    place
}

/// As if made of a commit; this checkout is none of git's.
fn of_a_commit(place: &Place, dirty: &str) {
    place.edit("out", |row| {
        row.insert("commit".to_owned(), "0123456789ab".to_owned());
        row.insert("dirty".to_owned(), dirty.to_owned());
        row.insert("spoilt_by".to_owned(), String::new());
    });
}

fn run(place: &Place, args: &[&str]) -> (i32, String, String) {
    let output = place.run(args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn read(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path().join(name)).unwrap()
}

#[test]
fn results_are_published_with_their_charts_and_replace_what_was_there() {
    let place = checkout();
    of_a_commit(&place, "false");
    let (code, _, said) = run(&place, &["publish", "out"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        read(&place, "results/box/m/runs.csv"),
        read(&place, "out/runs.csv")
    );
    let chart = format!("plots/box/m/peaks-flex-{TINY}.svg");
    assert!(place.path().join(&chart).exists());
    let report = read(&place, "results/box/m/report.md");
    assert!(report.contains(&format!("(../../../{chart})")), "{report}");
    for absent in ["results/box/m/plots", "results/box/m/.lock"] {
        assert!(!place.path().join(absent).exists(), "{absent}");
    }

    place.write("plots/box/m/old.svg", "");
    let (code, told, _) = run(&place, &["publish", "out"]);
    assert!(code == 0 && told.contains("is replaced"), "{told}");
    assert!(!place.path().join("plots/box/m/old.svg").exists());
    let (code, _, said) = run(&place, &["publish", "results/box/m"]);
    assert!(code == 1 && said.contains("is published already"), "{said}");
    assert!(place.path().join("results/box/m/runs.csv").exists());
}

#[test]
fn results_that_nobody_could_make_again_are_published_by_force_only() {
    let place = checkout();
    let refused = |expected: &str| {
        let (code, _, said) = run(&place, &["publish", "out"]);
        assert!(code == 1 && said.contains(expected), "{said}");
        assert!(!place.path().join("results").exists());
    };
    refused("name no commit");
    of_a_commit(&place, "true");
    refused("sources differed from the commit");
    let (code, _, said) = run(&place, &["publish", "out", "--force"]);
    assert_eq!(code, 0, "{said}");
    let (code, _, said) = run(&place, &["publish", "nowhere", "--force"]);
    assert!(code == 1 && said.contains("nowhere/runs.csv"), "{said}");
}

#[test]
fn what_is_made_of_the_rows_is_made_again_and_what_differs_is_named() {
    let place = checkout();
    of_a_commit(&place, "false");
    let (code, _, said) = run(&place, &["publish", "out"]);
    assert_eq!(code, 0, "{said}");
    let (code, told, _) = run(&place, &["regenerate"]);
    assert!(code == 0 && told == "differs: README.md\n", "{told}");
    assert!(read(&place, "README.md").contains("| naive |"));
    let (code, told, said) = run(&place, &["regenerate", "--check"]);
    assert!(code == 0 && told.is_empty(), "{told}{said}");

    let chart = format!("plots/box/m/peaks-flex-{TINY}.png");
    let summary = read(&place, "results/box/m/summary.md");
    place.write("results/box/m/summary.md", "edited by hand");
    place.write("plots/box/m/old.svg", "");
    std::fs::create_dir_all(place.path().join("plots/box/gone")).unwrap();
    place.write("plots/box/gone/old.svg", "");
    std::fs::remove_file(place.path().join(&chart)).unwrap();
    place.write(
        "README.md",
        &(read(&place, "README.md") + "[x](no/where.md)\n"),
    );
    let expected = [
        "differs: results/box/m/summary.md".to_owned(),
        format!("missing: {chart}"),
        "stale:   plots/box/gone/old.svg".to_owned(),
        "stale:   plots/box/m/old.svg".to_owned(),
    ];
    let (code, told, said) = run(&place, &["regenerate", "--check"]);
    assert_eq!(code, 1);
    for expected in &expected {
        assert!(told.contains(expected), "{told}\nshould contain {expected}");
    }
    assert_eq!(told.lines().count(), 5, "{told}");
    assert!(
        said.contains("4 files are not what is made of the rows: run `harness regenerate`; 1 links lead nowhere"),
        "{said}"
    );
    assert!(
        told.contains("broken link in README.md: no/where.md"),
        "{told}"
    );
    assert_eq!(read(&place, "results/box/m/summary.md"), "edited by hand");

    let (code, _, said) = run(&place, &["regenerate"]);
    assert!(code == 1 && said.contains("1 links lead nowhere"), "{said}");
    assert_eq!(read(&place, "results/box/m/summary.md"), summary);
    assert!(!place.path().join("plots/box/m/old.svg").exists());
    assert!(place.path().join(&chart).exists());
}

#[test]
fn outside_a_checkout_there_is_nothing_to_regenerate() {
    let place = Place::new();
    let (code, _, said) = run(&place, &["regenerate"]);
    assert!(code == 2 && said.contains("no checkout"), "{said}");
}
