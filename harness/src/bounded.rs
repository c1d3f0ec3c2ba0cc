//! What other programs write, read into buffers that do not grow with it.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is kept of what a program says last.
pub const TAIL_BYTES: usize = 64 << 10;

/// The longest line that is listened to.
pub const LINE_BYTES: usize = 1 << 20;

/// What is still in a pipe when its program has ended is read within this time. Longer waits whoever waits for another process
/// that holds the pipe open.
const PATIENCE: Duration = Duration::from_secs(2);

/// The last bytes of what was read so far.
#[derive(Default)]
struct Tail {
    kept: VecDeque<u8>,
    left_out: u64,
}

impl Tail {
    fn push(&mut self, bytes: &[u8], most: usize) {
        self.kept.extend(bytes);
        let over = self.kept.len().saturating_sub(most);
        self.kept.drain(..over);
        self.left_out += over as u64;
    }

    /// As text, which says where something is missing before it.
    fn text(&mut self) -> String {
        let text = String::from_utf8_lossy(self.kept.make_contiguous()).into_owned();
        match self.left_out {
            0 => text,
            bytes => format!("({bytes} bytes before this are left out)\n{text}"),
        }
    }
}

/// Reads a pipe in a thread, so that who writes is never blocked, and keeps its last bytes.
pub struct Listener {
    tail: Arc<Mutex<Tail>>,
    thread: JoinHandle<()>,
}

impl Listener {
    /// Begins to read; at most so many bytes are kept.
    ///
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub fn of(pipe: Option<impl Read + Send + 'static>, most: usize) -> std::io::Result<Listener> {
        let tail = Arc::new(Mutex::new(Tail::default()));
        let shared = Arc::clone(&tail);
        let thread = std::thread::Builder::new().spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = [0; 8192];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => {
                        let mut tail = shared.lock().unwrap_or_else(PoisonError::into_inner);
                        tail.push(&buffer[..read], most);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        })?;
        Ok(Listener { tail, thread })
    }

    /// What was said last by a program that has ended.
    pub fn said(self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.text()
    }
}

/// The next line, without its end; `None` where there are no more. One over [`LINE_BYTES`] is an error.
pub fn line(from: &mut impl BufRead) -> Option<std::io::Result<String>> {
    let mut bytes = Vec::new();
    let read = from
        .by_ref()
        .take(LINE_BYTES as u64 + 1)
        .read_until(b'\n', &mut bytes);
    match read {
        Ok(0) => None,
        Ok(_) if bytes.len() > LINE_BYTES => {
            let reason = format!("a line of more than {LINE_BYTES} bytes");
            Some(Err(std::io::Error::other(reason)))
        }
        Ok(_) => {
            let text = String::from_utf8_lossy(&bytes);
            Some(Ok(text.trim_end_matches(['\n', '\r']).to_owned()))
        }
        Err(error) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_endless_text_the_last_bytes_are_kept_and_the_rest_is_told() {
        assert_eq!(
            Listener::of(Some(&b"short"[..]), 64).unwrap().said(),
            "short"
        );
        let mut tail = Tail::default();
        for _ in 0..100 {
            tail.push(&[b'x'; 1 << 20], 1024);
        }
        tail.push(b"the end", 1024);
        let kept = tail.text();
        assert!(kept.ends_with("the end") && kept.len() < 1100, "{kept}");
        assert!(kept.starts_with("(104856583 bytes before"), "{kept}");
    }

    #[test]
    fn what_was_said_is_there_though_somebody_holds_the_pipe_open() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let listener = Listener::of(Some(reader), 64).unwrap();
        std::io::Write::write_all(&mut writer, b"the last word").unwrap();
        assert_eq!(listener.said(), "the last word");
        drop(writer);
    }

    #[test]
    fn a_line_without_end_is_an_error_and_the_others_are_read() {
        let mut from = std::io::BufReader::new(&b"one\r\n\ntwo"[..]);
        let lines: Vec<String> = std::iter::from_fn(|| line(&mut from))
            .map(Result::unwrap)
            .collect();
        assert_eq!(lines, ["one", "", "two"]);
        let mut endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert!(line(&mut endless).unwrap().is_err());
    }
}
