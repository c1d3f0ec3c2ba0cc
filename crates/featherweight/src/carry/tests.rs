use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::tensor::{Bytes, DType};
use checkpoint::Dtype;

use super::*;
use crate::Unobserved;
use crate::place::{Finished, heap};

/// Memory that is written in pieces, as a device's is, or in place.
struct Simulated {
    memory: Arc<Mutex<Vec<u8>>>,
    own: Option<Vec<u8>>,
    fails_at: Option<usize>,
    written: AtomicUsize,
}

impl Simulated {
    fn new(bytes: u64, is_in_place: bool) -> Simulated {
        let memory = vec![0xaa; bytes as usize];
        Simulated {
            own: is_in_place.then(|| memory.clone()),
            memory: Arc::new(Mutex::new(memory)),
            fails_at: None,
            written: AtomicUsize::new(0),
        }
    }

    fn holds(&self) -> Vec<u8> {
        match &self.own {
            Some(own) => own.clone(),
            None => self.memory.lock().unwrap().clone(),
        }
    }
}

impl Fill for Simulated {
    fn memory(&mut self) -> Option<&mut [u8]> {
        self.own.as_deref_mut()
    }

    fn staging(&self, bytes: usize, _all: Staging) -> Bytes {
        heap(bytes)
    }

    fn write(&mut self, offset_bytes: u64, piece: Bytes) -> Result<(), Error> {
        let count = self.written.fetch_add(1, Ordering::Relaxed);
        if self.fails_at == Some(count) {
            return Err(Error::Unsupported("it is a test".to_owned()));
        }
        let mut memory = self.memory.lock().unwrap();
        let start = offset_bytes as usize;
        assert!(start.is_multiple_of(4), "pieces begin at words");
        assert!(piece.len().is_multiple_of(4) || start + piece.len() == memory.len());
        memory[start..start + piece.len()].copy_from_slice(&piece);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Finished, Error> {
        unreachable!("nobody asks")
    }
}

const ALL: [Carrier; 5] = [
    Carrier::Stream,
    Carrier::Threads {
        threads: 3,
        access: Access::Buffered,
    },
    Carrier::Threads {
        threads: 2,
        access: Access::Direct,
    },
    Carrier::Uring { depth: 3 },
    Carrier::Uring { depth: 1 },
];

/// A file of floats, and tensors of it of several shapes, some of them transposed, some beside each other in one matrix.
fn file_of_tensors() -> (tempfile::NamedTempFile, Vec<Source>) {
    // Beside the sources: a temporary folder may lie in memory, where there is no direct I/O.
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let count = 1 << 17;
    let floats = (0..count).flat_map(|at| ((at % 1000) as f32).to_le_bytes());
    std::fs::write(file.path(), floats.collect::<Vec<_>>()).unwrap();
    let tensor = |offset: u64, shape: &[usize], strides: &[usize]| TensorRange {
        name: "a".to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        strides: strides.to_vec(),
        file: file.path().into(),
        offset,
    };
    let tensors = [
        tensor(0, &[1], &[1]),
        tensor(4, &[301, 97], &[97, 1]),
        tensor(128, &[97, 301], &[1, 97]),
        tensor(4096, &[count - 1024], &[1]),
        tensor(12, &[], &[]),
        // Three in the rows of one, the last of them transposed; and one alone, of which rows are longer than any buffer.
        tensor(8192, &[200, 64], &[192, 1]),
        tensor(8192 + 256, &[200, 64], &[192, 1]),
        tensor(8192 + 512, &[64, 200], &[1, 192]),
        tensor(16_384, &[50, 3], &[2400, 1]),
        tensor(16_388, &[20_000, 5], &[1, 20_001]),
        tensor(20_004, &[333, 129], &[1, 333]),
    ];
    let mut sources: Vec<Source> = tensors.iter().cloned().map(Source::as_stored).collect();
    for dtype in [DType::F16, DType::F64] {
        sources.extend(tensors.iter().map(|tensor| Source {
            cast: Cast::new(tensor.dtype, dtype).unwrap(),
            tensor: tensor.clone(),
        }));
    }
    (file, sources)
}

fn has_direct_io(sources: &[Source]) -> bool {
    checkpoint::open(&sources[0].tensor.file, Access::Direct).is_ok()
}

#[test]
fn every_carrier_fills_every_tensor_in_place_and_in_pieces_with_the_same_bytes() {
    let (_file, sources) = file_of_tensors();
    let expected: Vec<Vec<u8>> = sources
        .iter()
        .map(|source| {
            let mut bytes = vec![0; source.bytes() as usize];
            let mut reader = PieceReader::new(Access::Buffered);
            reader.read(source, 0..source.bytes(), &mut bytes).unwrap();
            bytes
        })
        .collect();
    assert!(expected.iter().any(|bytes| bytes.len() > 1 << 18));
    let staging = Staging { bytes: 64 << 10 };
    for carrier in ALL.iter().filter(|_| has_direct_io(&sources)) {
        for is_in_place in [true, false] {
            let mut fills: Vec<Simulated> = sources
                .iter()
                .map(|source| Simulated::new(source.bytes(), is_in_place))
                .collect();
            let mut dynamic: Vec<&mut dyn Fill> =
                fills.iter_mut().map(|fill| fill as &mut dyn Fill).collect();
            let carried = carry(&sources, &mut dynamic, *carrier, staging, &Unobserved);
            if let Err(Error::NoUring { reason }) = carried {
                eprintln!("skipped: {reason}");
                continue;
            }
            carried.unwrap();
            for (fill, expected) in fills.iter().zip(&expected) {
                assert!(fill.holds() == *expected, "{carrier:?} {is_in_place}");
            }
        }
    }
}

#[test]
fn what_grows_in_its_own_room_is_what_was_there_cast() {
    let (_file, sources) = file_of_tensors();
    let plain = |source: &Source| {
        let source = Source::as_stored(source.tensor.clone());
        let mut bytes = vec![0; source.bytes() as usize];
        let mut reader = PieceReader::new(Access::Buffered);
        reader.read(&source, 0..source.bytes(), &mut bytes).unwrap();
        bytes
    };
    let wide = |source: &&Source| source.cast.dtype() == DType::F64;
    assert!(sources.iter().filter(wide).count() > 3);
    for source in sources.iter().filter(wide) {
        let mut found = vec![0xaa; source.bytes() as usize];
        let mut reader = PieceReader::new(Access::Buffered);
        reader.read(source, 0..source.bytes(), &mut found).unwrap();
        let singles = plain(source);
        let (singles, _) = singles.as_chunks::<4>();
        let (doubles, _) = found.as_chunks::<8>();
        assert_eq!(singles.len(), doubles.len());
        for (single, double) in singles.iter().zip(doubles) {
            let single = f64::from(f32::from_le_bytes(*single));
            assert_eq!(f64::from_le_bytes(*double), single);
        }
    }
}

#[test]
fn a_file_that_was_cut_and_a_write_that_fails_end_every_carrier_with_an_error() {
    let (file, sources) = file_of_tensors();
    let staging = Staging { bytes: 64 << 10 };
    for (is_cut, is_in_place) in [(false, false), (true, false), (true, true)] {
        if is_cut {
            file.as_file().set_len(100 << 10).unwrap();
        }
        for carrier in ALL.iter().filter(|_| has_direct_io(&sources)) {
            let mut fills: Vec<Simulated> = sources
                .iter()
                .map(|source| Simulated::new(source.bytes(), is_in_place))
                .collect();
            if !is_cut {
                fills[3].fails_at = Some(2);
            }
            let mut dynamic: Vec<&mut dyn Fill> =
                fills.iter_mut().map(|fill| fill as &mut dyn Fill).collect();
            let error = carry(&sources, &mut dynamic, *carrier, staging, &Unobserved).unwrap_err();
            let said = error.to_string();
            let expected = match is_cut {
                true => file.path().display().to_string(),
                false => "it is a test".to_owned(),
            };
            assert!(
                said.contains(&expected) || matches!(error, Error::NoUring { .. }),
                "{carrier:?}: {said}"
            );
        }
    }
}

#[test]
fn pieces_of_any_source_cover_it_once_and_begin_at_words() {
    let (_file, sources) = file_of_tensors();
    for source in &sources {
        for most in [4096, 64 << 10, 2 << 20] {
            let mut at = 0;
            for piece in source.pieces(most) {
                assert_eq!(piece.start, at);
                assert!(piece.start.is_multiple_of(4));
                at = piece.end;
            }
            assert_eq!(at, source.bytes());
        }
    }
}
