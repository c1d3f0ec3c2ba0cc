//! The pickle alone, in a zip whose checksums are right: a change in the file as a whole does not come so far.
#![no_main]

use std::io::{Cursor, Write};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("model/data.pkl", data), ("model/data/0", &[0; 64])] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    fuzz::open("model.pth", &zip.finish().unwrap().into_inner());
});
