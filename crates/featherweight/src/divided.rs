//! A model divided among devices, each of which has room for so much of it.
//!
//! ```text
//!  embedding │ layers.0 │ layers.1 │ layers.2 │ layers.3 │ norm │ head      parts, in the module's order
//!  ───────── device 0 ────────────▶│◀──────── device 1 ────────────▶        none is divided, no device is come back to
//! ```

use std::collections::HashSet;

use crate::Error;
use crate::plan::Slot;

/// What a slot takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// The tensor: slots that share one have the same number.
    pub tensor: usize,
    pub bytes: u64,
}

/// Gives each slot its device: the first that has room for its part, and for what was given to it before. What is not loaded takes
/// nothing.
///
/// # Errors
///
/// If a part has room on none of those that are left.
pub(crate) fn divide(
    slots: &mut [Slot],
    loads: &[Option<Load>],
    room_bytes: &[u64],
) -> Result<(), Error> {
    let (mut device, mut taken) = (0, 0u64);
    // A tensor that is on the device already takes nothing.
    let mut there = HashSet::new();
    let mut start = 0;
    while start < slots.len() {
        let name = part(&slots[start].path).to_owned();
        let same = slots[start..].iter();
        let end = start + same.take_while(|slot| part(&slot.path) == name).count();
        loop {
            let mut with_it = there.clone();
            let parts = loads[start..end].iter().flatten();
            let new = parts.filter(|load| with_it.insert(load.tensor));
            let bytes: u64 = new.map(|load| load.bytes).sum();
            let Some(&room) = room_bytes.get(device) else {
                return Err(no_room(&name, bytes, loads, room_bytes));
            };
            if taken.saturating_add(bytes) <= room {
                (there, taken) = (with_it, taken + bytes);
                break;
            }
            (device, taken) = (device + 1, 0);
            there.clear();
        }
        for slot in &mut slots[start..end] {
            slot.device = device;
        }
        start = end;
    }
    Ok(())
}

fn no_room(part: &str, bytes: u64, loads: &[Option<Load>], room_bytes: &[u64]) -> Error {
    let mut met = HashSet::new();
    let each = loads.iter().flatten();
    let each = each.filter(|load| met.insert(load.tensor));
    Error::NoRoom {
        part: part.to_owned(),
        bytes,
        model_bytes: each.map(|load| load.bytes).sum(),
        room_bytes: room_bytes
            .iter()
            .fold(0, |all, &bytes| all.saturating_add(bytes)),
    }
}

/// What is not divided: an element of a `Vec`, or a field of the module. `layers.3.widen.weight` is of `layers.3`.
fn part(path: &str) -> &str {
    let mut ends = path
        .match_indices('.')
        .map(|(end, _)| end)
        .chain([path.len()]);
    let mut start = 0;
    let numbered = ends.find(|&end| {
        let word = &path[start..end];
        start = end + 1;
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
    });
    let first = path.find('.').unwrap_or(path.len());
    &path[..numbered.unwrap_or(first)]
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;

    use super::*;
    use crate::Kind;

    fn slots(paths: &[&str]) -> Vec<Slot> {
        let slot = |path: &&str| Slot {
            path: (*path).to_owned(),
            kind: Kind::Float,
            shape: vec![1],
            id: ParamId::new(),
            is_initialised: false,
            container: String::new(),
            containers: String::new(),
            path_without_variants: String::new(),
            has_load_mapper: false,
            device: 0,
        };
        paths.iter().map(slot).collect()
    }

    #[test]
    fn parts_go_to_the_first_device_that_has_room_and_none_is_come_back_to() {
        let paths = [
            "table",
            "layers.0.a",
            "layers.0.b",
            "layers.1.a",
            "norm",
            "head",
        ];
        let load = |tensor, bytes| Some(Load { tensor, bytes });
        // The head is the table.
        let loads = [
            load(0, 10),
            load(1, 4),
            load(2, 4),
            load(3, 8),
            None,
            load(0, 10),
        ];
        let divided = |room: &[u64]| -> Result<Vec<usize>, Error> {
            let mut slots = slots(&paths);
            divide(&mut slots, &loads, room)?;
            Ok(slots.iter().map(|slot| slot.device).collect())
        };
        assert_eq!(divided(&[26]).unwrap(), [0; 6]);
        assert_eq!(divided(&[18, 18]).unwrap(), [0, 0, 0, 1, 1, 1]);
        assert_eq!(divided(&[17, 8, 100]).unwrap(), [0, 1, 1, 2, 2, 2]);
        assert_eq!(divided(&[0, 26]).unwrap(), [1; 6]);
        let said = divided(&[18, 17]).unwrap_err().to_string();
        let expected = "`head` has 10 bytes, for which the devices have no room left: the model has 26 bytes, and they are given 35";
        assert!(said.contains(expected), "{said}");
        assert!(
            divided(&[7, 7])
                .unwrap_err()
                .to_string()
                .contains("`table`")
        );
    }

    #[test]
    fn elements_of_lists_and_fields_are_parts() {
        for (path, expected) in [
            ("layers.3.widen.weight", "layers.3"),
            ("encoder.layers.12.norm.0.bias", "encoder.layers.12"),
            ("head.linear.weight", "head"),
            ("tied", "tied"),
        ] {
            assert_eq!(part(path), expected);
        }
    }
}
