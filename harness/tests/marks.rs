//! The record's marks against independent readings of the same process. In a test binary of its own: the reading
//! is that of all children together.
#![cfg(target_os = "linux")]

mod common;

use common::{Place, number};

const SIZE: &str = "v16384-c256-e512-l8-h8";

/// The largest resident set of any child so far. Exec folds the parent's mark into it; this process is small.
fn largest_child_bytes() -> u64 {
    // SAFETY: a plain structure of numbers, which the call fills.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage), 0);
        usage
    };
    usage.ru_maxrss as u64 * 1024
}

#[test]
fn the_resident_peak_is_what_an_independent_reading_and_the_cgroup_say_to_one_percent() {
    let place = Place::new();
    place.write(
        "m.toml",
        &format!("[matrix]\nexperiments = ['naive']\nsizes = ['{SIZE}']\ndevices = ['flex']\nrepeats = 1\n"),
    );
    // What prepares and refers is another child of the harness, and smaller than two models.
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    let row = &place.rows()[0];
    let recorded = number(row, "host_rss_baseline_bytes") + number(row, "host_rss_peak_bytes");
    let independent = largest_child_bytes();
    let apart = recorded.abs_diff(independent) as f64 / independent as f64;
    assert!(
        apart <= 0.01,
        "recorded {recorded}, independent {independent}"
    );
    assert!(independent > 2 * number(row, "model_bytes"));

    // The kernel counts the cgroup's pages as well, in batches of 64 for each CPU.
    if let Ok(of_cgroup) = row["host_cgroup_peak_bytes"].parse::<u64>() {
        let resident = number(row, "host_rss_peak_bytes");
        let apart = of_cgroup.abs_diff(resident) as f64 / resident as f64;
        assert!(apart <= 0.015, "cgroup {of_cgroup}, resident {resident}");
    }
}
