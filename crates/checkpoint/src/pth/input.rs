//! A pickle as a stream of bytes, of which nothing is kept but what is asked for.

use std::io::{self, BufRead, ErrorKind, Read};

/// A line of more bytes is the name of nothing.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// Where a pickle comes from.
pub(super) struct Input<R> {
    reader: R,
    position: u64,
}

impl<R: BufRead> Input<R> {
    pub fn new(reader: R) -> Input<R> {
        Input {
            reader,
            position: 0,
        }
    }

    /// How many bytes were read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// So many bytes that nobody asks for.
    pub fn skip(&mut self, length: u64) -> Result<(), String> {
        let mut bytes = self.reader.by_ref().take(length);
        let skipped = io::copy(&mut bytes, &mut io::sink()).map_err(cannot_read)?;
        self.position += skipped;
        match skipped == length {
            true => Ok(()),
            false => Err(cannot_read(ErrorKind::UnexpectedEof.into())),
        }
    }

    /// A number of `N` bytes.
    pub fn unsigned<const N: usize>(&mut self) -> Result<u64, String> {
        let bytes: [u8; N] = self.take()?;
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&bytes);
        Ok(u64::from_le_bytes(wide))
    }

    /// What stands before the next end of a line.
    pub fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        let mut most = self.reader.by_ref().take(MAX_LINE_BYTES);
        let read = most.read_until(b'\n', &mut line).map_err(cannot_read)?;
        self.position += read as u64;
        match line.pop() {
            Some(b'\n') => Ok(String::from_utf8_lossy(&line).into_owned()),
            _ => Err("a line without an end".to_owned()),
        }
    }

    /// The next bytes, as many as fit into `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.reader.read_exact(bytes).map_err(cannot_read)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

fn cannot_read(error: io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "it ends in the middle of an instruction".to_owned(),
        _ => error.to_string(),
    }
}
