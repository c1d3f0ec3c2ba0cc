//! What other programs write, read into buffers that do not grow with it.

use std::collections::VecDeque;
use std::io::{BufRead, Read};

/// What is kept of what a program says last.
pub const TAIL_BYTES: usize = 64 << 10;

/// The longest line that is listened to.
pub const LINE_BYTES: usize = 1 << 20;

/// Reads to the end, and keeps the last bytes: as text, which says where something is missing before it.
pub fn tail(mut from: impl Read, most: usize) -> String {
    let mut kept = VecDeque::with_capacity(most.min(TAIL_BYTES));
    let mut left_out = 0u64;
    let mut buffer = [0; 8192];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                kept.extend(&buffer[..read]);
                let over = kept.len().saturating_sub(most);
                kept.drain(..over);
                left_out += over as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(kept.make_contiguous()).into_owned();
    match left_out {
        0 => text,
        bytes => format!("({bytes} bytes before this are left out)\n{text}"),
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

/// The first so many bytes of a text, and that it was cut where it was.
pub fn cut(text: &str, most: usize) -> String {
    match text.len() <= most {
        true => text.to_owned(),
        false => {
            let end = text.floor_char_boundary(most);
            format!("{} … ({} bytes were cut)", &text[..end], text.len() - end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_endless_text_the_last_bytes_are_kept_and_the_rest_is_told() {
        assert_eq!(tail(&b"short"[..], 64), "short");
        let long = std::io::repeat(b'x').take(100 << 20).chain(&b"the end"[..]);
        let kept = tail(long, 1024);
        assert!(kept.ends_with("the end") && kept.len() < 1100, "{kept}");
        assert!(kept.starts_with("(104856583 bytes before"), "{kept}");
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

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöü", 3), "ä … (4 bytes were cut)");
    }
}
