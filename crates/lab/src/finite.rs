//! Numbers that are not finite, and where they come from.

use gpt2::Gpt2;

use crate::convert::extend_as_f32;
use crate::platform::BringLayer;
use crate::verify::for_each_tensor;
use crate::{Error, Platform, Run};

/// Where a number that is not finite was seen first.
pub(crate) struct Seen {
    /// What it was one of, as the beginning of a sentence that `not finite` goes on with.
    pub what: String,
    pub value: f32,
    /// What may help, as the end of a sentence.
    pub advice: &'static str,
}

/// Says where it was seen, and which parameter it comes from: the first that has such a number. The model is read back for
/// that, piece by piece.
pub(crate) fn error<B: Platform>(
    run: &Run<B>,
    model: &mut Gpt2<B>,
    bring: &mut BringLayer<'_, B>,
    seen: Seen,
) -> Error {
    let Seen {
        what,
        value,
        advice,
    } = seen;
    let why = match first_parameter(run, model, bring) {
        Ok(Some((parameter, value))) => {
            format!("the parameter `{parameter}` has {value} in it")
        }
        Ok(None) => format!(
            "every parameter is finite, so that it is too large a number for {} on the way",
            run.dtype
        ),
        Err(error) => {
            format!("its parameters could not be read back to look for the reason: {error}")
        }
    };
    Error::NotFinite(format!("{what} not finite ({value}): {why}{advice}"))
}

/// The first parameter that has a number which is not finite, by the name that the file has for it, and that number.
fn first_parameter<B: Platform>(
    run: &Run<B>,
    model: &mut Gpt2<B>,
    bring: &mut BringLayer<'_, B>,
) -> Result<Option<(String, f32)>, Error> {
    let mut found: Option<(String, f32)> = None;
    let mut values = Vec::new();
    for_each_tensor(model, &run.config, bring, |tensor| {
        for shard in &tensor.shards {
            if found.is_some() {
                return Ok(());
            }
            B::read_back(shard.value(), &mut |piece| {
                // In small steps: the bytes of a whole parameter may come at once.
                for step in piece.chunks(1 << 20) {
                    values.clear();
                    extend_as_f32(&mut values, run.dtype, step);
                    let bad = values.iter().find(|value| !value.is_finite());
                    if let (None, Some(&bad)) = (&found, bad) {
                        found = Some((tensor.spec.name.clone(), bad));
                    }
                }
            })?;
        }
        Ok(())
    })?;
    Ok(found.map(|(name, value)| (run.name_in_file(&name), value)))
}
