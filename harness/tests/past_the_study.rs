//! What the techniques past the study promise, held on unified and on discrete memory, by real runs.

mod common;

use common::{Place, Row, has_vulkan, number};

/// 167 MB with tables of 33 MB: large against the staging buffer.
const SIZE: &str = "v16384-c256-e512-l8-h8";
/// No tensor of it is over what a device binds, so that Burn's own stores load it anywhere.
const SMALL: &str = "v257-c64-e48-l2-h4";
const MIB: u64 = 1 << 20;

fn rows(experiments: &str, size: &str, more: &str) -> Vec<Row> {
    let place = Place::new();
    let text =
        format!("[matrix]\nexperiments = {experiments}\nsizes = ['{size}']\nrepeats = 1\n{more}\n");
    place.write("m.toml", &text);
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    assert!(
        rows.iter().all(|row| row["status"] == "ok"
            && row["verified"] == "true"
            && row["contract_held"] == "true"),
        "{said}"
    );
    rows
}

fn row<'a>(rows: &'a [Row], experiment: &str) -> &'a Row {
    rows.iter()
        .find(|row| row["experiment"] == experiment)
        .unwrap_or_else(|| panic!("{experiment} was run"))
}

/// Between these multiples of the model, and so many mebibytes more.
fn check(row: &Row, column: &str, times: std::ops::RangeInclusive<f64>, mib: u64) {
    let model = number(row, "model_bytes") as f64;
    let measured = number(row, column) as f64;
    let most = times.end() * model + (mib * MIB) as f64;
    assert!(
        (times.start() * model..=most).contains(&measured),
        "{} {column}: {measured} bytes is {:.3} of the model",
        row["run_id"],
        measured / model
    );
}

#[test]
fn in_host_memory_each_holds_what_it_promises_and_nothing_beside() {
    let experiments = "['streamed', 'parallel-read', 'sharded', 'mmap-zero-copy', 'half', 'half:bf16', 'quantized', \
                       'prequantized', 'layer-offload']";
    let more = "devices = ['flex']\n[tuning]\nstaging = '2MiB'\nthreads = 2";
    let rows = rows(experiments, SIZE, more);
    assert_eq!(rows.len(), 9);
    let heap = "host_heap_peak_bytes";
    for exact in ["streamed", "parallel-read", "sharded"] {
        check(row(&rows, exact), heap, 1.0..=1.0, 1);
    }
    let mapped = row(&rows, "mmap-zero-copy");
    check(mapped, heap, 0.0..=0.0, 1);
    check(mapped, "host_anon_peak_bytes", 0.0..=0.0, 8);
    for half in ["half", "half:bf16"] {
        check(row(&rows, half), heap, 0.5..=0.5, 4);
    }
    for quantised in ["quantized", "prequantized"] {
        check(row(&rows, quantised), heap, 0.28..=0.285, 3);
    }
    // Two tables, of 8192 KiB each and a little more, and two of eight layers.
    check(row(&rows, "layer-offload"), heap, 0.4..=0.75, 4);
    for changed in ["half", "half:bf16", "quantized", "prequantized"] {
        let error: f64 = row(&rows, changed)["logits_error"].parse().unwrap();
        assert!(error > 0.0 && error < 0.05, "{changed}: {error}");
    }
    let exact: f64 = row(&rows, "streamed")["logits_error"].parse().unwrap();
    assert!(exact < 1e-4);
    let offload = row(&rows, "layer-offload");
    assert_eq!(offload["staging_bytes"], "2097152");
    assert_eq!(offload["resident_layers"], "2");
    assert_eq!(offload["threads"], "", "it heeds no threads");
    assert_eq!(row(&rows, "mmap-zero-copy")["threads"], "2");
}

#[test]
fn on_a_device_the_host_holds_the_staging_buffer_and_the_device_the_model() {
    if !has_vulkan() {
        return;
    }
    let experiments =
        "['streamed', 'parallel-read', 'sharded', 'half', 'quantized', 'layer-offload']";
    let more = "devices = ['vulkan']\n[tuning]\nstaging = '2MiB'\nqueue_depth = 4";
    let rows = rows(experiments, SIZE, more);
    let (device, host) = ("device_in_use_peak_bytes", "host_heap_peak_bytes");
    for exact in ["streamed", "parallel-read", "sharded"] {
        check(row(&rows, exact), device, 1.0..=1.0, 1);
        // Far below the largest tensor, of 32 MiB.
        check(row(&rows, exact), host, 0.0..=0.0, 12);
    }
    check(row(&rows, "half"), device, 0.5..=0.5, 1);
    check(row(&rows, "quantized"), device, 0.28..=0.285, 1);
    // Forward's own tensors are on the device beside the parameters.
    check(row(&rows, "layer-offload"), device, 0.4..=0.75, 8);
}

#[test]
fn half_precision_on_disk_is_loaded_as_it_is() {
    let experiments = "['half', 'half:bf16', 'streamed', 'mmap-zero-copy']";
    let rows = rows(
        experiments,
        SMALL,
        "devices = ['flex']\ndtypes = ['f16', 'bf16']",
    );
    // Each half is for its own dtype; the others are for both.
    assert_eq!(rows.len(), 6);
    for row in rows {
        check(&row, "host_heap_peak_bytes", 0.0..=1.0, 1);
    }
}

#[test]
fn burns_own_loaders_load_the_same_weights() {
    let stores =
        "['safetensors-store', 'pytorch-store', 'burnpack', 'burnpack:zero-copy', 'recorder']";
    let rows_on_flex = rows(stores, SMALL, "devices = ['flex']");
    let formats: Vec<_> = ["safetensors-store", "pytorch-store", "burnpack", "recorder"]
        .map(|name| row(&rows_on_flex, name)["format"].clone())
        .to_vec();
    assert_eq!(formats, ["safetensors", "pth", "burnpack", "named-mpk"]);
    if has_vulkan() {
        rows(stores, SMALL, "devices = ['vulkan']");
    }
}

#[test]
fn past_the_page_cache_the_same_bytes_are_read() {
    let experiments =
        "['parallel-read', 'parallel-read:direct', 'parallel-read:uring', 'plain-read:direct']";
    let place = Place::new();
    // Beside the sources: a temporary folder may lie in memory, where there is no direct I/O.
    let checkpoints = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let text = format!(
        "[matrix]\nexperiments = {experiments}\nsizes = ['{SIZE}']\ndevices = ['flex']\ncache = ['cold']\nrepeats = 1\n"
    );
    place.write("m.toml", &text);
    let folder = checkpoints.path().display().to_string();
    let (said, code) = place.run_manifest(&["--checkpoints", &folder]);
    assert_eq!(code, 0, "{said}");
    for row in place.rows() {
        // A kernel may refuse io_uring, and a file system direct I/O; they say so.
        let reason = &row["reason"];
        let is_refused = row["status"] == "skipped"
            && (reason.contains("io_uring") || reason.contains("direct I/O"));
        assert!(row["status"] == "ok" || is_refused, "{row:?}");
    }
}
