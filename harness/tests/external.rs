//! External commands: measured from outside, verified by their logits, and told to a person where they fail.
#![cfg(unix)]

mod common;

use common::{Place, Row, TINY, number};

/// A peer of a few lines: it holds the file's bytes, and answers with the logits that it is given.
const PEER: &str = r#"
import json, sys, time
how = sys.argv[1]
spec = json.loads(sys.stdin.readline())
def say(**message): print(json.dumps(message), flush=True)
if how == "dies": sys.exit("no such thing as a model")
if how == "refuses": say(event="failed", reason="too much to ask"); sys.exit()
if how == "babbles": print("hello", flush=True); time.sleep(60)
say(event="ready", framework="few lines 1.0")
assert sys.stdin.readline().strip() == "load"
if how == "sleeps": time.sleep(60)
model = bytearray(open(spec["checkpoint"], "rb").read())
model[::4096] = bytes(len(model[::4096]))
say(event="loaded")
assert sys.stdin.readline().strip() == "forward"
if how == "guesses":
    logits = bytes(4 * len(spec["tokens"]) * spec["model"]["vocabulary"])
else:
    file = open("reference.safetensors", "rb").read()
    start = 8 + int.from_bytes(file[:8], "little")
    logits = file[start:]
open(spec["logits"], "wb").write(logits)
say(event="done")
"#;

/// 167 MB: large against an interpreter.
const SIZE: &str = "v16384-c256-e512-l8-h8";

fn run(
    place: &Place,
    size: &str,
    hows: &[&str],
    timeout_seconds: u32,
    more: &str,
) -> (Vec<Row>, String, i32) {
    place.write("peer.py", PEER);
    let mut text = format!(
        "[matrix]\nexperiments = ['streamed']\nsizes = ['{size}']\ndevices = ['flex']\nrepeats = 1\n\
         [limits]\ntimeout_seconds = {timeout_seconds}\n"
    );
    for how in hows {
        text += &format!(
            "[[external]]\nname = 'peer:{how}'\ncommand = ['python3', 'peer.py', '{how}']\n{more}\n"
        );
    }
    place.write("m.toml", &text);
    let (said, code) = place.run_manifest(&[]);
    (place.rows(), said, code)
}

fn reason_of(rows: &[Row], how: &str) -> (String, String) {
    let name = format!("peer:{how}");
    let row = rows.iter().find(|row| row["experiment"] == name).unwrap();
    (row["status"].clone(), row["reason"].clone())
}

#[test]
fn a_command_is_measured_from_outside_and_stands_in_the_same_rows() {
    let place = Place::new();
    // The reference of this size, which the peer hands back.
    let prepared = place.run(&["prepare", "--size", SIZE, "--format", "safetensors"]);
    assert!(prepared.status.success());
    let first = run(&place, SIZE, &[], 120, "");
    assert_eq!(first.2, 0, "{}", first.1);
    let reference = format!("checkpoints/{SIZE}-f32/reference.safetensors");
    std::fs::copy(
        place.path().join(reference),
        place.path().join("reference.safetensors"),
    )
    .unwrap();
    std::fs::remove_dir_all(place.path().join("out")).unwrap();

    let (rows, said, code) = run(&place, SIZE, &["loads", "guesses"], 120, "");
    assert_eq!(code, 3, "{said}");
    let peer = rows
        .iter()
        .find(|row| row["experiment"] == "peer:loads")
        .unwrap();
    assert_eq!(
        (&*peer["status"], &*peer["verified"]),
        ("ok", "true"),
        "{peer:?}"
    );
    assert_eq!(peer["framework"], "few lines 1.0");
    assert_eq!(peer["contract_held"], "", "it promises nothing");
    let model = number(peer, "model_bytes") as f64;
    // `bytearray(read())` holds the file twice for a moment.
    let resident = number(peer, "host_rss_peak_bytes") as f64 / model;
    assert!((1.9..2.2).contains(&resident), "{resident}");
    assert!(number(peer, "bytes_read") as f64 >= model);
    let (status, reason) = reason_of(&rows, "guesses");
    assert_eq!(status, "failed");
    assert!(reason.contains("logits differ"), "{reason}");
}

