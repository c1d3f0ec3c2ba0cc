//! The manifest: what is to be run, read from TOML and checked before anything runs.

mod external;
mod tuning;
mod words;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use checkpoint::{Dtype, Format, read_text};
use gpt2::Size;
use lab::{DeviceSpec, Tuning};
use meter::CacheState;
use serde::Deserialize;
use toml::Spanned;

use crate::claims::{Claim, ClaimTable};
use crate::exit::Ended;
use crate::external::External;
use crate::host_cap::HostCap;
use crate::number::{self, Number};
use crate::registry;
use crate::technique::Technique;
use crate::units::ByteSize;
use external::ExternalTable;
use tuning::TuningTable;
use words::{checked, explain, parse};

/// A manifest is written by hand.
pub const MAX_BYTES: u64 = 1 << 20;
pub use words::{experiment_names, parse_device, parse_size, unknown, unknown_experiment};

/// A checked manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file's name without its extension; names the folder of the results.
    pub name: String,
    /// SHA-256 of the file's text.
    pub digest: String,
    /// The file's text: kept with the results, so that they can be judged again.
    pub text: String,
    pub experiments: Vec<&'static str>,
    pub sizes: Vec<Size>,
    /// The sizes for a device that is the CPU posing as a GPU; all of `sizes` where this is not given.
    pub software_sizes: Option<Vec<Size>>,
    pub devices: Devices,
    pub dtypes: Vec<Dtype>,
    pub cache_states: Vec<CacheState>,
    pub host_caps: HostCaps,
    pub format: Format,
    /// A checkpoint of the user's, to be loaded instead of prepared ones.
    pub checkpoint: Option<PathBuf>,
    /// The layout file that says what its tensors are called.
    pub layout: Option<PathBuf>,
    /// The path of keys to its state dict.
    pub key: Option<String>,
    pub tuning: Tuning,
    pub repeats: u32,
    /// For sizes that have a number of their own.
    pub repeats_of: Vec<(Size, u32)>,
    pub order: Order,
    pub seed: u64,
    pub limits: Limits,
    pub claims: Vec<Claim>,
    /// Commands that are run beside the experiments.
    pub externals: Vec<Arc<External>>,
}

/// Under which host caps to run.
#[derive(Debug, Clone, PartialEq)]
pub enum HostCaps {
    These(Vec<HostCap>),
    /// The smallest that each configuration survives in: searched for.
    Smallest,
}

/// Which devices to run on.
#[derive(Debug, Clone, PartialEq)]
pub enum Devices {
    /// Every usable one.
    Auto,
    These(Vec<DeviceSpec>),
}

/// In which order runs follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Each repeat is a pass over the whole matrix, in a seeded order.
    Interleaved,
    /// All repeats of an experiment behind each other.
    Grouped,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub timeout_seconds: u64,
    pub min_free_disk_bytes: u64,
    /// After this, no further run is started.
    pub budget_seconds: Option<u64>,
    /// So long claims about time that are undecided are given more repeats.
    pub decide_seconds: u64,
}

/// The file as written. Spans say where a wrong word stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    matrix: Matrix,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    tuning: TuningTable,
    #[serde(default)]
    claims: Vec<ClaimTable>,
    #[serde(default)]
    external: Vec<ExternalTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    experiments: Vec<Spanned<String>>,
    /// Not needed where there is a checkpoint, whose size is read off it.
    #[serde(default)]
    sizes: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    checkpoint: Option<PathBuf>,
    #[serde(default)]
    layout: Option<PathBuf>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    software_sizes: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    devices: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    dtypes: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    cache: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    host_caps: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    format: Option<Spanned<String>>,
    #[serde(default)]
    repeats: Option<Spanned<u64>>,
    /// Fewer or more for some sizes: `repeats_of = { xl = 1 }`.
    #[serde(default)]
    repeats_of: Option<Spanned<BTreeMap<String, u64>>>,
    #[serde(default)]
    order: Option<Order>,
    #[serde(default)]
    seed: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    timeout_seconds: Option<Spanned<u64>>,
    min_free_disk: Option<Spanned<ByteSize>>,
    budget_minutes: Option<Spanned<u64>>,
    decide_minutes: Option<Spanned<u64>>,
}

impl Manifest {
    /// Everything that is to be run on a device at a size: the experiments, and the commands that are for it.
    pub fn techniques_on(&self, device: DeviceSpec, size: Size) -> impl Iterator<Item = Technique> {
        let ours = self
            .experiments
            .iter()
            .map(|name| Technique::Ours(registry::find(name).expect("names are checked")));
        let externals = self.externals.iter();
        let theirs = externals.filter(move |external| {
            let sizes = external.sizes.as_ref();
            external.devices.contains(&device) && sizes.is_none_or(|sizes| sizes.contains(&size))
        });
        ours.chain(theirs.map(|external| Technique::External(Arc::clone(external))))
    }

