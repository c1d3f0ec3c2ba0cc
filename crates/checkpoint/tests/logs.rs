//! What a training program logs into its checkpoint takes no memory to speak of, or is refused with advice. In a test binary of
//! its own, for its allocator counts.

mod heap;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use checkpoint::Checkpoint;
use heap::peak_of;

/// A `.pth` of no tensors, with this in its pickle.
fn pth(folder: &Path, log: &[u8], method: zip::CompressionMethod) -> PathBuf {
    let path = folder.join("model.pth");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    zip.start_file("model/data.pkl", options).unwrap();
    zip.write_all(b"\x80\x02").unwrap();
    // Thrown away: what is left is an empty state dict, which is one.
    zip.write_all(log).unwrap();
    zip.write_all(b"0}.").unwrap();
    zip.finish().unwrap();
    path
}

/// Memory taken to open it, and the error, if any.
fn open(path: &Path) -> (u64, Option<String>) {
    let (opened, taken) = peak_of(|| Checkpoint::open(path));
    (taken, opened.err().map(|error| error.to_string()))
}

/// The allocator counts for all threads.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const NUMBER: &[u8] = b"G\x3f\xf0\x00\x00\x00\x00\x00\x00";

/// As the pickler writes a list: a thousand at a time.
fn list(elements: usize, element: &[u8]) -> Vec<u8> {
    let mut text = b"]".to_vec();
    for start in (0..elements).step_by(1000) {
        text.push(b'(');
        let batch = 1000.min(elements - start);
        (0..batch).for_each(|_| text.extend(element));
        text.push(b'e');
    }
    text
}

#[test]
fn logs_take_no_memory_to_speak_of() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let long = |opcode: &[u8], bytes: usize| {
        let length = (bytes as u32).to_le_bytes();
        [opcode, &length, &vec![b'x'; bytes]].concat()
    };
    for (log, allowed) in [
        (list(1_200_000, NUMBER), 8 << 20),
        (list(1_200_000, b"J\x00\x00\x01\x00"), 8 << 20),
        // An array of NumPy's: its bytes, or in protocol 2 a text of them.
        (long(b"B", 40 << 20), 8 << 20),
        (long(b"X", 40 << 20), 8 << 20),
        // A pair of step and loss each.
        (
            list(300_000, &[b"K\x01", NUMBER, b"\x86"].concat()),
            64 << 20,
        ),
    ] {
        for method in [
            zip::CompressionMethod::Stored,
            zip::CompressionMethod::Deflated,
        ] {
            let path = pth(folder.path(), &log, method);
            let (taken, error) = open(&path);
            assert_eq!(error, None);
            assert!(
                taken <= allowed,
                "{taken} bytes of a log of {}, {method}",
                log.len()
            );
        }
    }
}

#[test]
fn what_is_too_much_is_refused_with_advice_and_within_the_bound() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    const BOUND: u64 = 384 << 20;
    let folder = tempfile::tempdir().unwrap();
    let dictionaries = list(3_000_000, b"}");
    for (log, expected) in [
        (dictionaries, "more objects than fit"),
        (vec![b'N'; 5 << 20], "wait in it"),
        (vec![b'('; 5 << 20], "nested more deeply"),
        (
            [
                b"B".to_vec(),
                (300u32 << 20).to_le_bytes().to_vec(),
                vec![0; 300 << 20],
            ]
            .concat(),
            "are read",
        ),
    ] {
        let path = pth(folder.path(), &log, zip::CompressionMethod::Deflated);
        drop(log);
        let (taken, error) = open(&path);
        let error = error.expect(expected);
        assert!(error.contains(expected), "{error}");
        assert!(taken <= BOUND, "{taken} bytes");
    }
}
