//! The fuzz targets' seeds, and some thousand changes of each: every parser ends, with a value or an error.

use std::path::Path;
use std::time::Instant;

use harness::parsers::ALL;

/// How many changes of each seed are parsed: `FUZZED=20000` for more.
const CHANGES: u64 = 300;

/// A change that comes far into a parser: bits, bytes, numbers, and pieces that are cut out, doubled or moved.
fn changed(seed: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    const WORDS: [&[u8]; 12] = [
        b"-1",
        b"1e999",
        b"99999999999999999999",
        b"NaN",
        b"null",
        b"\"\"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"\0",
        b"\x1b[2J",
        b"\n",
    ];
    let mut bytes = seed.to_vec();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..64)).min(bytes.len());
        match random.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => drop(bytes.splice(at..end, WORDS[random.usize(..WORDS.len())].iter().copied())),
            4 => bytes.truncate(at),
            _ => {
                let piece: Vec<u8> = bytes.drain(at..end).collect();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

#[test]
fn every_parser_ends_soon_with_a_value_or_an_error_whatever_the_bytes_are() {
    let changes = std::env::var("FUZZED").map_or(CHANGES, |count| count.parse().unwrap());
    for parser in ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/seeds")
            .join(parser.name);
        let seeds = std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("{folder:?}"));
        let seeds: Vec<_> = seeds.map(|seed| seed.unwrap().path()).collect();
        assert!(!seeds.is_empty(), "{}", parser.name);
        let mut slowest = 0.0f64;
        for seed in seeds {
            let bytes = std::fs::read(&seed).unwrap();
            (parser.parse)(&bytes);
            for number in 0..changes {
                let mut random = fastrand::Rng::with_seed(number);
                let input = changed(&bytes, &mut random);
                let start = Instant::now();
                let parse = || (parser.parse)(&input);
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(parse));
                slowest = slowest.max(start.elapsed().as_secs_f64());
                assert!(
                    ended.is_ok(),
                    "{}: change {number} of {}",
                    parser.name,
                    seed.display()
                );
            }
        }
        assert!(slowest < 5.0, "{}: {slowest} s", parser.name);
    }
}
