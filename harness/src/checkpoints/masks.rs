//! What a state dict keeps beside its weights: the attention's masks. GPT-2 hides what comes later, and nothing else; a model that
//! masks otherwise is another.

use anyhow::{bail, ensure};
use checkpoint::{Dtype, Format, Other, TensorRange, quoted};
use gpt2::layout::Named;

use super::cast;

/// What stands for no attention at all, where it is a number: -1e4, which is -9984 in bf16.
const LITTLE: f64 = -9984.0;
/// How much of a mask is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// That what is ignored as a causal mask is one: another masks otherwise, and is a part of the model.
pub fn check(opened: &Named) -> anyhow::Result<()> {
    let path = opened.checkpoint.path().display();
    for mask in &opened.masks {
        ensure!(
            is_causal(mask, &mask.shape, &mut |each| floats(mask, each))?,
            "{path}: {}",
            refusal(&mask.name, &mask.shape)
        );
    }
    // Burn keeps no masks of this kind: what is called so in a file of its own is not known to be one.
    let is_burns = opened.checkpoint.format() == Format::Burnpack;
    for mask in &opened.odd_masks {
        let is_read = mask.reason.is_counted() && !is_burns;
        let Some(bytes) = mask.bytes().filter(|_| is_read) else {
            bail!("{path}: its {} {}", quoted(&mask.name), mask.reason);
        };
        let shape = &bytes.shape[..bytes.shape.len() - 1];
        ensure!(
            is_causal(&bytes, shape, &mut |each| odd(mask, &bytes, each))?,
            "{path}: {}",
            refusal(&mask.name, shape)
        );
    }
    Ok(())
}

fn refusal(name: &str, shape: &[usize]) -> String {
    format!(
        "{} {shape:?} is no causal mask, as GPT-2 has there: the model masks otherwise, and is not computed here",
        quoted(name)
    )
}

/// Hands out the elements of a mask, in order.
type Elements<'a> = dyn FnMut(&mut dyn FnMut(f64)) -> anyhow::Result<()> + 'a;

/// Whether a mask hides what comes later and nothing else. transformers marks what is seen (`bias`), with a number for what is not
/// (`masked_bias`); the book marks what is hidden (`mask`).
fn is_causal(
    mask: &TensorRange,
    shape: &[usize],
    elements: &mut Elements<'_>,
) -> anyhow::Result<bool> {
    let elements_there = shape
        .iter()
        .try_fold(1usize, |all, &size| all.checked_mul(size));
    let context = match shape {
        _ if mask.name.ends_with("masked_bias") => match elements_there {
            Some(1) => None,
            _ => return Ok(false),
        },
        [.., rows, columns]
            if rows == columns
                && elements_there.is_some()
                && elements_there == rows.checked_mul(*columns) =>
        {
            Some(*rows)
        }
        _ => return Ok(false),
    };
    let marks_hidden = mask.name.ends_with("mask");
    let (mut at, mut is_right) = (0, true);
    elements(&mut |value| {
        is_right &= match context {
            None => value <= LITTLE,
            Some(context) => {
                let is_later = at % context > at / context;
                (value != 0.0) == (is_later == marks_hidden)
            }
        };
        at += 1;
    })?;
    Ok(is_right)
}

fn floats(mask: &TensorRange, each: &mut dyn FnMut(f64)) -> anyhow::Result<()> {
    cast::read(mask, Dtype::F32, |piece| {
        for bytes in piece.chunks_exact(4) {
            let value = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
            each(f64::from(value));
        }
        Ok(())
    })?;
    Ok(())
}

/// Elements of a type that weights cannot have. Of doubles the value; of others, whether it is zero.
fn odd(mask: &Other, bytes: &TensorRange, each: &mut dyn FnMut(f64)) -> anyhow::Result<()> {
    let [.., width] = bytes.shape[..] else {
        return Ok(());
    };
    let is_double = mask.reason.is_double();
    let mut tell = |element: &[u8]| match <[u8; 8]>::try_from(element) {
        Ok(double) if is_double => each(f64::from_le_bytes(double)),
        _ => each(f64::from(u8::from(element.iter().any(|&byte| byte != 0)))),
    };
    if bytes.is_contiguous() {
        let piece_bytes = PIECE_BYTES / width * width;
        bytes.read_in_pieces(piece_bytes, |piece| {
            piece.chunks_exact(width).for_each(&mut tell);
            Ok::<_, checkpoint::Error>(())
        })?;
        return Ok(());
    }
    // All at once, gaps included, for columns that are read as rows would be read byte by byte otherwise.
    let [.., rows, columns, _] = bytes.shape[..] else {
        bail!("{} has gaps", quoted(&mask.name));
    };
    let [.., down, along, _] = bytes.strides[..] else {
        bail!("{} has gaps", quoted(&mask.name));
    };
    let span = TensorRange {
        shape: vec![(rows - 1) * down + (columns - 1) * along + width],
        strides: vec![1],
        ..bytes.clone()
    };
    let mut memory = vec![0; span.shape[0]];
    span.read_rows(0..span.shape[0], &mut memory)?;
    for row in 0..rows {
        for column in 0..columns {
            let at = row * down + column * along;
            tell(&memory[at..at + width]);
        }
    }
    Ok(())
}