    /// How often everything is run at a size.
    pub fn repeats_at(&self, size: Size) -> u32 {
        let own = self.repeats_of.iter().find(|(known, _)| *known == size);
        own.map_or(self.repeats, |(_, repeats)| *repeats)
    }

    /// The names of all of them.
    pub fn names(&self) -> Vec<&str> {
        let theirs = self.externals.iter().map(|external| &*external.name);
        self.experiments.iter().copied().chain(theirs).collect()
    }

    /// Reads and checks the manifest at `path`.
    pub fn load(path: &Path) -> anyhow::Result<Manifest> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Manifest::load_as(name.into_owned(), path)
    }

    /// Reads and checks the manifest of this name that is kept at `path`.
    pub fn load_as(name: String, path: &Path) -> anyhow::Result<Manifest> {
        let text = read_text(path, MAX_BYTES)
            .map_err(|error| Ended::Usage(format!("the manifest cannot be read: {error}")))?;
        Ok(Manifest::parse(name, &path.display().to_string(), &text).map_err(Ended::Usage)?)
    }

    /// A manifest's text, checked. `shown_path` is for messages.
    pub fn parse(name: String, shown_path: &str, text: &str) -> Result<Manifest, String> {
        let at = |span: Range<usize>, message: String| {
            let line = 1 + text[..span.start.min(text.len())].matches('\n').count();
            format!("{shown_path}:{line}: {message}")
        };
        let file: File = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            at(span, explain(error.message()))
        })?;
        let matrix = file.matrix;

        let experiments = if let [all] = &matrix.experiments[..]
            && all.get_ref() == "all"
        {
            registry::techniques()
                .map(|experiment| experiment.name)
                .collect()
        } else {
            let find = |name: &str| {
                let found = registry::find(name).map(|experiment| experiment.name);
                found.ok_or_else(|| unknown_experiment(name, experiment_names()))
            };
            checked(&matrix.experiments, find, &at)?
        };
        let sizes = match &matrix.sizes {
            Some(sizes) => checked(sizes, parse_size, &at)?,
            None if matrix.checkpoint.is_some() => Vec::new(),
            None => {
                let message = "[matrix] needs `sizes`, or a `checkpoint` to read the size off";
                return Err(at(0..0, message.to_owned()));
            }
        };
        let software_sizes = matrix.software_sizes.as_deref();
        let software_sizes = software_sizes
            .map(|sizes| checked(sizes, parse_size, &at))
            .transpose()?;
        let devices = match matrix.devices.as_deref() {
            None => Devices::Auto,
            Some([only]) if only.get_ref() == "auto" => Devices::Auto,
            Some(devices) => Devices::These(checked(devices, parse_device, &at)?),
        };
        let dtypes = matrix
            .dtypes
            .as_deref()
            .map(|dtypes| checked(dtypes, parse, &at));
        let cache_states = matrix
            .cache
            .as_deref()
            .map(|states| checked(states, parse, &at));
        let host_caps = match matrix.host_caps.as_deref() {
            None => HostCaps::These(vec![HostCap::None]),
            Some([only]) if only.get_ref() == "smallest" => HostCaps::Smallest,
            Some(caps) => HostCaps::These(checked(caps, parse, &at)?),
        };
        let externals = external::check_all(file.external, &at)?;
        let names: Vec<&str> = externals.iter().map(|external| &*external.name).collect();
        let claims = file.claims.into_iter();
        let claims = claims.map(|claim| claim.check(&names, &at));
        let claims = claims.collect::<Result<_, _>>()?;
        let format = match &matrix.format {
            None => Format::Safetensors,
            Some(format) => match parse(format.get_ref()) {
                Ok(format @ (Format::Safetensors | Format::Pth)) => format,
                Ok(other) => {
                    let message = format!(
                        "`{other}` is what some experiments read anyway: the format of the others is safetensors \
                         or pth"
                    );
                    return Err(at(format.span(), message));
                }
                Err(message) => return Err(at(format.span(), message)),
            },
        };
        let number = |number: &Number<u64>, value: &Option<Spanned<u64>>, default| match value {
            Some(value) => number
                .check(*value.get_ref())
                .map_err(|message| at(value.span(), message)),
            None => Ok(default),
        };
        let repeats_of = match &matrix.repeats_of {
            None => Vec::new(),
            Some(table) => {
                let each = table.get_ref().iter().map(|(size, repeats)| {
                    let size = parse_size(size)?;
                    match sizes.contains(&size) {
                        false => Err(format!("{size} is none of this manifest's sizes")),
                        true => Ok((size, number::REPEATS.check(*repeats)? as u32)),
                    }
                });
                let each: Result<Vec<_>, String> = each.collect();
                each.map_err(|message| at(table.span(), message))?
            }
        };
        let limits = &file.limits;
        let min_free_disk = limits.min_free_disk.as_ref().map(|size| {
            let checked = number::MIN_FREE_DISK.check(size.get_ref().0);
            checked.map_err(|message| at(size.span(), message))
        });
        let budget_minutes = number(&number::BUDGET_MINUTES, &limits.budget_minutes, 0)?;
        let decide_minutes = number(&number::DECIDE_MINUTES, &limits.decide_minutes, 5)?;
        Ok(Manifest {
            name,
            digest: sha256(text),
            text: text.to_owned(),
            experiments,
            sizes,
            software_sizes,
            devices,
            dtypes: dtypes.transpose()?.unwrap_or_else(|| vec![Dtype::F32]),
            cache_states: cache_states
                .transpose()?
                .unwrap_or_else(|| vec![CacheState::Warm]),
            host_caps,
            format,
            checkpoint: matrix.checkpoint,
            layout: matrix.layout,
            key: matrix.key,
            repeats: number(&number::REPEATS, &matrix.repeats, 3)? as u32,
            repeats_of,
            order: matrix.order.unwrap_or(Order::Interleaved),
            seed: u64::from(matrix.seed.unwrap_or(1)),
            limits: Limits {
                timeout_seconds: number(&number::TIMEOUT_SECONDS, &limits.timeout_seconds, 600)?,
                min_free_disk_bytes: min_free_disk.unwrap_or(Ok(1 << 30))?,
                budget_seconds: (budget_minutes > 0).then_some(60 * budget_minutes),
                decide_seconds: 60 * decide_minutes,
            },
            tuning: file.tuning.check(&at)?,
            claims,
            externals,
        })
    }
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse("test".to_owned(), "test.toml", text)
    }

    #[test]
    fn a_short_manifest_gets_the_defaults() {
        let text = "[matrix]\nexperiments = ['all']\nsizes = ['small', 'v9-c8-e4-l1-h2']\n";
        let manifest = parse(text).unwrap();
        assert_eq!(manifest.experiments.len(), registry::techniques().count());
        assert_eq!(manifest.devices, Devices::Auto);
        assert_eq!((manifest.repeats, manifest.order), (3, Order::Interleaved));
        assert_eq!(manifest.dtypes, [Dtype::F32]);
    }

    #[test]
    #[cfg_attr(
        not(feature = "stores"),
        ignore = "one names experiments of the feature `stores`"
    )]
    fn every_manifest_of_the_house_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        let files = std::fs::read_dir(folder).unwrap().flatten();
        let read = files.map(|file| Manifest::load(&file.path()).unwrap());
        assert!(read.count() >= 8);
    }

    #[test]
    fn a_wrong_word_is_named_with_its_line_and_the_nearest_valid_one() {
        let cases = [
            (
                "experiments = ['naiv']\nsizes = ['small']",
                ":2: unknown experiment `naiv`; did you mean `naive`?",
            ),
            (
                "experiments = ['all']\nsizes = ['smal']",
                ":3: unknown size `smal`",
            ),
            (
                "experiments = ['all']\nsizes = ['smal']",
                "did you mean `small`?",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\ndevices = ['vulcan']",
                ":4: unknown device `vulcan`",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\nrepeat = 3",
                ":4: unknown key `repeat`; did you mean `repeats`?",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\nrepeats = 0",
                ":4: repeats is 0: it must be from 1 to 10000",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\norder = 'interleavd'",
                "did you mean `interleaved`?",
            ),
            (
                "experiments = ['all']\nsizes = ['small', 'small']",
                ":3: `small` stands here twice",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\nformat = 'per-tensor'",
                ":4: `per-tensor`",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\nhost_caps = ['none', '2GB']",
                ":4: `2GB` is no host cap",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\ncache = ['hot']",
                ":4: unknown cache state `hot`",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\n[tuning]\nstaging = '1KiB'",
                ":5: staging is 1024: it must be from 32768 to",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\n[tuning]\nthreads = 0",
                ":5: threads is 0: it must be from 1 to 1024",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\n[tuning]\nthread = 2",
                "did you mean `threads`?",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\nrepeats_of = { xl = 1 }",
                ":4: xl is none of this manifest's sizes",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\nrepeats_of = { small = 0 }",
                ":4: repeats is 0",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\nrepeats = 4000000000",
                ":4: repeats is 4000000000",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\n[limits]\ntimeout_seconds = 9223372036854775807",
                ":5: timeout_seconds is 9223372036854775807",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\n[limits]\nbudget_minutes = -1",
                ":5: ",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\n[limits]\nmin_free_disk = '1e300GiB'",
                ":5: ",
            ),
            (
                "experiments = ['all']\nsizes = ['small']\nhost_caps = ['1e300x']",
                ":4: `1e300x` is no host cap",
            ),
            (
                "experiments = ['all']\nsizes = ['v9-c8-e4-l4000000000-h2']",
                ":3: unknown size",
            ),
            ("experiments = []\nsizes = ['small']", "nothing to run"),
            ("experiments = ['all'", "test.toml:"),
        ];
        for (body, expected) in cases {
            let error = parse(&format!("[matrix]\n{body}\n")).unwrap_err();
            assert!(
                error.contains(expected),
                "{error}\nshould contain {expected}"
            );
            assert!(error.starts_with("test.toml:"), "{error}");
        }
    }
}
