//! How a saved state of AdamW is known: by the names in its file. What is in it says `platform::training::optimizer`.

use checkpoint::{Checkpoint, Dtype};

/// Names the number of steps that were taken.
pub(crate) const STEP: &str = "step";
/// What the names of a parameter's moments end in, behind a dot.
pub(crate) const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
/// Up to here a float of 32 bits counts.
pub(crate) const MOST_STEPS: usize = 1 << 24;

/// Whether this is a state of AdamW as a training saved it, of whatever model.
pub fn is_optimizer_state(file: &Checkpoint) -> bool {
    let is_known = |name: &str| {
        let end = name.rsplit_once('.').map(|(_, end)| end);
        name == STEP || end.is_some_and(|end| MOMENTS.contains(&end))
    };
    steps(file).is_ok() && file.tensors().iter().all(|tensor| is_known(&tensor.name))
}

/// How many steps it is the state after.
pub(crate) fn steps(state: &Checkpoint) -> Result<usize, String> {
    let step = state
        .tensor(STEP, &[1])
        .map_err(|error| error.to_string())?;
    if step.dtype != Dtype::F32 {
        return Err(format!("`{STEP}` is {}, not f32", step.dtype));
    }
    let mut bytes = [0; 4];
    step.read_rows(0..1, &mut bytes)
        .map_err(|error| error.to_string())?;
    let steps = f32::from_le_bytes(bytes);
    match steps.fract() == 0.0 && (1.0..=MOST_STEPS as f32).contains(&steps) {
        true => Ok(steps as usize),
        false => Err(format!("`{STEP}` is {steps}, which is no number of steps")),
    }
}
