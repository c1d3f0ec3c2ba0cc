//! The inverse of a layout: from the model's tensors to those of a file.
//!
//! ```text
//!  the model      query [out, in]   key [out, in]   value [out, in]
//!                         └───────────────┼──────────────┘           parts, one behind the other along the outputs
//!  the file       c_attn [in, 3 × out]                               and transposed, where the layout says so
//! ```

use std::collections::{BTreeMap, HashSet};

use checkpoint::TensorMeta;

use super::description::Place;
use super::error::Error;
use super::file_tensor::{FileTensor, Part};
use super::known::Layouts;
use super::named::Named;

impl Named {
    /// These tensors of the model as this very file has them: under its names, in its layout.
    ///
    /// A head that the file leaves to the token table gets the name that the layout has for one, if it is given: the two are
    /// then two tensors.
    ///
    /// # Errors
    ///
    /// If the file has tensors which the model has a part of only, or the layout no name for one.
    pub fn as_written(
        &self,
        layouts: &Layouts,
        tensors: &[TensorMeta],
    ) -> Result<Vec<FileTensor>, Error> {
        let mut taken = HashSet::new();
        let placed = tensors.iter().map(|tensor| {
            let place = self.places.get(&tensor.name).cloned();
            let place = place.filter(|place| taken.insert(place.clone()));
            let place = place.or_else(|| self.place_of_its_own(layouts, &tensor.name));
            let place = place.ok_or_else(|| no_name(&self.layout, &tensor.name))?;
            Ok((Given::Tensor(tensor), place))
        });
        let mut placed = placed.collect::<Result<Vec<_>, Error>>()?;
        // One table that the file keeps under two names is one in the model.
        let has_head = tensors
            .iter()
            .any(|tensor| tensor.name == "out_head.weight");
        let table = tensors
            .iter()
            .find(|tensor| tensor.name == "tok_emb.weight");
        let head = self.places.get("out_head.weight").filter(|_| !has_head);
        if let Some((table, head)) = table.zip(head)
            && taken.insert(head.clone())
        {
            placed.push((Given::Tensor(table), head.clone()));
        }
        gather(placed)
    }

    /// Where a tensor would lie that the file keeps no more than another under two names.
    fn place_of_its_own(&self, layouts: &Layouts, tensor: &str) -> Option<Place> {
        let layout = layouts.named(&self.layout)?;
        let written = &self.places.get("tok_emb.weight")?.name;
        let table = layout.first_place("tok_emb.weight")?.name;
        // transformers keeps the head outside of the module that the rest is in.
        let prefix = written.strip_suffix(&table)?;
        let prefix = prefix.strip_suffix(BASE_MODEL).unwrap_or(prefix);
        let place = layout.first_place(tensor)?;
        Some(Place {
            name: format!("{prefix}{}", place.name),
            ..place
        })
    }
}

/// What `transformers` calls the part of a language model that is not its head.
const BASE_MODEL: &str = "transformer.";

impl Layouts {
    /// These tensors of the model as `transformers` has them: `GPT2LMHeadModel.from_pretrained` reads them. A bias that the
    /// model does without is written as zeros, for there every linear has one.
    ///
    /// # Errors
    ///
    /// If the layout has no name for a tensor.
    pub fn hugging_face(tensors: &[TensorMeta]) -> Result<Vec<FileTensor>, Error> {
        let layouts = Layouts::built_in();
        let layout = layouts
            .named("hugging-face")
            .expect("it is among the built-in ones");
        let given: HashSet<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
        let place_of = |name: &str| {
            let mut place = layout.first_place(name)?;
            if name != "out_head.weight" {
                place.name.insert_str(0, BASE_MODEL);
            }
            Some(place)
        };
        let mut placed = Vec::new();
        for tensor in tensors {
            let place = place_of(&tensor.name);
            let place = place.ok_or_else(|| no_name(&layout.name, &tensor.name))?;
            placed.push((Given::Tensor(tensor), place));
            let addend = match tensor.name.rsplit_once('.') {
                Some((linear, "weight")) => format!("{linear}.bias"),
                Some((norm, "scale")) => format!("{norm}.shift"),
                _ => continue,
            };
            let is_left_out = !given.contains(&*addend);
            if let Some(place) = place_of(&addend).filter(|_| is_left_out) {
                placed.push((Given::Zeros { beside: tensor }, place));
            }
        }
        gather(placed)
    }
}

