//! What is looked at in a compiled program: which driver and device it needs, and the kernels in it.

use crate::{Code, NO_BINARY_FOR_GPU, UNSUPPORTED_PTX_VERSION};

/// A program in PTX that was loaded.
pub struct Image {
    kernels: Vec<String>,
}

/// The newest PTX that a driver of this CUDA understands (CUDA's PTX manual, "Release History").
fn newest_ptx(driver: i32) -> (u32, u32) {
    match (driver / 1000, driver % 1000 / 10) {
        (12, minor @ 0..=5) => (8, minor as u32),
        (12, 6) => (8, 5),
        (12, 7) => (8, 6),
        (12, minor) => (8, minor as u32 - 1),
        (13, minor) => (9, minor as u32),
        (older, _) if older < 12 => (7, 8),
        _ => (99, 0),
    }
}

impl Image {
    pub fn load(text: &str, driver: i32, capability: i32) -> Result<Image, Code> {
        let after = |word| {
            let mut lines = text.lines();
            lines.find_map(|line| line.trim().strip_prefix(word))
        };
        let version = after(".version ").and_then(|version| {
            let (major, minor) = version.trim().split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        if version.is_none_or(|version: (u32, u32)| version > newest_ptx(driver)) {
            return Err(UNSUPPORTED_PTX_VERSION);
        }
        let target = after(".target sm_").map(|target| target.split(',').next().unwrap_or(target));
        // A target with a letter is of that device alone.
        let fits = target.map(str::trim).is_some_and(|target| {
            let digits = target.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
            match (digits.parse::<i32>(), digits == target) {
                (Ok(target), true) => target <= capability,
                (Ok(target), false) => target == capability,
                _ => false,
            }
        });
        if !fits {
            return Err(NO_BINARY_FOR_GPU);
        }
        let kernels = text.lines().filter_map(|line| {
            let (_, behind) = line.split_once(".entry ")?;
            Some(behind.trim().trim_end_matches('(').to_owned())
        });
        Ok(Image {
            kernels: kernels.collect(),
        })
    }

    pub fn has(&self, kernel: &str) -> bool {
        self.kernels.iter().any(|one| one == kernel)
    }
}