#[test]
fn a_command_that_fails_says_why_and_the_others_go_on() {
    let place = Place::new();
    let hows = ["dies", "refuses", "babbles", "sleeps"];
    let (rows, said, code) = run(&place, TINY, &hows, 8, "");
    assert_eq!(code, 3, "{said}");
    assert_eq!(rows.len(), 5);
    let expected = [
        ("dies", "failed", "no such thing as a model"),
        ("refuses", "failed", "too much to ask"),
        ("babbles", "failed", "`hello`, which is no event"),
        ("sleeps", "timeout", "took longer than 8 s"),
    ];
    for (how, status, words) in expected {
        let (found, reason) = reason_of(&rows, how);
        assert_eq!(found, status, "{reason}");
        assert!(reason.contains(words), "{how}: {reason}");
    }
}

/// Starts processes that sleep for so many seconds, by every way that outlives who has started it: a child, one in a session of
/// its own, an orphan. Then it does what it is told.
#[cfg(target_os = "linux")]
const SPAWNER: &str = r#"
import json, os, subprocess, sys, time
how, seconds = sys.argv[1:]
sys.stdin.readline()
subprocess.Popen(["sleep", seconds])
subprocess.Popen(["sleep", seconds], start_new_session=True)
os.system(f"(setsid sleep {seconds} &)")
time.sleep(0.3)
print(json.dumps({"event": "ready"}), flush=True)
if how == "stays": time.sleep(600)
if how == "shouts": sys.stdout.write("x" * (3 << 20)); sys.stdout.flush(); time.sleep(600)
if how == "complains": sys.stderr.write("complaint " * 200000 + "\n"); sys.exit("the last word")
"#;

/// How many processes sleep for so many seconds.
#[cfg(target_os = "linux")]
fn sleepers(seconds: &str) -> usize {
    let wanted = format!("sleep\0{seconds}\0");
    let all = std::fs::read_dir("/proc").unwrap();
    let lines = all.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line == wanted.as_bytes()).count()
}