fn no_name(layout: &str, tensor: &str) -> Error {
    Error::NoName {
        layout: layout.to_owned(),
        tensor: tensor.to_owned(),
    }
}

/// What is written: a tensor of the model, or zeros for one that it does without, as many as `beside` has outputs.
#[derive(Clone, Copy)]
enum Given<'a> {
    Tensor(&'a TensorMeta),
    Zeros { beside: &'a TensorMeta },
}

impl Given<'_> {
    fn meta(&self) -> &TensorMeta {
        match self {
            Given::Tensor(tensor) | Given::Zeros { beside: tensor } => tensor,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Given::Tensor(tensor) => &tensor.shape,
            Given::Zeros { beside } => &beside.shape[..1],
        }
    }
}

/// Puts the parts of each of the file's tensors together, in the order in which they are first needed.
fn gather(placed: Vec<(Given<'_>, Place)>) -> Result<Vec<FileTensor>, Error> {
    let mut order = Vec::new();
    let mut groups: BTreeMap<String, Vec<(Given<'_>, Place)>> = BTreeMap::new();
    for (given, place) in placed {
        let group = groups.entry(place.name.clone()).or_default();
        if group.is_empty() {
            order.push(place.name.clone());
        }
        group.push((given, place));
    }
    let groups = order.iter().map(|name| {
        let mut parts = groups.remove(name).unwrap_or_default();
        parts.sort_by_key(|(_, place)| place.part);
        one(name, &parts)
    });
    groups.collect()
}

/// One tensor of the file, of all its parts.
fn one(name: &str, parts: &[(Given<'_>, Place)]) -> Result<FileTensor, Error> {
    let (first, place) = &parts[0];
    let wrong = |reason: String| Error::Parts {
        name: name.to_owned(),
        reason,
    };
    let numbers: Vec<usize> = parts.iter().map(|(_, place)| place.part).collect();
    if numbers != (1..=place.of).collect::<Vec<_>>() {
        return Err(wrong(format!(
            "of its {} parts the model has {numbers:?}",
            place.of
        )));
    }
    for (given, other) in parts {
        if (other.transposed, other.of) != (place.transposed, place.of) {
            return Err(wrong("its parts are kept in different ways".to_owned()));
        }
        if given.shape() != first.shape() {
            return Err(wrong(format!(
                "its parts are of different shapes, {:?} and {:?}",
                first.shape(),
                given.shape()
            )));
        }
        if given.meta().dtype != first.meta().dtype {
            return Err(wrong(format!(
                "its parts are of different dtypes, {} and {}",
                first.meta().dtype,
                given.meta().dtype
            )));
        }
    }
    let outputs = first.shape()[0];
    let mut shape = first.shape().to_vec();
    shape[0] = outputs * place.of;
    if place.transposed {
        shape.reverse();
    }
    Ok(FileTensor {
        meta: TensorMeta {
            name: name.to_owned(),
            dtype: first.meta().dtype,
            shape,
        },
        transposed: place.transposed,
        parts: parts
            .iter()
            .map(|(given, _)| Part {
                name: match given {
                    Given::Tensor(tensor) => Some(tensor.name.clone()),
                    Given::Zeros { .. } => None,
                },
                outputs,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use checkpoint::{Dtype, Format};

    use super::super::file_tensor::write_tensors;
    use super::*;
    use crate::Size;

    fn metas(size: &str) -> Vec<TensorMeta> {
        let size: Size = size.parse().unwrap();
        let specs = size.config().tensors().into_iter();
        let metas = specs.map(|spec| TensorMeta {
            name: spec.name,
            dtype: Dtype::F32,
            shape: spec.shape,
        });
        metas.collect()
    }

    /// Writes a checkpoint as these tensors of a file.
    fn write(from: &Named, tensors: &[FileTensor], format: Format, to: &Path) {
        let mut blocks = from.checkpoint.clone();
        write_tensors(
            to,
            format,
            tensors,
            &BTreeMap::new(),
            &mut blocks,
            &mut |_| Ok::<_, Error>(()),
        )
        .unwrap();
    }

    fn digests(named: &Named) -> BTreeMap<String, String> {
        let tensors = named.checkpoint.tensors().iter();
        let digests = tensors.map(|tensor| {
            let digest = tensor.digest().unwrap().to_string();
            (tensor.name.clone(), digest)
        });
        digests.collect()
    }

    fn tiny() -> Named {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.pth");
        Layouts::built_in().open(Path::new(fixture)).unwrap()
    }

    #[test]
    fn what_is_written_in_another_layout_is_read_as_the_same_model() {
        let own = tiny();
        let metas = metas("v257-c64-e48-l2-h4");
        let tensors = Layouts::hugging_face(&metas).unwrap();
        let fused = tensors.iter().find(|tensor| {
            tensor.meta.name == "transformer.h.1.attn.c_attn.weight"
                && tensor.meta.shape == [48, 144]
        });
        assert!(fused.is_some(), "{tensors:?}");
        assert!(
            tensors
                .iter()
                .any(|tensor| tensor.meta.name == "lm_head.weight")
        );
        let folder = tempfile::tempdir().unwrap();
        for (format, name) in [
            (Format::Safetensors, "model.safetensors"),
            (Format::Pth, "pytorch_model.bin"),
            (Format::Sharded, "sharded"),
        ] {
            let path = folder.path().join(name);
            write(&own, &tensors, format, &path);
            let again = Layouts::built_in().open(&path).unwrap();
            assert_eq!(again.layout, "hugging-face");
            assert!(again.unexpected.is_empty());
            assert_eq!(digests(&again), digests(&own), "{format}");
            // And as it came in, once more.
            let same = again.as_written(&Layouts::built_in(), &metas).unwrap();
            let mut names: Vec<_> = same.iter().map(|tensor| &tensor.meta).collect();
            let mut expected: Vec<_> = tensors.iter().map(|tensor| &tensor.meta).collect();
            names.sort_by(|a, b| a.name.cmp(&b.name));
            expected.sort_by(|a, b| a.name.cmp(&b.name));
            assert_eq!(names, expected, "{format}");
            let back = folder.path().join("back.safetensors");
            write(&again, &same, Format::Safetensors, &back);
            let back = Layouts::built_in().open(&back).unwrap();
            assert_eq!(digests(&back), digests(&own), "{format}");
        }
    }

    #[test]
    fn biases_that_the_model_does_without_are_zeros_where_the_layout_has_them() {
        let metas = metas("v257-c64-e48-l1-h4-nobias");
        let tensors = Layouts::hugging_face(&metas).unwrap();
        let bias = tensors
            .iter()
            .find(|tensor| tensor.meta.name == "transformer.h.0.attn.c_attn.bias");
        let bias = bias.unwrap();
        assert_eq!(bias.meta.shape, [144]);
        let mut bytes = Vec::new();
        let filled = bias.fill(&mut tiny().checkpoint, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok::<_, Error>(())
        });
        assert!(filled.is_ok() && bytes == [0; 4 * 144]);
    }

    #[test]
    fn a_head_that_was_the_token_table_gets_a_name_of_its_own_where_it_is_one() {
        let own = tiny();
        let all = metas("v257-c64-e48-l2-h4");
        let tied: Vec<_> = all
            .iter()
            .filter(|tensor| tensor.name != "out_head.weight")
            .cloned()
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write(
            &own,
            &Layouts::hugging_face(&tied).unwrap(),
            Format::Safetensors,
            &path,
        );
        let layouts = Layouts::built_in();
        let again = layouts.open(&path).unwrap();
        let names = |tensors: Vec<FileTensor>| -> Vec<String> {
            let names = tensors.into_iter().map(|tensor| tensor.meta.name);
            names.filter(|name| !name.contains(".h.")).collect()
        };
        let outside = [
            "transformer.wte.weight",
            "transformer.wpe.weight",
            "transformer.ln_f.weight",
            "transformer.ln_f.bias",
        ];
        assert_eq!(names(again.as_written(&layouts, &tied).unwrap()), outside);
        assert_eq!(
            names(again.as_written(&layouts, &all).unwrap()),
            [&outside[..], &["lm_head.weight"]].concat()
        );
    }

    #[test]
    fn a_tensor_that_the_model_has_a_part_of_only_is_refused() {
        let metas = metas("v257-c64-e48-l1-h4");
        let without: Vec<_> = metas
            .into_iter()
            .filter(|tensor| tensor.name != "trf_blocks.0.att.W_key.weight")
            .collect();
        let error = Layouts::hugging_face(&without).unwrap_err().to_string();
        assert!(
            error.contains("`transformer.h.0.attn.c_attn.weight`") && error.contains("[1, 3]"),
            "{error}"
        );
    }
}
