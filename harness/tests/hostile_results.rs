//! A folder of results that an enemy has made: what is drawn, written and printed of it is text.

mod common;

use std::path::{Path, PathBuf};

use common::{Place, TINY};

const PAYLOADS: [&str; 8] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![t](https://evil.example/t.png)",
    "`x` **b** | c",
    "=HYPERLINK(\"https://evil.example\")",
    "\u{1b}]0;owned\u{7}\u{1b}[31mred",
    "</text></svg><svg onload=alert(1)>",
    "\u{202e}gnp.exe &lt;b&gt;",
];

/// Texts of a row that are shown.
const SHOWN: [&str; 9] = [
    "manifest",
    "machine",
    "driver",
    "framework",
    "experiment",
    "reason",
    "checkpoint",
    "commit",
    "host_peak_phase",
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let found = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => files(&path),
        path => vec![path],
    });
    found.collect()
}

#[test]
fn texts_of_rows_are_text_in_reports_charts_tables_and_on_the_terminal() {
    let place = Place::new();
    place.write(
        "m.toml",
        &format!("[matrix]\nexperiments = ['naive', 'streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n"),
    );
    assert_eq!(place.run_manifest(&[]).1, 0);
    for payload in PAYLOADS {
        place.edit("out", |row| {
            for column in SHOWN {
                // What is a path leads nowhere, and is refused with its row: that is another test.
                row.insert(column.to_owned(), payload.replace('/', "∕"));
            }
        });
        let output = place.run(&["plot", "out"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let printed = [output.stdout, output.stderr].concat();
        let mut all = vec![("what is printed".to_owned(), printed)];
        for path in files(&place.out("")) {
            let is_input = ["runs.csv", "manifest.toml"]
                .iter()
                .any(|name| path.ends_with(name));
            if !is_input && path.extension().is_none_or(|kind| kind != "png") {
                all.push((path.display().to_string(), std::fs::read(path).unwrap()));
            }
        }
        assert!(all.len() >= 7, "{}", all.len());
        for (name, bytes) in all {
            let text = String::from_utf8(bytes).unwrap();
            assert!(
                !text.contains(['\u{1b}', '\u{7}', '\u{202e}']),
                "{name} acts on a terminal"
            );
            if name.ends_with(".html") || name.ends_with(".svg") {
                for markup in [
                    "<script",
                    "onerror=alert(1)>",
                    "onload=alert(1)>",
                    "href=\"javascript",
                    "evil.example/t.png\"",
                ] {
                    assert!(!text.contains(markup), "{name} has {markup}");
                }
            }
            if name.ends_with(".csv") {
                let mut rows = csv::ReaderBuilder::new()
                    .has_headers(false)
                    .from_reader(text.as_bytes());
                for field in rows
                    .records()
                    .flat_map(|row| row.unwrap().iter().map(str::to_owned).collect::<Vec<_>>())
                {
                    assert!(!field.starts_with(['=', '@']), "{name}: {field}");
                }
            }
        }
    }
}

#[test]
fn a_row_whose_names_are_paths_is_left_out_and_nothing_is_written_outside() {
    let place = Place::new();
    place.write(
        "m.toml",
        &format!("[matrix]\nexperiments = ['naive', 'streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n"),
    );
    assert_eq!(place.run_manifest(&[]).1, 0);
    for column in [
        "model", "device", "dtype", "cache", "run_id", "machine", "manifest",
    ] {
        place.edit("out", |row| {
            let path = if row["experiment"] == "naive" {
                "x/../../../outside"
            } else {
                "plain"
            };
            row.insert(column.to_owned(), path.to_owned());
        });
        let output = place.run(&["plot", "out"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{column}: {said}");
        assert!(said.contains(&format!("column {column}")), "{said}");
        place.edit("out", |row| {
            let name = if column == "run_id" {
                row["experiment"].clone()
            } else {
                "plain".to_owned()
            };
            row.insert(column.to_owned(), name);
        });
    }
    let outside = place.path().parent().unwrap().join("outside");
    assert!(!outside.exists() && !place.path().join("outside").exists());
}

#[test]
#[cfg(unix)]
fn a_lock_that_is_a_link_or_somebody_elses_file_is_left_as_it_is() {
    let place = Place::new();
    place.manifest("repeats = 1");
    for is_link in [true, false] {
        let folder = place.path().join("out");
        std::fs::create_dir_all(&folder).unwrap();
        let lock = folder.join(".lock");
        place.write("mine", "my own text\n");
        match is_link {
            true => std::os::unix::fs::symlink(place.path().join("mine"), &lock).unwrap(),
            false => std::fs::write(&lock, "my own text\n").unwrap(),
        }
        let (said, code) = place.run_manifest(&[]);
        assert!(code == 1 || code == 2, "{code}: {said}");
        assert!(said.contains(".lock"), "{said}");
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), "my own text\n");
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
#[cfg(unix)]
fn a_folder_of_results_that_is_a_link_stays_one() {
    let place = Place::new();
    place.write(
        "m.toml",
        &format!("[matrix]\nexperiments = ['streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n"),
    );
    std::fs::create_dir(place.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", place.path().join("out")).unwrap();
    for _ in 0..2 {
        let (said, code) = place.run_manifest(&[]);
        assert_eq!(code, 0, "{said}");
        assert!(
            place
                .path()
                .join("out")
                .symlink_metadata()
                .unwrap()
                .is_symlink()
        );
        assert_eq!(place.rows().len(), 1);
    }
}

#[test]
#[cfg(unix)]
fn a_lock_or_a_timeline_that_has_no_end_is_refused_by_name_and_nobody_waits() {
    use std::os::unix::fs::symlink;

    let place = Place::new();
    place.write(
        "m.toml",
        &format!("[matrix]\nexperiments = ['streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n"),
    );
    assert_eq!(place.run_manifest(&[]).1, 0);
    let fifo = |path: &Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    };
    let told = |args: &[&str], needle: &str, code: i32| {
        let started = std::time::Instant::now();
        let output = place.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(needle), "{args:?}: {said}");
        assert!(started.elapsed().as_secs() < 30, "{args:?} waited");
    };
    let run_id = place.rows()[0]["run_id"].clone();
    let timeline = place.out("timelines").join(format!("{run_id}.csv"));
    let header = std::fs::read_to_string(&timeline).unwrap();
    let header = header.lines().next().unwrap().to_owned();
    type Make<'a> = &'a dyn Fn(&Path);
    let make: [(&str, Make<'_>); 4] = [
        ("it is a pipe", &|path| fifo(path)),
        ("it is a device", &|path| {
            symlink("/dev/zero", path).unwrap()
        }),
        ("is larger than", &|path| {
            let file = std::fs::File::create(path).unwrap();
            file.set_len(3 << 30).unwrap();
        }),
        ("not in order", &|path| {
            let row = |time: &str| {
                let names = header.split(',');
                let fields = names.map(|name| match name {
                    "time_seconds" => time.to_owned(),
                    "phase" => "read".to_owned(),
                    _ => "1".to_owned(),
                });
                fields.collect::<Vec<_>>().join(",")
            };
            let text = format!("{header}\n{}\n{}\n", row("2"), row("1e300"));
            std::fs::write(path, text).unwrap();
        }),
    ];
    for (needle, make) in make {
        let _ = std::fs::remove_file(&timeline);
        make(&timeline);
        // The rest of the report is made all the same.
        told(&["plot", "out"], needle, 0);
        told(&["explain", "streamed", "--results", "out"], needle, 1);
    }
    std::fs::remove_file(&timeline).unwrap();
    let lock = place.out(".lock");
    std::fs::remove_file(&lock).unwrap();
    fifo(&lock);
    told(&["run", "m.toml", "--out", "out", "--resume"], ".lock", 1);
}

#[test]
#[cfg(unix)]
fn nothing_is_written_through_links_that_lie_in_a_folder_of_results() {
    let place = Place::new();
    place.write(
        "m.toml",
        &format!("[matrix]\nexperiments = ['streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n"),
    );
    assert_eq!(place.run_manifest(&[]).1, 0);
    let outside = place.path().join("outside");
    for name in ["plots", "timelines", "runs.csv"] {
        std::fs::create_dir_all(&outside).unwrap();
        let (there, aside) = (place.out(name), outside.join(name));
        std::fs::rename(&there, &aside).unwrap();
        let before = files(&outside);
        std::os::unix::fs::symlink(&aside, &there).unwrap();
        let args: &[&str] = match name {
            "plots" => &["plot", "out"],
            _ => &[
                "run",
                "m.toml",
                "--out",
                "out",
                "--resume",
                "--repeats",
                "2",
            ],
        };
        let output = place.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains("is a link"), "{name}: {said}");
        assert_eq!(files(&outside), before, "{name}");
        std::fs::remove_file(&there).unwrap();
        std::fs::rename(&aside, &there).unwrap();
    }
}
