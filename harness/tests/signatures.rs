//! Each technique shows its own memory signature, on unified and on discrete memory: the table of the study.
//! The peaks are those of the counting allocator in the worker, and of CubeCL's own count on the device.

mod common;

use common::{Place, Row, SEVEN, has_vulkan, number};

/// 167 MB with tables of 33 MB: large against every constant, and loaded in a second.
const SIZE: &str = "v16384-c256-e512-l8-h8";
const MIB: u64 = 1 << 20;

/// A peak as multiples of the model and of its largest tensor, and how far off it may be.
struct Expected {
    models: f64,
    tensors: f64,
}

const NONE: Expected = Expected {
    models: 0.0,
    tensors: 0.0,
};
const M: Expected = Expected {
    models: 1.0,
    tensors: 0.0,
};
const M_AND_L: Expected = Expected {
    models: 1.0,
    tensors: 1.0,
};
const TWO_M: Expected = Expected {
    models: 2.0,
    tensors: 0.0,
};
/// The tensor, and the two copies that CubeCL makes of an upload.
const UPLOAD: Expected = Expected {
    models: 0.0,
    tensors: 3.0,
};

impl Expected {
    fn check(&self, row: &Row, column: &str) {
        let (model, tensor) = (
            number(row, "model_bytes") as f64,
            number(row, "largest_tensor_bytes") as f64,
        );
        let expected = self.models * model + self.tensors * tensor;
        let measured = number(row, column) as f64;
        let (least, most) = match self.models {
            // A few tensors are an upper bound; the rest is what it says.
            0.0 => (0.0, expected),
            _ => (0.98 * expected, 1.03 * expected),
        };
        let slack = (4 * MIB) as f64;
        assert!(
            (least..=most + slack).contains(&measured),
            "{} {column}: {measured} bytes is {:.2} of the model, and {:.2} was expected",
            row["run_id"],
            measured / model,
            expected / model
        );
    }
}

fn rows(device: &str) -> Vec<Row> {
    let place = Place::new();
    place.write(
        "m.toml",
        &format!("[matrix]\nexperiments = {SEVEN}\nsizes = ['{SIZE}']\ndevices = ['{device}']\nrepeats = 1\n"),
    );
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    assert!(
        rows.iter()
            .all(|row| row["verified"] == "true" && row["contract_held"] == "true")
    );
    assert_eq!(rows.len(), 7);
    rows
}

#[test]
fn on_unified_memory_every_technique_has_its_signature_on_the_host() {
    for row in rows("flex") {
        let host = match &*row["experiment"] {
            "init-only" | "mmap-assign" => M,
            "per-tensor" => M_AND_L,
            _ => TWO_M,
        };
        host.check(&row, "host_heap_peak_bytes");
        assert_eq!(
            row["device_in_use_peak_bytes"], "",
            "there is no device memory to speak of"
        );
        if row["experiment"] == "mmap-assign" {
            M.check(&row, "host_file_peak_bytes");
        }
        // The kernel's mark and the allocator's agree, but for the pages of the mapped file.
        let resident = number(&row, "host_rss_peak_bytes");
        let heap = number(&row, "host_heap_peak_bytes") + number(&row, "host_file_peak_bytes");
        let apart = resident.abs_diff(heap) as f64 / heap as f64;
        // Freed pages of the doubled empty tensors linger with the system's allocator.
        let allowed = if matches!(&*row["experiment"], "meta-device" | "per-tensor") {
            0.3
        } else {
            0.05
        };
        assert!(
            apart <= allowed,
            "{}: resident {resident}, heap and file pages {heap}",
            row["run_id"]
        );
    }
}

#[test]
fn on_discrete_memory_every_technique_has_its_signature_on_device_and_host() {
    if !has_vulkan() {
        return;
    }
    for row in rows("vulkan") {
        let (device, host) = match &*row["experiment"] {
            "init-only" => (M, NONE),
            "naive" | "meta-device" => (TWO_M, UPLOAD),
            "host-then-device" => (M, TWO_M),
            "sequential" => (M_AND_L, M),
            "mmap-assign" => (M, UPLOAD),
            _ => (M_AND_L, UPLOAD),
        };
        device.check(&row, "device_in_use_peak_bytes");
        host.check(&row, "host_heap_peak_bytes");
    }
}

#[test]
fn a_tensor_over_the_devices_limit_is_an_error_and_never_ok() {
    if !has_vulkan() {
        return;
    }
    // A position table of 160 MiB is no vocabulary table, so it is not sharded, and software Vulkan binds 128.
    let place = Place::new();
    place.write(
        "m.toml",
        "[matrix]\nexperiments = ['naive', 'init-only', 'meta-device', 'mmap-assign']\n\
         sizes = ['v64-c81920-e512-l1-h8']\ndevices = ['vulkan']\nrepeats = 1\n",
    );
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 3, "{said}");
    for row in place.rows() {
        assert!(
            row["status"] == "failed" || row["status"] == "oom",
            "{row:?}"
        );
        assert_eq!(row["verified"], "false");
    }
}
