//! An adapter that lies beside a model: transformers applies it to the model, and it is not applied here.

use std::path::Path;

use anyhow::bail;

/// What says of a folder that it has an adapter.
const CONFIGURATION: &str = "adapter_config.json";
/// Where the weights of one lie. Nothing applies them to a file that is opened by its name.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// That no adapter belongs to the model in this folder or file: without it, another model is computed.
pub fn refuse(given: &Path) -> anyhow::Result<()> {
    let is_folder = given.is_dir();
    let folder = match is_folder {
        true => given,
        false => given.parent().unwrap_or(Path::new("")),
    };
    let weights = WEIGHTS.iter().filter(|_| is_folder);
    let mut marks = std::iter::once(&CONFIGURATION).chain(weights);
    let there = marks.find(|name| folder.join(name).symlink_metadata().is_ok());
    let Some(there) = there else {
        return Ok(());
    };
    let alone = match is_folder {
        true => "",
        false => "; to load this file without it, copy the file to a folder of its own",
    };
    bail!(
        "{}: an adapter (PEFT) belongs to this model and is not applied here: merge it (merge_and_unload) or move it away{alone}",
        folder.join(there).display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_beside_a_model_is_refused_by_its_file() {
        for (there, of_folder, of_file) in [
            ("adapter_config.json", true, true),
            ("adapter_model.safetensors", true, false),
            ("adapter_model.bin", true, false),
            ("config.json", false, false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(there), "{}").unwrap();
            for (given, is_refused) in [
                (folder.path().to_owned(), of_folder),
                (folder.path().join("model.safetensors"), of_file),
            ] {
                let refused = refuse(&given);
                assert_eq!(refused.is_err(), is_refused, "{there}: {given:?}");
                if let Err(error) = refused {
                    let error = error.to_string();
                    assert!(
                        error.contains(there) && error.contains("merge_and_unload"),
                        "{error}"
                    );
                }
            }
        }
    }
}
