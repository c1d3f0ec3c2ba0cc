//! Headers and indices with more entries, longer names and more dimensions than any checkpoint has: refused before they have taken
//! much. In a test binary of its own, with one test, for its allocator counts.

mod heap;

use std::path::{Path, PathBuf};

use checkpoint::Checkpoint;
use heap::peak_of;

fn refused(path: &Path) -> String {
    let opened = Checkpoint::open_any(path, None);
    opened.map(drop).unwrap_err().to_string()
}

fn safetensors(folder: &Path, header: &str) -> PathBuf {
    let path = folder.join("model.safetensors");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    std::fs::write(&path, file).unwrap();
    path
}

#[test]
fn a_header_or_an_index_of_entries_without_end_is_refused_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let many = |entry: &dyn Fn(usize) -> String, count: usize| {
        (0..count).map(entry).collect::<Vec<String>>().join(",")
    };
    let tensors = many(&|at| format!(r#""{at}":{empty}"#), 1_300_000);
    let words = many(&|at| format!(r#""{at}":"""#), 6_000_000);
    let long_name = "n".repeat(5_000_000);
    let ones = many(&|_| "1".to_owned(), 20_000_000);
    let headers = [
        (format!("{{{tensors}}}"), "more than 300000 entries"),
        (
            format!(r#"{{"__metadata__":{{{words}}}}}"#),
            "more than 10000 words",
        ),
        (
            format!(r#"{{"{long_name}":{empty}}}"#),
            "whose name has 5000000 bytes",
        ),
        (
            format!(r#"{{"{long_name}":{empty},"{long_name}":{empty}}}"#),
            "bytes were cut",
        ),
        (
            format!(r#"{{"a":{{"dtype":"F32","shape":[{ones}],"data_offsets":[0,0]}}}}"#),
            "more than 64 dimensions",
        ),
    ];
    for (header, expected) in headers {
        assert!(header.len() < 100_000_000, "{expected}: {}", header.len());
        let path = safetensors(folder.path(), &header);
        let header_bytes = header.len();
        drop(header);
        let (error, taken) = peak_of(|| refused(&path));
        assert!(
            error.contains(expected),
            "{expected}: {}",
            &error[..300.min(error.len())]
        );
        assert!(error.len() < 6000, "{expected}: {} bytes", error.len());
        assert!(taken < 500 << 20, "{expected}: {taken} of {header_bytes}");
    }
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let index = many(&|at| format!(r#""{at}":"""#), 5_000_000);
    let path = folder.path().join("model.safetensors.index.json");
    std::fs::write(&path, format!(r#"{{"weight_map":{{{index}}}}}"#)).unwrap();
    let (error, taken) = peak_of(|| refused(folder.path()));
    assert!(error.contains("more than 300000 entries"), "{error}");
    assert!(taken < 500 << 20, "{taken}");
}
