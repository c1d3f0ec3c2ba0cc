//! Whole rows of a matrix as it lies in the file: read at once, and put from there to where they belong in memory.
//!
//! ```text
//!  file     ├─ panel ──────────────┤├─ panel ─ …        so many rows as fit a buffer, of all tensors that lie in them
//!  memory   rows of a tensor, as they are;  or columns of a transposed one
//! ```
//!
//! Each byte of the file is read once, in long runs and in order, also where several tensors lie beside each other in one matrix.
//! Panels have no memory in common, and so several threads may place them at once.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::transpose::{Store, transpose};
use super::window::Window;
use crate::TensorRange;

/// Rows of a file's matrix, with the memory that they are for.
pub struct Panel<'a> {
    file: Arc<Path>,
    span: Range<u64>,
    parts: Vec<Part<'a>>,
}

/// What of a panel is a tensor's.
struct Part<'a> {
    /// Its first byte in the panel.
    start: usize,
    stored: Stored,
    to: Window<'a>,
}

/// A matrix as it lies in the file: rows of so many elements, a pitch apart.
#[derive(Clone, Copy)]
struct Stored {
    rows: usize,
    columns: usize,
    pitch: usize,
    element: usize,
    is_transposed: bool,
}

impl Stored {
    /// `None` for what has no rows in the file.
    fn new(tensor: &TensorRange) -> Option<Stored> {
        let (&[rows, columns], &[row, column]) = (&tensor.shape[..], &tensor.strides[..]) else {
            return None;
        };
        let is_transposed = column != 1;
        let (rows, columns, pitch, step) = match is_transposed {
            true => (columns, rows, column, row),
            false => (rows, columns, row, column),
        };
        let stored = Stored {
            rows,
            columns,
            pitch,
            element: tensor.dtype.bytes() as usize,
            is_transposed,
        };
        (step == 1 && 0 < columns && columns <= pitch && 0 < rows).then_some(stored)
    }

    fn row_bytes(self) -> usize {
        self.columns * self.element
    }

    fn pitch_bytes(self) -> usize {
        self.pitch * self.element
    }

    /// How many rows a panel has: as many as `most` bytes hold, and of cache lines in memory, so that each is written once.
    fn at_once(self, most: usize) -> Option<usize> {
        let fitting = most / self.pitch_bytes();
        let line = 64 / self.element;
        match fitting / line * line {
            0 if self.is_transposed && fitting < self.rows => None,
            0 => (fitting > 0).then_some(fitting),
            lines => Some(lines),
        }
    }
}

/// Tensors that lie beside each other in the rows of one matrix of the file, in the order in which they lie there.
pub struct Beside<T> {
    stored: Stored,
    at_once: usize,
    members: Vec<(TensorRange, T)>,
}

/// Groups tensors, in the order of their offsets, which are read best by rows of the matrix that they lie in, at most `most`
/// bytes at once; the rest comes back.
pub fn beside<T>(
    tensors: impl IntoIterator<Item = (TensorRange, T)>,
    most: usize,
) -> (Vec<Beside<T>>, Vec<(TensorRange, T)>) {
    let (mut groups, mut rest) = (Vec::<Beside<T>>::new(), Vec::new());
    for (tensor, of) in tensors {
        // What cannot be gathered is refused where it is read.
        let is_fit = !tensor.is_contiguous() && tensor.check_part(0, 0).is_ok();
        let stored = Stored::new(&tensor).filter(|_| is_fit);
        let Some((stored, at_once)) = stored.and_then(|one| Some((one, one.at_once(most)?))) else {
            rest.push((tensor, of));
            continue;
        };
        match groups.last_mut() {
            Some(last) if last.has_room(&tensor, stored) => last.members.push((tensor, of)),
            _ => groups.push(Beside {
                stored,
                at_once,
                members: vec![(tensor, of)],
            }),
        }
    }
    // Where most of a row is nobody's, it is not worth reading.
    let (groups, sparse): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| {
        let wanted: usize = group.stored().map(Stored::row_bytes).sum();
        2 * wanted >= group.stored.pitch_bytes()
    });
    rest.extend(sparse.into_iter().flat_map(|group| group.members));
    (groups, rest)
}

