//! Parameters that are one, and have one tensor.

use std::collections::HashMap;
use std::path::Path;

use burn::module::ParamId;
use checkpoint::Access;

use super::convention::is_running_state;
use super::{Item, Mismatch, Problem, Slot};
use crate::Error;
use crate::carry::PieceReader;

/// What is compared at once.
const PIECE_BYTES: usize = 64 << 10;

/// Has parameters with one identity share one tensor, where the file holds the same for all of them, in one place or in copies, and
/// they go to one device.
/// Clones of a module have the identities of its parameters, too, and are several where the file has several.
///
/// # Errors
///
/// If the file cannot be read; or has several running states for clones of one batch norm, which have one.
pub(crate) fn share(file: &Path, slots: &[Slot], items: &mut [Item]) -> Result<(), Error> {
    let mut problems = Vec::new();
    let mut by_id: HashMap<ParamId, Vec<usize>> = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        by_id.entry(slots[item.slot].id).or_default().push(place);
    }
    for places in by_id.into_values().filter(|places| places.len() > 1) {
        let first = places[0];
        let mut are_equal = true;
        for &place in &places[1..] {
            are_equal = are_equal && is_equal(&items[first], &items[place])?;
        }
        let (path, other) = (
            &slots[items[first].slot],
            &slots[items[places[1]].slot].path,
        );
        if are_equal {
            let devices: Vec<usize> = places
                .iter()
                .map(|&place| slots[items[place].slot].device)
                .collect();
            for (at, &place) in places.iter().enumerate() {
                let same = devices[..at]
                    .iter()
                    .position(|&device| device == devices[at]);
                items[place].same_as = same.map(|one| places[one]);
            }
        } else if is_running_state(path) {
            problems.push(Problem::SharedState {
                path: path.path.clone(),
                other: other.clone(),
            });
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::Mismatch(Box::new(Mismatch {
            file: file.to_owned(),
            problems,
        }))),
    }
}

/// Whether both have the same values. The first piece mostly tells, where they have not.
fn is_equal(one: &Item, other: &Item) -> Result<bool, Error> {
    let (one, other) = (&one.source, &other.source);
    if one.tensor.shape != other.tensor.shape || one.cast != other.cast {
        return Ok(false);
    }
    let lies = |tensor: &checkpoint::TensorRange| {
        (tensor.file.clone(), tensor.offset, tensor.strides.clone())
    };
    if lies(&one.tensor) == lies(&other.tensor) {
        return Ok(true);
    }
    let mut reader = PieceReader::new(Access::Buffered);
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for range in one.pieces(PIECE_BYTES) {
        here.resize((range.end - range.start) as usize, 0);
        there.resize(here.len(), 0);
        reader.read(one, range.clone(), &mut here)?;
        reader.read(other, range, &mut there)?;
        if here != there {
            return Ok(false);
        }
    }
    Ok(true)
}