#[cfg(target_os = "linux")]
fn spawning(place: &Place, how: &str, seconds: &str, timeout_seconds: u32) {
    place.write("spawner.py", SPAWNER);
    let text = format!(
        "[matrix]\nexperiments = ['streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n\
         [limits]\ntimeout_seconds = {timeout_seconds}\n\
         [[external]]\nname = 'peer:{how}'\ncommand = ['python3', 'spawner.py', '{how}', '{seconds}']\n"
    );
    place.write("m.toml", &text);
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_that_a_command_has_started_survives_it_and_its_end_is_its_end() {
    for (how, seconds, status, needle) in [
        ("stays", "4011", "timeout", "took longer"),
        ("leaves", "4012", "failed", "ended with exit status: 0"),
        ("complains", "4013", "failed", "the last word"),
        ("shouts", "4014", "failed", "a line of more than"),
    ] {
        let place = Place::new();
        spawning(&place, how, seconds, 6);
        let start = std::time::Instant::now();
        let (said, code) = place.run_manifest(&[]);
        assert_eq!(code, 3, "{said}");
        let (was, reason) = reason_of(&place.rows(), how);
        assert_eq!(was, status, "{how}: {reason}");
        assert!(reason.contains(needle), "{how}: {reason}");
        assert!(reason.len() < 5000, "{how}: {} bytes", reason.len());
        assert_eq!(sleepers(seconds), 0, "{how}");
        if how != "stays" {
            assert!(
                start.elapsed().as_secs() < 40,
                "{how}: {:?}",
                start.elapsed()
            );
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_that_a_command_has_started_survives_a_harness_that_is_killed() {
    let place = Place::new();
    spawning(&place, "stays", "4021", 300);
    let mut command = place.command(&["run", "m.toml", "--out", "out", "--only", "peer:stays"]);
    let mut harness = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let wait_for = |count: usize| {
        let start = std::time::Instant::now();
        while sleepers("4021") != count {
            assert!(start.elapsed().as_secs() < 60, "{} sleep", sleepers("4021"));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait_for(3);
    harness.kill().unwrap();
    harness.wait().unwrap();
    wait_for(0);
}

/// As [`SPAWNER`]; then it kills what guards it, and stays.
#[cfg(target_os = "linux")]
const MURDERER: &str = r#"
import os, subprocess, sys, time
seconds = sys.argv[1]
os.system(f"(setsid sleep {seconds} &)")
subprocess.Popen(["sleep", seconds])
time.sleep(0.3)
os.kill(os.getppid(), 9)
time.sleep(600)
"#;

#[cfg(target_os = "linux")]
#[test]
fn a_command_that_kills_its_guard_ends_with_it_and_leaves_nothing() {
    for (key, seconds, status) in [("command", "4031", "failed"), ("setup", "4032", "skipped")] {
        let place = Place::new();
        place.write("murderer.py", MURDERER);
        let own = format!("['python3', 'murderer.py', '{seconds}']");
        let commands = match key {
            "command" => format!("command = {own}"),
            _ => format!("command = ['true']\nsetup = {own}"),
        };
        place.write(
            "m.toml",
            &format!(
                "[matrix]\nexperiments = ['streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n\
                 [limits]\ntimeout_seconds = 60\n[[external]]\nname = 'peer:kills'\n{commands}\n"
            ),
        );
        let start = std::time::Instant::now();
        let (said, _) = place.run_manifest(&[]);
        assert!(start.elapsed().as_secs() < 40, "{key}: {said}");
        let (was, reason) = reason_of(&place.rows(), "kills");
        assert_eq!(was, status, "{key}: {reason}");
        assert!(reason.contains("signal: 9"), "{key}: {reason}");
        assert_eq!(sleepers(seconds), 0, "{key}");
    }
}

/// The number of a command that was told to write it to a file.
#[cfg(target_os = "linux")]
fn number_in(place: &Place, name: &str) -> u32 {
    let start = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(place.path().join(name)).unwrap_or_default();
        if let Some(number) = text.strip_suffix('\n') {
            return number.parse().unwrap();
        }
        assert!(start.elapsed().as_secs() < 60, "it was not started");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
fn writing_its_number(place: &Place, then: &str) {
    let script = format!("echo $$ > number.new; mv number.new number; {then}");
    place.write(
        "m.toml",
        &format!(
            "[matrix]\nexperiments = ['streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n\
             [[external]]\nname = 'peer:sh'\ncommand = ['sh', '-c', '{script}']\n"
        ),
    );
}

#[cfg(target_os = "linux")]
#[test]
fn whoever_else_holds_a_commands_pipe_is_not_waited_for() {
    let place = Place::new();
    writing_its_number(&place, "sleep 2; echo the last word >&2; exit 7");
    let mut command = place.command(&["run", "m.toml", "--out", "out"]);
    let mut harness = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let number = number_in(&place, "number");
    // An outsider, which no tree is the parent of: this test.
    let mut options = std::fs::File::options();
    let held = options.write(true).open(format!("/proc/{number}/fd/2"));
    let held = held.unwrap();
    let start = std::time::Instant::now();
    while harness.try_wait().unwrap().is_none() {
        assert!(start.elapsed().as_secs() < 30, "the harness waits");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(held);
    let (status, reason) = reason_of(&place.rows(), "sh");
    assert_eq!(status, "failed");
    assert!(reason.contains("exit status: 7: the last word"), "{reason}");
}

/// A harness and its guards killed together have nobody left who ends what they started: the next run does.
#[cfg(target_os = "linux")]
#[test]
fn what_harness_and_guard_left_when_both_were_killed_is_gone_before_the_next_run() {
    use rustix::process::{Pid, Signal, kill_process};

    if !matches!(meter::HostCaps::detect(), meter::HostCaps::Cgroups(..)) {
        eprintln!("skipped: without cgroups nobody knows what is left");
        return;
    }
    let place = Place::new();
    writing_its_number(&place, "exec sleep 4041");
    let args = ["run", "m.toml", "--out", "out"];
    let mut harness = place
        .command(&args)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let number = number_in(&place, "number");
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap();
    let guard = stat.split(' ').nth(3).unwrap().parse().unwrap();
    // Stopped first, that none of them sees the other's end.
    let both = [guard, harness.id() as i32].map(|pid| Pid::from_raw(pid).unwrap());
    for signal in [Signal::STOP, Signal::KILL] {
        both.iter()
            .for_each(|&pid| kill_process(pid, signal).unwrap());
    }
    harness.wait().unwrap();
    assert_eq!(
        sleepers("4041"),
        1,
        "nothing was left: the test shows nothing"
    );
    let next = Place::new();
    next.write(
        "m.toml",
        &format!("[matrix]\nexperiments = ['streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n"),
    );
    let (said, code) = next.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(sleepers("4041"), 0);
}

#[test]
fn a_command_that_is_not_there_or_cannot_be_set_up_is_skipped_with_the_reason() {
    let place = Place::new();
    let (rows, said, code) = run(&place, TINY, &["loads"], 120, "setup = ['false']");
    assert_eq!(code, 0, "{said}");
    let (status, reason) = reason_of(&rows, "loads");
    assert_eq!(status, "skipped");
    assert!(
        reason.contains("its set-up failed: `false` ended"),
        "{reason}"
    );

    let place = Place::new();
    let text = format!(
        "[matrix]\nexperiments = ['streamed']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n\
         [[external]]\nname = 'nobody'\ncommand = ['./no-such-program']\n"
    );
    place.write("m.toml", &text);
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    let row = rows
        .iter()
        .find(|row| row["experiment"] == "nobody")
        .unwrap();
    assert_eq!(row["status"], "skipped");
    assert!(row["reason"].contains("./no-such-program"), "{row:?}");
}

#[test]
fn in_a_checkout_a_command_is_run_from_its_root_and_is_explained_by_name() {
    let place = Place::new();
    std::fs::create_dir_all(place.path().join("harness/manifests")).unwrap();
    std::fs::create_dir_all(place.path().join("inside")).unwrap();
    std::fs::create_dir_all(place.path().join("peers")).unwrap();
    place.write("peers/peer.py", PEER);
    place.write(
        "harness/manifests/own.toml",
        &format!(
            "[matrix]\nexperiments = ['naive']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n\
             [[external]]\nname = 'peer:tiny'\nsummary = 'a few lines'\ncommand = ['python3', 'peers/peer.py', 'works']\n"
        ),
    );
    let inside = place.path().join("inside");
    let run = |args: &[&str]| place.command(args).current_dir(&inside).output().unwrap();
    assert!(run(&["prepare", "--size", TINY]).status.success());
    assert!(
        run(&["run", "own", "--only", "naive", "--out", "first"])
            .status
            .success()
    );
    let reference = format!("checkpoints/{TINY}-f32/reference.safetensors");
    std::fs::copy(
        place.path().join(reference),
        place.path().join("reference.safetensors"),
    )
    .unwrap();
    let output = run(&["run", "own", "--machine", "box"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(run(&["explain", "peer:tiny"]).stdout).unwrap();
    assert!(said.starts_with("peer:tiny: a few lines\n"), "{said}");
    let output = run(&["explain", "peer:tini"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("did you mean `peer:tiny`?"), "{said}");
}
