//! Everything that does not match between a module and a checkpoint, told at once.

use std::fmt;
use std::path::PathBuf;

use checkpoint::quoted;

/// All that does not match.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// The checkpoint.
    pub file: PathBuf,
    /// What is wrong, in the order of the module; then what is in the file alone.
    pub problems: Vec<Problem>,
}

/// One thing that does not match.
#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    /// The file has nothing for a parameter.
    Missing {
        /// The parameter's path.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Names of the file that are nearly the same, as they are there.
        nearest: Vec<String>,
    },
    /// A tensor has another shape than its parameter.
    Shape {
        /// The parameter's path.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The tensor's name in the file.
        tensor: String,
        /// The tensor's shape.
        found: Vec<usize>,
    },
    /// A tensor is of elements that its parameter cannot take.
    Dtype {
        /// The parameter's path.
        path: String,
        /// The tensor's name in the file.
        tensor: String,
        /// Why not, as the end of a sentence that begins with the tensor.
        reason: String,
    },
    /// A parameter is larger than the device can bind.
    TooLarge {
        /// The parameter's path.
        path: String,
        /// Its bytes.
        bytes: u64,
        /// The most that the device binds.
        limit: u64,
    },
    /// Two tensors of the file are for one parameter.
    Twice {
        /// The parameter's path.
        path: String,
        /// Their names in the file.
        tensors: Vec<String>,
    },
    /// It cannot be told which way round a matrix is meant.
    Orientation {
        /// The parameter's path.
        path: String,
        /// Its shape: a square.
        shape: Vec<usize>,
    },
    /// The file has a tensor for which the module has no parameter.
    Unused {
        /// Its name in the file.
        tensor: String,
        /// Its shape, where it is one that can be read.
        shape: Vec<usize>,
        /// Paths of the module that are nearly the same.
        nearest: Vec<String>,
    },
    /// All that is missing is there with this before its names.
    Prefixed {
        /// What stands before them.
        prefix: String,
        /// How many there are.
        count: usize,
    },
    /// The file says that it is of another framework, whose layouts are not known here.
    Foreign {
        /// What it says.
        framework: String,
    },
    /// Clones of one batch norm have one running state in Burn, and the file has several.
    SharedState {
        /// The path of one of them.
        path: String,
        /// That of another.
        other: String,
    },
    /// Nothing of the file is for the module, or the module has no parameters.
    Nothing,
}

/// More of a kind are counted and not shown.
const MOST_SHOWN: usize = 20;

impl Mismatch {
    fn of<'a>(
        &'a self,
        kind: impl Fn(&Problem) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Problem> + 'a {
        self.problems.iter().filter(move |problem| kind(problem))
    }
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: it does not fit the module:", self.file.display())?;
        type IsOf = fn(&Problem) -> bool;
        let kinds: [(IsOf, &str); 11] = [
            (
                |problem| matches!(problem, Problem::Foreign { .. }),
                "convert it, or say which convention it follows with .with_from_adapter(…)",
            ),
            (
                |problem| matches!(problem, Problem::Nothing),
                "check that it is this module's checkpoint",
            ),
            (
                |problem| matches!(problem, Problem::Prefixed { .. }),
                "take it away with .with_key_remapping(…, \"\")",
            ),
            (
                |problem| matches!(problem, Problem::SharedState { .. }),
                "make each of them by its configuration's init, and no clone of another",
            ),
            (
                |problem| matches!(problem, Problem::Missing { .. }),
                "rename with .with_key_remapping(…), or keep what the module has there with .allow_partial(true)",
            ),
            (
                |problem| matches!(problem, Problem::Shape { .. }),
                "build the module with the sizes of the checkpoint",
            ),
            (
                |problem| matches!(problem, Problem::Dtype { .. }),
                "choose a dtype that the device computes in with .cast(…)",
            ),
            (
                |problem| matches!(problem, Problem::TooLarge { .. }),
                "cast to a smaller dtype with .cast(…), or split the parameter",
            ),
            (
                |problem| matches!(problem, Problem::Twice { .. }),
                "choose one with .with_regex(…) or another remapping",
            ),
            (
                |problem| matches!(problem, Problem::Orientation { .. }),
                "say whose convention the file follows with .with_from_adapter(PyTorchToBurnAdapter) or \
                 .with_from_adapter(IdentityAdapter)",
            ),
            (
                |problem| matches!(problem, Problem::Unused { .. }),
                "rename with .with_key_remapping(…), or leave them with .allow_unused(true)",
            ),
        ];
        for (is_of, advice) in kinds {
            let all = self.of(is_of).count();
            for problem in self.of(is_of).take(MOST_SHOWN) {
                write!(f, "\n  {problem}")?;
            }
            if all > MOST_SHOWN {
                write!(f, "\n  and {} more of this kind", all - MOST_SHOWN)?;
            }
            if all > 0 {
                write!(f, "\n    → {advice}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing {
                path,
                shape,
                nearest,
            } => {
                write!(f, "no tensor for {} {shape:?}", quoted(path))?;
                near(f, nearest)
            }
            Problem::Shape {
                path,
                shape,
                tensor,
                found,
            } => write!(
                f,
                "tensor {} has shape {found:?}, and {} has {shape:?}",
                quoted(tensor),
                quoted(path)
            ),
            Problem::Dtype {
                path,
                tensor,
                reason,
            } => write!(f, "tensor {} for {} {reason}", quoted(tensor), quoted(path)),
            Problem::TooLarge { path, bytes, limit } => write!(
                f,
                "{} has {bytes} bytes, and the device binds {limit} at most",
                quoted(path)
            ),
            Problem::Twice { path, tensors } => {
                let tensors: Vec<String> = tensors.iter().map(|name| quoted(name)).collect();
                write!(f, "{} are all for {}", tensors.join(" and "), quoted(path))
            }
            Problem::Orientation { path, shape } => write!(
                f,
                "{} {shape:?} could be meant either way round: the file does not say whether it is PyTorch's or Burn's",
                quoted(path)
            ),
            Problem::Unused {
                tensor,
                shape,
                nearest,
            } => {
                write!(f, "no parameter for tensor {} {shape:?}", quoted(tensor))?;
                near(f, nearest)
            }
            Problem::Prefixed { prefix, count } => write!(
                f,
                "{count} tensors are there under names that begin with {}",
                quoted(prefix)
            ),
            Problem::Foreign { framework } => write!(
                f,
                "it says that it is of {}, whose layouts are not known here",
                quoted(framework)
            ),
            Problem::SharedState { path, other } => write!(
                f,
                "{} and {} share one running state, for they are clones of one batch norm, and the file has two",
                quoted(path),
                quoted(other)
            ),
            Problem::Nothing => f.write_str("they have no name in common"),
        }
    }
}

fn near(f: &mut fmt::Formatter<'_>, nearest: &[String]) -> fmt::Result {
    if nearest.is_empty() {
        return Ok(());
    }
    let nearest: Vec<String> = nearest.iter().map(|name| quoted(name)).collect();
    write!(f, " (near: {})", nearest.join(", "))
}