impl<T> Beside<T> {
    fn stored(&self) -> impl Iterator<Item = Stored> {
        let members = self.members.iter();
        members.filter_map(|(tensor, _)| Stored::new(tensor))
    }

    /// Whether a tensor lies in the same rows, behind those that are known.
    fn has_room(&self, tensor: &TensorRange, stored: Stored) -> bool {
        let (first, _) = &self.members[0];
        let (last, _) = &self.members[self.members.len() - 1];
        let (mine, theirs) = (stored, self.stored);
        first.file == tensor.file
            && (mine.rows, mine.pitch_bytes()) == (theirs.rows, theirs.pitch_bytes())
            && mine.element == theirs.element
            && last.offset < tensor.offset
            && tensor.offset - first.offset + mine.row_bytes() as u64 <= mine.pitch_bytes() as u64
    }
}

impl<T> Beside<T> {
    /// What came with the first of them.
    pub fn first(&self) -> &T {
        &self.members[0].1
    }

    /// The panels, in the order of the file.
    ///
    /// # Panics
    ///
    /// If a tensor's memory is not of its size.
    pub fn panels<'a>(
        self,
        memory: fn(T) -> &'a mut [u8],
    ) -> impl Iterator<Item = Panel<'a>> + use<'a, T> {
        let Beside {
            stored: first,
            at_once,
            members,
        } = self;
        let base = members[0].0.offset;
        let file = Arc::clone(&members[0].0.file);
        let mut parts: Vec<Part<'a>> = members
            .into_iter()
            .filter_map(|(tensor, of)| {
                let stored = Stored::new(&tensor)?;
                let width = tensor.shape[1] * stored.element;
                Some(Part {
                    start: (tensor.offset - base) as usize,
                    stored,
                    to: Window::new(memory(of), width),
                })
            })
            .collect();
        let width = parts
            .iter()
            .map(|part| part.start + part.stored.row_bytes());
        let width = width.max().unwrap_or(0);
        (0..first.rows).step_by(at_once).map(move |row| {
            let rows = at_once.min(first.rows - row);
            let start = base + (row * first.pitch_bytes()) as u64;
            let bytes = (rows - 1) * first.pitch_bytes() + width;
            let taken = parts.drain(..).map(|part| part.split(rows));
            let (here, behind): (Vec<_>, Vec<_>) = taken.unzip();
            parts = behind;
            Panel {
                file: Arc::clone(&file),
                span: start..start + bytes as u64,
                parts: here,
            }
        })
    }
}

impl<'a> Part<'a> {
    /// The first rows in the file, and the rest.
    fn split(self, rows: usize) -> (Part<'a>, Part<'a>) {
        let (here, behind) = match self.stored.is_transposed {
            true => self.to.split_columns(rows * self.stored.element),
            false => self.to.split_rows(rows),
        };
        let stored = |rows| Stored {
            rows,
            ..self.stored
        };
        let left = self.stored.rows - rows;
        let start = self.start;
        (
            Part {
                start,
                stored: stored(rows),
                to: here,
            },
            Part {
                start,
                stored: stored(left),
                to: behind,
            },
        )
    }

    fn place<const ELEMENT: usize, const LINE: usize>(&mut self, panel: &[u8]) {
        let Stored {
            rows,
            columns,
            pitch,
            is_transposed,
            ..
        } = self.stored;
        if is_transposed {
            let (from, _) = panel[self.start..].as_chunks::<ELEMENT>();
            let size = (rows, columns);
            transpose::<ELEMENT, LINE>(from, pitch, size, &mut self.to, Store::Past);
            return;
        }
        for row in 0..rows {
            let from = self.start + row * pitch * ELEMENT;
            let to = self.to.row(row);
            to.copy_from_slice(&panel[from..from + to.len()]);
        }
    }
}

