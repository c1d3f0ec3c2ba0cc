//! The named MessagePack recorder, as Burn's book saves and loads a model. (Recorders are gone in Burn 0.22.)

use burn::module::Module;
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder};
use checkpoint::{Dtype, Format};
use gpt2::Gpt2;
use lab::{
    Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Reads, Run, Target,
};

/// See the crate's documentation.
pub struct Recorder;

impl Experiment for Recorder {
    const NAME: &'static str = "recorder";
    const SUMMARY: &'static str =
        "Burn's named MessagePack recorder, as its book saves and loads a model";
    const READS: Reads = Reads::Only(Format::NamedMpk);

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            MemoryModel::Discrete => {
                Contract::discrete(size.model_bytes + size.upload_bytes(), size.model_bytes)
                    .whatever_pools_hold()
            }
            MemoryModel::Unified => {
                Contract::unified(size.model_bytes + 3 * size.largest_tensor_bytes)
            }
        }
    }

    fn applies(target: Target) -> Result<(), &'static str> {
        match target.dtype {
            Dtype::F32 => Ok(()),
            _ => Err("it is saved at full precision, which is f32"),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        run.check_unsharded(&mut model)?;
        run.enter(Phase::Read);
        let recorder = NamedMpkFileRecorder::<FullPrecisionSettings>::new();
        let path = run.checkpoint_path().to_owned();
        let loaded = model.load_file(path, &recorder, &run.device);
        loaded.map_err(|error| Error::store("burn", run.checkpoint_path(), &error))
    }
}
