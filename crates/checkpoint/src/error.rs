//! What can be wrong with a checkpoint, said to a person.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::file::Special;
use crate::foreign::Foreign;
use crate::format::Other;

/// Why a checkpoint could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {answer}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system answered. It stands in the message, and so is no source: a chain of errors would tell it twice.
        answer: std::io::Error,
    },
    /// The file system knows no direct I/O.
    #[error("{}: lies on a file system that knows no direct I/O (memory, a network?): read it buffered", path.display())]
    NoDirectIo {
        /// The file.
        path: PathBuf,
    },
    /// The path leads to no regular file.
    #[error("{}: is no regular file: {special}", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What it leads to.
        special: Special,
    },
    /// The file or folder is something else than a checkpoint that is read here.
    #[error("{}: {kind}", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// What it is.
        kind: Foreign,
    },
    /// A file of PyTorch's has no state dict where one is looked for.
    #[error("{}: {}{holds}", path.display(), absent(asked.as_deref()))]
    NoStateDict {
        /// The file.
        path: PathBuf,
        /// The key that was asked for.
        asked: Option<String>,
        /// What the file holds instead.
        holds: Holds,
    },
    /// None of a checkpoint's entries is a tensor that can be read.
    #[error("{}: holds no weights: {}", path.display(), unreadable(*entries, first))]
    NoWeights {
        /// The file or folder.
        path: PathBuf,
        /// How many entries there are.
        entries: usize,
        /// One of them, a tensor where there is one.
        first: Box<Other>,
    },
    /// A part of a tensor was asked for that it does not have.
    #[error("{}: tensor {} has {there} {unit}, and {}..{} were asked for", path.display(), quoted(tensor), asked.start, asked.end)]
    Outside {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is counted: bytes or rows.
        unit: &'static str,
        /// How many the tensor has.
        there: u64,
        /// Which were asked for.
        asked: Range<u64>,
    },
    /// The file is not the checkpoint it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do where that is known.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |answer| Error::Io {
            path: path.to_owned(),
            action,
            answer,
        }
    }

    pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> Error {
        Error::Invalid {
            path: path.to_owned(),
            reason: cut(&escaped(&reason.into()), MOST_REASON_BYTES),
        }
    }
}

/// Whoever reads a message reads no more of it.
const MOST_REASON_BYTES: usize = 4096;
/// The same of one name in it.
const MOST_QUOTED_BYTES: usize = 1024;

/// A name as messages show it.
pub fn quoted(name: &str) -> String {
    format!("`{}`", cut(&escaped(name), MOST_QUOTED_BYTES))
}

/// The first so many bytes of a text, and that it was cut where it was.
pub fn cut(text: &str, most_bytes: usize) -> String {
    match text.len() <= most_bytes {
        true => text.to_owned(),
        false => {
            let end = text.floor_char_boundary(most_bytes);
            format!("{} … ({} bytes were cut)", &text[..end], text.len() - end)
        }
    }
}

/// Names in files may have newlines and a terminal's codes in them: shown as they are, they forge what is said, or hide it.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match is_shown(character) {
            true => escaped.push(character),
            false => escaped.extend(character.escape_default()),
        }
    }
    escaped
}

/// Whether a character is shown as it is, and neither acts on a terminal, nor ends a line, nor turns the direction of writing.
pub fn is_shown(character: char) -> bool {
    let turns = matches!(
        character,
        '\u{61c}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    !character.is_control() && !turns
}

/// What a file of PyTorch's holds in which no state dict is found.
#[derive(Debug, Clone, PartialEq)]
pub enum Holds {
    /// Dictionaries with tensors, under other keys than the usual ones. [`Checkpoint::open_at`](crate::Checkpoint::open_at)
    /// opens one of them.
    StateDicts {
        /// The largest of them, the largest first.
        found: Vec<StateDictAt>,
        /// How many more there are.
        more: usize,
    },
    /// A whole module.
    Module {
        /// The path of keys to it; empty where it is all that the file holds.
        key: String,
        /// Its class.
        class: String,
    },
    /// A tensor without a name.
    Tensor,
    /// Tensors in an object, a list or a tuple, without names of a state dict.
    Unnamed {
        /// What holds them: `an object of the class x.Y`.
        container: String,
    },
    /// No tensor at all.
    Nothing,
}

/// A dictionary with tensors in a file of PyTorch's.
#[derive(Debug, Clone, PartialEq)]
pub struct StateDictAt {
    /// The path of keys to it, with dots between them: `ema.state_dict`.
    pub key: String,
    /// How many tensors it has of its own.
    pub tensors: usize,
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holds::StateDicts { found, more } => {
                let found: Vec<String> = found
                    .iter()
                    .map(|found| match found.tensors {
                        1 => format!("{} (1 tensor)", quoted(&found.key)),
                        tensors => format!("{} ({tensors} tensors)", quoted(&found.key)),
                    })
                    .collect();
                write!(f, "tensors are under the key {}", found.join(", "))?;
                if *more > 0 {
                    write!(f, " and {more} more")?;
                }
                f.write_str(": choose one with --key")
            }
            Holds::Module { key, class } => {
                match &**key {
                    "" => write!(f, "it is a whole pickled module, of the class {class}")?,
                    key => write!(f, "{} is a whole pickled module, of the class {class}", quoted(key))?,
                }
                f.write_str(", which nothing but its Python code can make: save its weights, with torch.save(model.state_dict(), path)")
            }
            Holds::Tensor => f.write_str("it holds one tensor, which has no name: save {\"name\": tensor}"),
            Holds::Unnamed { container } => write!(
                f,
                "it holds {container}, whose tensors have no names of a state dict: save the weights by their names, with \
                 torch.save(model.state_dict(), path)"
            ),
            Holds::Nothing => f.write_str("it holds no tensors at all: save the weights, with torch.save(model.state_dict(), path)"),
        }
    }
}

fn absent(asked: Option<&str>) -> String {
    match asked {
        Some(key) => format!("holds no state dict at `{key}`: "),
        None => "holds no state dict where one is looked for: ".to_owned(),
    }
}

fn unreadable(entries: usize, first: &Other) -> String {
    let Other { name, reason, .. } = first;
    match entries - 1 {
        0 => format!("{} {reason}", quoted(name)),
        more => format!(
            "{} {reason} (and none of the other {more} can be read)",
            quoted(name)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöü", 3), "ä … (4 bytes were cut)");
    }
}
