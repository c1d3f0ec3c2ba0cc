//! What was loaded, read back and compared with the file, read again.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};
use checkpoint::{Access, Digest, Hasher};

use crate::Error;
use crate::carry::{PieceReader, Source};
use crate::plan::{Item, Slot};
use crate::read_back::read_back;

/// What is read of the file at once.
const PIECE_BYTES: usize = 1 << 20;

/// That every parameter holds what its source has.
pub(crate) fn verify<B: Backend, M: Module<B>>(
    module: &M,
    slots: &[Slot],
    items: &[Item],
) -> Result<(), Error> {
    let sources = items.iter().map(|item| {
        let slot = &slots[item.slot];
        (slot.path.clone(), &item.source)
    });
    let mut verifier = Verifier {
        sources: sources.collect(),
        names: Vec::new(),
        seen: 0,
        failed: None,
    };
    module.visit(&mut verifier);
    match verifier.failed {
        Some(error) => Err(error),
        None if verifier.seen < items.len() => Err(Error::Unsupported(format!(
            "{} of {} parameters were met again",
            verifier.seen,
            items.len()
        ))),
        None => Ok(()),
    }
}

struct Verifier<'a> {
    sources: HashMap<String, &'a Source>,
    names: Vec<String>,
    seen: usize,
    failed: Option<Error>,
}

impl Verifier<'_> {
    fn check(&mut self, digest: impl FnOnce() -> Result<Digest, Error>) {
        let path = self.names.join(".");
        let Some(source) = self.sources.get(&path) else {
            return;
        };
        self.seen += 1;
        if self.failed.is_some() {
            return;
        }
        let compared = digest().and_then(|found| match found == expected(source)? {
            true => Ok(()),
            false => Err(Error::Unverified {
                path,
                tensor: source.tensor.name.clone(),
                file: source.tensor.file.to_path_buf(),
            }),
        });
        self.failed = compared.err();
    }
}

/// The digest of the file's bytes, cast as on their way; booleans as one byte each.
fn expected(source: &Source) -> Result<Digest, Error> {
    let mut source = source.clone();
    if source.tensor.dtype == checkpoint::Dtype::Bool {
        source = Source::as_stored(source.tensor);
    }
    let mut hasher = Hasher::default();
    let mut reader = PieceReader::new(Access::Buffered);
    let mut piece = Vec::new();
    for range in source.pieces(PIECE_BYTES) {
        piece.resize((range.end - range.start) as usize, 0);
        reader.read(&source, range, &mut piece)?;
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}

macro_rules! digest_of {
    ($param:expr) => {{
        // As it came: what goes through a function on the way in goes back through another.
        let tensor = $param.transform_for_save().val();
        let mut hasher = Hasher::default();
        read_back(&tensor, &mut |piece| {
            hasher.update(piece);
            Ok::<_, Error>(())
        })?;
        Ok(hasher.finish())
    }};
}

impl<B: Backend> ModuleVisitor<B> for Verifier<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.names.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.names.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.check(|| digest_of!(param));
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        self.check(|| digest_of!(param));
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        self.check(|| digest_of!(param));
    }
}
