//! Telling it by the first bytes, and by names.

use std::path::Path;

use super::Foreign;

/// How many of a file's first bytes [`of_file`] looks at.
pub(crate) const START_BYTES: usize = 512;

/// What a file is, by its name and its first bytes.
pub(crate) fn of_file(path: &Path, start: &[u8]) -> Foreign {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    by_bytes(start)
        .or_else(|| by_name(&name, start))
        .or_else(|| by_text(&name, start))
        .unwrap_or(Foreign::Unknown)
}

fn by_bytes(start: &[u8]) -> Option<Foreign> {
    // The magic number of torch.save before 1.6, in a pickle of any protocol.
    const LEGACY: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    let legacy = |start: &[u8]| start.windows(LEGACY.len()).any(|bytes| bytes == LEGACY);
    Some(match start {
        [] => Foreign::Empty,
        [0x1f, 0x8b, ..] => Foreign::Compressed("gunzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Foreign::Compressed("zstd -d"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Foreign::Compressed("unxz"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Foreign::Compressed("bunzip2"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Foreign::Compressed("lz4 -d"),
        [b'7', b'z', 0xbc, 0xaf, ..] | [b'R', b'a', b'r', b'!', ..] => Foreign::Archive(None),
        start if start.get(257..262) == Some(b"ustar") => Foreign::Archive(None),
        [b'G', b'G', b'U', b'F', ..] => Foreign::Gguf,
        // What came before it.
        [b'l' | b't' | b'f', b'm' | b'j', b'g', b'g', ..] => Foreign::Gguf,
        [0x89, b'H', b'D', b'F', b'\r', b'\n', ..] => Foreign::Hdf5,
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Foreign::NumPy,
        [0x80, 2..=5, rest @ ..] => match legacy(&rest[..rest.len().min(32)]) {
            true => Foreign::LegacyTorch,
            false => Foreign::Pickle,
        },
        // Its version, and the name of who made it.
        [0x08, 1..=0x20, 0x12, length, name @ ..]
            if name.len() >= usize::from(*length)
                && name[..usize::from(*length)].is_ascii()
                && *length > 0 =>
        {
            Foreign::Onnx
        }
        start if start.len() >= 8 && start.iter().all(|byte| *byte == 0) => Foreign::Zeros,
        _ => return None,
    })
}

fn by_name(name: &str, start: &[u8]) -> Option<Foreign> {
    let ends = |with: &str| name.ends_with(with);
    Some(match name {
        _ if is_tensorflows(name) => Foreign::TensorFlow,
        _ if ends(".onnx") => Foreign::Onnx,
        _ if ends(".mpk") || ends(".mpk.gz") => Foreign::BurnRecord,
        _ if ends(".msgpack") => Foreign::Flax,
        _ if ends(".distcp") => Foreign::DistributedTorch,
        // TensorFlow's list of checkpoints.
        "checkpoint" if start.starts_with(b"model_checkpoint_path") => Foreign::TensorFlow,
        _ => return None,
    })
}

/// `model.ckpt-100.index`, `model.ckpt.data-00000-of-00001`, `model.ckpt.meta`, `saved_model.pb`.
fn is_tensorflows(name: &str) -> bool {
    let data = name.rsplit_once(".data-");
    let is_data = data.is_some_and(|(_, part)| part.contains("-of-"));
    let is_beside = name.contains(".ckpt") && (name.ends_with(".index") || name.ends_with(".meta"));
    is_data || is_beside || name == "saved_model.pb"
}

fn by_text(name: &str, start: &[u8]) -> Option<Foreign> {
    // A character may be cut at the end.
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if start.len() - error.valid_up_to() < 4 => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let is_control = |character: char| character.is_control() && !character.is_whitespace();
    if text.contains(is_control) {
        return None;
    }
    if let Some(rest) = text.strip_prefix("version https://git-lfs.github.com/spec/") {
        let mut lines = rest.lines().filter_map(|line| line.strip_prefix("size "));
        let bytes = lines.next().and_then(|size| size.trim().parse().ok());
        return Some(Foreign::LfsPointer { bytes });
    }
    let lower = text.get(..64).unwrap_or(text).to_ascii_lowercase();
    if ["<!doctype", "<html", "<?xml", "<head", "<body"]
        .iter()
        .any(|tag| lower.starts_with(tag))
    {
        return Some(Foreign::WebPage);
    }
    if !text.starts_with(['{', '[']) {
        return Some(Foreign::Text);
    }
    Some(Foreign::Json(match name {
        "config.json" | "generation_config.json" | "hparams.json" => "the configuration of a model",
        "adapter_config.json" => "the configuration of an adapter",
        _ if name.contains("tokenizer")
            || matches!(
                name,
                "vocab.json" | "encoder.json" | "special_tokens_map.json"
            ) =>
        {
            "a part of a tokenizer"
        }
        _ => "a text in JSON",
    }))
}

/// What a folder is in which there is no checkpoint, by the names in it.
pub(crate) fn of_folder(names: &[String]) -> Option<Foreign> {
    let any = |is: &dyn Fn(&str) -> bool| names.iter().any(|name| is(name));
    let has = |wanted: &str| any(&|name| name == wanted);
    Some(match () {
        () if has("adapter_config.json") || any(&is_adapter_file) => Foreign::Adapter,
        () if any(&|name| name.ends_with(".distcp")) => Foreign::DistributedTorch,
        () if has("zero_to_fp32.py")
            || any(&|name| name.contains("mp_rank_") && name.ends_with(".pt")) =>
        {
            Foreign::DeepSpeed
        }
        () if any(&is_tensorflows) => Foreign::TensorFlow,
        () if any(&|name| name.ends_with(".gguf")) => Foreign::Gguf,
        () if has("flax_model.msgpack") => Foreign::Flax,
        () if any(&|name| name.ends_with(".h5")) => Foreign::Hdf5,
        () if any(&|name| name.ends_with(".onnx")) => Foreign::Onnx,
        () => return None,
    })
}

#[cfg(feature = "pth")]
/// What a zip is that `torch.save` has not written, by the names in it.
pub(crate) fn of_zip(names: &[String]) -> Foreign {
    let ends = |with: &str| names.iter().any(|name| name.ends_with(with));
    let is_checkpoint = |name: &&String| {
        let ends = [
            ".pth",
            ".pt",
            ".bin",
            ".ckpt",
            ".safetensors",
            ".bpk",
            ".gguf",
            ".h5",
        ];
        ends.iter().any(|end| name.ends_with(end))
    };
    match () {
        () if !names.is_empty() && names.iter().all(|name| name.ends_with(".npy")) => {
            Foreign::NumPy
        }
        () if ends("model.weights.h5") => Foreign::Keras,
        () if ends("serialized_exported_program.json") || ends("archive_format") => {
            Foreign::TorchExport
        }
        () => Foreign::Archive(names.iter().find(is_checkpoint).or(names.first()).cloned()),
    }
}

/// Whether these are the tensors of an adapter: every one is, or its file is named so.
pub(crate) fn is_adapter<'a>(path: &Path, mut names: impl Iterator<Item = &'a str>) -> bool {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let mut all = || names.next().is_some_and(is_of_adapter) && names.all(is_of_adapter);
    is_adapter_file(&file) || all()
}

/// Whether a tensor is called as PEFT calls those of adapters: LoRA's and its relatives'.
pub fn is_of_adapter(name: &str) -> bool {
    const PARTS: [&str; 11] = [
        "lora_A",
        "lora_B",
        "lora_up",
        "lora_down",
        "lora_embedding",
        "lora_magnitude",
        "ia3_l",
        "hada_w",
        "lokr_w",
        "oft_r",
        "vera_lambda",
    ];
    PARTS.iter().any(|part| name.contains(part))
}

fn is_adapter_file(name: &str) -> bool {
    matches!(name, "adapter_model.safetensors" | "adapter_model.bin")
}
