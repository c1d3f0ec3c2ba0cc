//! What a file or a folder is that is no checkpoint known here, and what to do with it.

mod detect;

use std::fmt;

pub use detect::is_of_adapter;
#[cfg(feature = "pth")]
pub(crate) use detect::of_zip;
pub(crate) use detect::{START_BYTES, is_adapter, of_file, of_folder};

/// What is given in place of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Foreign {
    /// A file without a byte.
    Empty,
    /// A file that begins with zeros.
    Zeros,
    /// A pointer of Git LFS.
    LfsPointer {
        /// How large the file is that it stands for.
        bytes: Option<u64>,
    },
    /// A page of HTML or XML.
    WebPage,
    /// A compressed file, with the program that unpacks it.
    Compressed(&'static str),
    /// A zip or another archive with other files in it: one of them, where they are known.
    Archive(Option<String>),
    /// What llama.cpp reads.
    Gguf,
    /// What Keras and TensorFlow save as `.h5`.
    Hdf5,
    /// An archive of Keras's.
    Keras,
    /// A checkpoint of TensorFlow's, or its SavedModel.
    TensorFlow,
    /// What Flax saves as `.msgpack`.
    Flax,
    /// A graph of ONNX.
    Onnx,
    /// Arrays of NumPy's, as `.npy` or `.npz`.
    NumPy,
    /// What `torch.save` wrote before PyTorch 1.6.
    LegacyTorch,
    /// A pickle that `torch.save` has not written.
    Pickle,
    /// An archive of `torch.jit.save`.
    TorchScript,
    /// An archive of `torch.export.save`.
    TorchExport,
    /// A folder of `torch.distributed.checkpoint`.
    DistributedTorch,
    /// A folder of DeepSpeed's.
    DeepSpeed,
    /// An adapter, such as LoRA's, without its base model.
    Adapter,
    /// What Burn's recorders write as MessagePack.
    BurnRecord,
    /// A description in JSON, by the name of its file.
    Json(&'static str),
    /// A text.
    Text,
    /// None of these.
    Unknown,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, todo): (&str, &str) = match self {
            Foreign::Empty => (
                "an empty file",
                "it may be left of a download or a copy that was interrupted: get it again",
            ),
            Foreign::Zeros => (
                "a file of zeros",
                "it may be left of a download or a copy that was interrupted: get it again",
            ),
            Foreign::LfsPointer { bytes: Some(bytes) } => {
                return write!(
                    f,
                    "is no checkpoint, but a Git LFS pointer to one of {bytes} bytes: get the file itself, with `git lfs pull`"
                );
            }
            Foreign::LfsPointer { bytes: None } => (
                "a Git LFS pointer to one",
                "get the file itself, with `git lfs pull`",
            ),
            Foreign::WebPage => (
                "a web page",
                "the download led to a page that asks for a login or tells of an error: open the file to read it",
            ),
            Foreign::Compressed(program) => {
                return write!(
                    f,
                    "is no checkpoint, but a compressed file: unpack it, with {program}"
                );
            }
            Foreign::Archive(Some(member)) => {
                return write!(
                    f,
                    "is no checkpoint, but an archive with `{member}` in it: unpack it"
                );
            }
            Foreign::Archive(None) => ("an archive", "unpack it, and open what is in it"),
            Foreign::Gguf => (
                "a GGUF file of llama.cpp",
                "open the model that it was converted from, as safetensors",
            ),
            Foreign::Hdf5 => (
                "an HDF5 file, as Keras and TensorFlow save weights",
                "open it there, and save safetensors",
            ),
            Foreign::Keras => (
                "an archive of Keras's",
                "open it there, and save safetensors",
            ),
            Foreign::TensorFlow => (
                "a checkpoint of TensorFlow's",
                "convert it, with version 4 of Hugging Face's transformers: from_pretrained(path, from_tf=True), then save_pretrained",
            ),
            Foreign::Flax => (
                "a checkpoint of Flax's",
                "convert it with version 4 of Hugging Face's transformers: from_pretrained(path, from_flax=True), then save_pretrained",
            ),
            Foreign::Onnx => (
                "a graph of ONNX",
                "open the model that it was exported from",
            ),
            Foreign::NumPy => (
                "a file of NumPy's arrays",
                "save them as safetensors, with safetensors.numpy.save_file(dict(numpy.load(path)), …)",
            ),
            Foreign::LegacyTorch => {
                return f.write_str(
                    "is in the legacy format of torch.save: load it in PyTorch and save it again, with torch.save(state_dict, \
                     path) of 1.6 or newer",
                );
            }
            Foreign::Pickle => (
                "a pickle that torch.save has not written",
                "load it in Python, and save the tensors with torch.save(state_dict, path)",
            ),
            Foreign::TorchScript => (
                "an archive of TorchScript's, a program with its weights",
                "load it with torch.jit.load, and save its weights with torch.save(model.state_dict(), path)",
            ),
            Foreign::TorchExport => (
                "an archive of torch.export's, a program with its weights",
                "load it with torch.export.load, and save its weights with torch.save(program.state_dict, path)",
            ),
            Foreign::DistributedTorch => (
                "a folder of torch.distributed.checkpoint",
                "convert it, with python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
            ),
            Foreign::DeepSpeed => (
                "a folder of DeepSpeed's",
                "consolidate it, with the zero_to_fp32.py that lies in it",
            ),
            Foreign::Adapter => (
                "an adapter (LoRA or alike) without its base model",
                "load both with PEFT, call merge_and_unload(), and save the model",
            ),
            Foreign::BurnRecord => (
                "what Burn's recorder writes",
                "load it with Burn's NamedMpkFileRecorder, and save safetensors or burnpack",
            ),
            Foreign::Json(what) => (what, "open the file with the weights, which lies beside it"),
            Foreign::Text => ("a text", "open the file with the weights"),
            Foreign::Unknown => {
                return f.write_str(
                    "is no checkpoint that is known here: safetensors, a PyTorch .pth, .pt or .bin, Burn's burnpack, a folder of \
                     per-tensor safetensors files, or the index of a sharded checkpoint",
                );
            }
        };
        write!(f, "is no checkpoint, but {what}: {todo}")
    }
}
