//! The inverse of a layout: from the model's tensors to those of a file.
//!
//! ```text
//!  the model      query [out, in]   key [out, in]   value [out, in]
//!                         └───────────────┼──────────────┘           parts, one behind the other along the outputs
//!  the file       c_attn [in, 3 × out]                               and transposed, where the layout says so
//! ```
//!
//! Rows of the file's tensor are written block by block: what is held is a block, however large the tensor is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use checkpoint::{Checkpoint, Format, TensorMeta, Written};

use super::{Error, LAYER, Layout, Layouts, Named, layer_of};

/// What is gathered at once.
const BLOCK_BYTES: u64 = 8 << 20;

/// Where a tensor of the model lies in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The file's tensor.
    pub name: String,
    /// Whether that one has rows and columns exchanged.
    pub transposed: bool,
    /// Which part of it this is, from 1 on.
    pub part: usize,
    /// How many parts it has.
    pub of: usize,
}

/// A tensor as a file has it, and what of the model it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct FileTensor {
    /// Its name, element type and shape in the file.
    pub meta: TensorMeta,
    transposed: bool,
    /// Along the outputs, which are the columns of a transposed matrix.
    parts: Vec<Part>,
}

/// A tensor of the model that is a part of a file's.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    /// Its name in the model; `None` stands for zeros: a bias that the model does without.
    name: Option<String>,
    outputs: usize,
}

/// Where the elements of the model's tensors come from; `E` is what may go wrong there.
pub trait Blocks<E> {
    /// Appends the bytes of rows of the model's tensor of this name, or of rows of it transposed; row after row.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn read(
        &mut self,
        tensor: &TensorMeta,
        transposed: bool,
        rows: Range<usize>,
        to: &mut Vec<u8>,
    ) -> Result<(), E>;
}

/// Of a checkpoint whose tensors bear the model's own names.
impl<E: From<checkpoint::Error>> Blocks<E> for Checkpoint {
    fn read(
        &mut self,
        tensor: &TensorMeta,
        transposed: bool,
        rows: Range<usize>,
        to: &mut Vec<u8>,
    ) -> Result<(), E> {
        let found = self.tensor(&tensor.name, &tensor.shape)?.clone();
        let found = match transposed {
            true => found.transposed(),
            false => found,
        };
        let start = to.len();
        to.resize(start + rows.len() * found.row_bytes() as usize, 0);
        Ok(found.read_rows(rows, &mut to[start..])?)
    }
}

impl FileTensor {
    /// A tensor that is kept as it is, under its own name.
    pub fn whole(meta: TensorMeta) -> FileTensor {
        let part = Part {
            name: Some(meta.name.clone()),
            outputs: meta.shape[0],
        };
        FileTensor {
            meta,
            transposed: false,
            parts: vec![part],
        }
    }

    /// Hands out the tensor's bytes in order, block by block.
    fn fill<E>(
        &self,
        blocks: &mut dyn Blocks<E>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut block = Vec::new();
        match self.transposed {
            false => self.parts.iter().try_for_each(|part| {
                let rows_at_once = self.rows_at_once(self.row_bytes());
                for start in (0..part.outputs).step_by(rows_at_once) {
                    let rows = start..part.outputs.min(start + rows_at_once);
                    block.clear();
                    self.read(part, blocks, rows, &mut block)?;
                    sink(&block)?;
                }
                Ok(())
            }),
            true => {
                let (inputs, row_bytes) = (self.meta.shape[0], self.row_bytes());
                let rows_at_once = self.rows_at_once(row_bytes);
                let mut columns = Vec::new();
                for start in (0..inputs).step_by(rows_at_once) {
                    let rows = start..inputs.min(start + rows_at_once);
                    block.resize(rows.len() * row_bytes, 0);
                    let mut column = 0;
                    for part in &self.parts {
                        columns.clear();
                        self.read(part, blocks, rows.clone(), &mut columns)?;
                        let part_bytes = part.outputs * self.meta.dtype.bytes() as usize;
                        let lines = block.chunks_exact_mut(row_bytes);
                        for (line, piece) in lines.zip(columns.chunks_exact(part_bytes)) {
                            line[column..column + part_bytes].copy_from_slice(piece);
                        }
                        column += part_bytes;
                    }
                    sink(&block)?;
                }
                Ok(())
            }
        }
    }

