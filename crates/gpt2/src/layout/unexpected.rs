//! Unexpected tensors that cannot be skipped: without them, another model is computed.

use std::fmt;

use checkpoint::is_of_adapter;

use super::description::{LAYER, Layout, Source, Sources, layer_of};
use super::find::MAX_DEPTH;
use super::named::Named;

/// What an unexpected tensor is to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Essential {
    /// One of the tensors of a second model.
    SecondModel {
        /// What stands before the names of the tensors that are taken.
        taken: String,
        /// What stands before its own.
        other: String,
    },
    /// A part of an adapter, such as LoRA's.
    Adapter,
    /// Something that a module of the model computes with.
    PartOf {
        /// The module.
        module: String,
    },
}

impl fmt::Display for Essential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = |prefix: &str| match prefix {
            "" => "without a prefix".to_owned(),
            prefix => format!("under `{prefix}`"),
        };
        match self {
            Essential::SecondModel { taken, other } if taken == other => f.write_str(
                "is one of the model's own tensors by its name, and has no place in it: save the model again",
            ),
            Essential::SecondModel { taken, other } => write!(
                f,
                "is of a second model: one is {}, another {}: choose one with --key, where each has a key of its own, or save a \
                 file with one of them",
                prefix(taken),
                prefix(other)
            ),
            Essential::Adapter => f.write_str(
                "is of an adapter, which is not applied here: merge it (merge_and_unload), and save the model",
            ),
            Essential::PartOf { module } => write!(
                f,
                "is a part of `{module}` that GPT-2 does not have: the model computes something else with it"
            ),
        }
    }
}

impl Named {
    /// What the unexpected tensor of this name is to the model; `None` where the model may not depend on it.
    pub fn essential(&self, name: &str) -> Option<Essential> {
        if is_of_adapter(name) {
            return Some(Essential::Adapter);
        }
        let second = starts(name).find_map(|start| {
            let (other, rest) = name.split_at(start);
            let mut all = self.known.iter().chain(&self.elsewhere);
            let own = all.find(|(_, written)| is_named(written, rest));
            let (own, written) = own?;
            let own = match layer_of(written, rest) {
                Some(layer) => own.replace(LAYER, &layer.to_string()),
                None => own.clone(),
            };
            let taken = self.name_in_file(&own);
            Some(Essential::SecondModel {
                taken: taken.strip_suffix(rest).unwrap_or_default().to_owned(),
                other: other.to_owned(),
            })
        });
        second.or_else(|| {
            let mut parts = starts(name).filter_map(|start| {
                let module = self.module_of(&name[start..])?;
                Some(Essential::PartOf { module })
            });
            parts.next()
        })
    }

    /// The module of the model in which a tensor of this name lies: one with weights, or a layer and what is in it.
    fn module_of(&self, name: &str) -> Option<String> {
        let modules = self.known.iter().flat_map(|(_, written)| {
            let above = std::iter::successors(written.rsplit_once('.'), |(above, _)| {
                let (above, rest) = above.rsplit_once('.')?;
                above.contains(LAYER).then_some((above, rest))
            });
            above.map(|(module, _)| module)
        });
        let mut modules = modules.filter_map(|module| {
            let depth = module.split('.').count();
            let mut parts = name.splitn(depth + 1, '.');
            let start: Vec<&str> = parts.by_ref().take(depth).collect();
            let start = start.join(".");
            (parts.next().is_some() && is_named(module, &start)).then_some(start)
        });
        modules.next()
    }
}

impl Layout {
    /// Whether a tensor is called as one of the model's, whatever stands before the name.
    pub(super) fn knows(&self, name: &str) -> bool {
        let sources = self.tensors.values().flat_map(Sources::all);
        let patterns: Vec<&str> = sources.map(Source::from).collect();
        starts(name).any(|start| {
            let mut patterns = patterns.iter();
            patterns.any(|pattern| is_named(pattern, &name[start..]))
        })
    }
}

/// Where a name may begin, behind what a prefix may be.
fn starts(name: &str) -> impl Iterator<Item = usize> {
    let dots = name.match_indices('.').map(|(dot, _)| dot + 1);
    std::iter::once(0).chain(dots.take(MAX_DEPTH))
}

/// Whether a tensor or a module is called as in a layout.
fn is_named(pattern: &str, name: &str) -> bool {
    pattern == name || layer_of(pattern, name).is_some()
}

#[cfg(test)]
mod tests {
    use checkpoint::{Dtype, Format, TensorMeta};

    use super::super::Layouts;
    use super::*;

    /// A file with these names, as it is found to be.
    fn opened(names: &[&str]) -> Named {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let metas = names.iter().map(|name| TensorMeta {
            name: (*name).to_owned(),
            dtype: Dtype::F32,
            shape: vec![2, 2],
        });
        let metas: Vec<TensorMeta> = metas.collect();
        checkpoint::write(&path, Format::Safetensors, &metas, &mut |_, sink| {
            sink(&[0; 16])
        })
        .unwrap();
        Layouts::built_in().open(&path).unwrap()
    }

    const MODEL: [&str; 3] = [
        "transformer.wte.weight",
        "transformer.wpe.weight",
        "transformer.h.0.ln_1.weight",
    ];

    #[test]
    fn what_a_model_computes_with_is_told_from_what_it_may_not_depend_on() {
        let second = |other: &str| {
            Some(Essential::SecondModel {
                taken: "transformer.".to_owned(),
                other: other.to_owned(),
            })
        };
        let part_of = |module: &str| {
            let module = module.to_owned();
            Some(Essential::PartOf { module })
        };
        for (name, expected) in [
            ("ema.wte.weight", second("ema.")),
            (
                "ema.transformer.h.0.ln_1.weight",
                second("ema.transformer."),
            ),
            ("ema.h.7.mlp.c_fc.bias", second("ema.")),
            (
                "transformer.h.0.attn.c_attn.lora_A.default.weight",
                Some(Essential::Adapter),
            ),
            ("lm_head.bias", part_of("lm_head")),
            ("lm_head.0.weight", part_of("lm_head")),
            (
                "transformer.h.0.attn.c_attn.scale",
                part_of("h.0.attn.c_attn"),
            ),
            ("transformer.h.0.adapter.down_proj.weight", part_of("h.0")),
            ("transformer.h.0.attn.q_norm.weight", part_of("h.0.attn")),
            (
                "trf_blocks.7.norm1.scale",
                Some(Essential::SecondModel {
                    taken: String::new(),
                    other: String::new(),
                }),
            ),
            ("score.weight", None),
            ("v_head.summary.weight", None),
            ("step", None),
        ] {
            let found = opened(&[&MODEL[..], &[name]].concat());
            assert_eq!(found.unexpected.len(), 1, "{name}: {:?}", found.unexpected);
            assert_eq!(found.essential(name), expected, "{name}");
        }
    }

    #[test]
    fn two_models_in_one_file_are_told_by_what_stands_before_their_names() {
        for prefix in ["ema.", "module.", "_orig_mod."] {
            let other: Vec<String> = MODEL.iter().map(|name| format!("{prefix}{name}")).collect();
            let other: Vec<&str> = other.iter().map(|name| &**name).collect();
            let found = opened(&[&MODEL[..], &other].concat());
            assert_eq!(found.unexpected.len(), 3, "{prefix}");
            for (name, _) in &found.unexpected {
                let essential = found.essential(name).unwrap();
                assert!(
                    essential.to_string().contains("`transformer.`")
                        && essential
                            .to_string()
                            .contains(&format!("`{prefix}transformer.`")),
                    "{name}: {essential}"
                );
            }
        }
    }
}