impl Panel<'_> {
    /// The file that it lies in.
    pub fn file(&self) -> &Arc<Path> {
        &self.file
    }

    /// Where in the file.
    pub fn span(&self) -> Range<u64> {
        self.span.clone()
    }

    /// Puts what was read of the file to where it belongs.
    ///
    /// # Panics
    ///
    /// If these are not as many bytes as the panel has.
    pub fn place(self, bytes: &[u8]) {
        assert_eq!(bytes.len() as u64, self.span.end - self.span.start);
        for mut part in self.parts {
            match part.stored.element {
                1 => part.place::<1, 64>(bytes),
                2 => part.place::<2, 32>(bytes),
                4 => part.place::<4, 16>(bytes),
                8 => part.place::<8, 8>(bytes),
                bytes => unreachable!("elements of {bytes} bytes"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;

    const DTYPES: [Dtype; 4] = [Dtype::I8, Dtype::F16, Dtype::F32, Dtype::F64];

    /// Columns of one matrix, some of them transposed.
    fn columns(
        random: &mut fastrand::Rng,
        dtype: Dtype,
        (rows, pitch): (usize, usize),
    ) -> Vec<TensorRange> {
        let mut tensors = Vec::new();
        let mut start = random.usize(0..3.min(pitch));
        while start < pitch {
            let width = random.usize(1..=(pitch - start).min(150));
            let tensor = TensorRange {
                name: "a".to_owned(),
                dtype,
                shape: vec![rows, width],
                strides: vec![pitch, 1],
                file: Path::new("none").into(),
                offset: 5 + start as u64 * dtype.bytes(),
            };
            tensors.push(match random.bool() {
                true => tensor.transposed(),
                false => tensor,
            });
            start += width + random.usize(0..2);
        }
        tensors
    }

    #[test]
    fn panels_that_are_placed_by_threads_make_each_tensor_element_by_element() {
        let mut random = fastrand::Rng::with_seed(20261128);
        let mut placed = 0;
        for case in 0..400 {
            let dtype = DTYPES[case % 4];
            let element = dtype.bytes() as usize;
            let size = (random.usize(1..300), random.usize(1..300));
            let tensors = columns(&mut random, dtype, size);
            let bytes = 5 + size.0 * size.1 * element;
            let file: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
            let mut memories: Vec<Vec<u8>> = tensors
                .iter()
                .map(|tensor| vec![0xaa; tensor.bytes() as usize])
                .collect();
            let most = random.usize(1..40) * 1024;
            let memory = memories.iter_mut().map(Vec::as_mut_slice);
            let (groups, rest) = beside(tensors.iter().cloned().zip(memory), most);
            let rest: Vec<TensorRange> = rest.into_iter().map(|(tensor, _)| tensor).collect();
            let mut panels = Vec::new();
            for group in groups {
                panels.extend(group.panels(|memory| memory));
            }
            placed += panels.len();
            assert!(panels.iter().all(|panel| panel.span().end <= bytes as u64));
            let first = panels.len() / 2;
            let second = panels.split_off(first);
            std::thread::scope(|scope| {
                for panels in [second, panels] {
                    scope.spawn(|| {
                        for panel in panels {
                            let span = panel.span();
                            assert!((span.end - span.start) as usize <= most);
                            panel.place(&file[span.start as usize..span.end as usize]);
                        }
                    });
                }
            });
            for (tensor, memory) in tensors.iter().zip(&memories) {
                if rest.contains(tensor) {
                    assert!(memory.iter().all(|&byte| byte == 0xaa));
                    continue;
                }
                for (at, found) in memory.chunks(element).enumerate() {
                    let (row, column) = (at / tensor.shape[1], at % tensor.shape[1]);
                    let there = row * tensor.strides[0] + column * tensor.strides[1];
                    let there = tensor.offset as usize + there * element;
                    assert_eq!(found, &file[there..there + element], "{at} of {tensor:?}");
                }
            }
        }
        assert!(placed > 1000, "{placed}");
    }
}