    fn read<E>(
        &self,
        part: &Part,
        blocks: &mut dyn Blocks<E>,
        rows: Range<usize>,
        to: &mut Vec<u8>,
    ) -> Result<(), E> {
        let shape = self.shape_of(part);
        let Some(name) = &part.name else {
            let row: usize = match self.transposed {
                true => part.outputs,
                false => shape[1..].iter().product(),
            };
            let bytes = rows.len() * row * self.meta.dtype.bytes() as usize;
            to.resize(to.len() + bytes, 0);
            return Ok(());
        };
        let tensor = TensorMeta {
            name: name.clone(),
            dtype: self.meta.dtype,
            shape,
        };
        blocks.read(&tensor, self.transposed, rows, to)
    }

    /// The part's shape in the model.
    fn shape_of(&self, part: &Part) -> Vec<usize> {
        let mut shape = self.meta.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape[0] = part.outputs;
        shape
    }

    fn row_bytes(&self) -> usize {
        let row: usize = self.meta.shape[1..].iter().product();
        row * self.meta.dtype.bytes() as usize
    }

    fn rows_at_once(&self, row_bytes: usize) -> usize {
        (BLOCK_BYTES as usize / row_bytes.max(1)).max(1)
    }
}

/// Writes a checkpoint of these tensors: as [`checkpoint::write_with_metadata`] does, with a block in memory and no more. `after` hears of
/// the bytes that were written last.
///
/// # Errors
///
/// If the disk refuses, or what `blocks` or `after` return.
pub fn write_tensors<E: From<checkpoint::Error> + Display>(
    path: &Path,
    format: Format,
    tensors: &[FileTensor],
    metadata: &BTreeMap<String, String>,
    blocks: &mut dyn Blocks<E>,
    after: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Written, E> {
    let metas: Vec<TensorMeta> = tensors.iter().map(|tensor| tensor.meta.clone()).collect();
    let by_name: HashMap<&str, &FileTensor> = tensors
        .iter()
        .map(|tensor| (&*tensor.meta.name, tensor))
        .collect();
    // What a writer of files has no word for.
    let mut failed = None;
    let written =
        checkpoint::write_with_metadata(path, format, &metas, metadata, &mut |meta, sink| {
            let filled = by_name[&*meta.name].fill(blocks, &mut |piece| {
                sink(piece)?;
                after(piece.len() as u64)
            });
            filled.map_err(|error: E| {
                let reason = error.to_string();
                failed = Some(error);
                checkpoint::Error::Invalid {
                    path: path.to_owned(),
                    reason,
                }
            })
        });
    match failed {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

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

    pub(super) fn named(&self, name: &str) -> Option<&Layout> {
        self.known.iter().find(|known| known.name == name)
    }
}

fn no_name(layout: &str, tensor: &str) -> Error {
    Error::NoName {
        layout: layout.to_owned(),
        tensor: tensor.to_owned(),
    }
}

impl Layout {
    /// Where it has a tensor of the model, by the first of its sources, without what stands before all names.
    fn first_place(&self, tensor: &str) -> Option<Place> {
        self.tensors.iter().find_map(|(own, sources)| {
            let first = sources.all().first()?;
            match layer_of(own, tensor) {
                Some(layer) => Some(first.place(first.from().replace(LAYER, &layer.to_string()))),
                None => (own == tensor).then(|| first.place(first.from().to_owned())),
            }
        })
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
    use checkpoint::Dtype;

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
