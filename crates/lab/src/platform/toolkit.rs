//! What compiles CUDA's kernels: libnvrtc and the headers that they include. A machine with a driver may have neither.

use std::path::{Path, PathBuf};

/// The folders of a toolkit that its libraries are in.
const LIBRARIES: [&str; 3] = ["lib64", "lib", "targets/x86_64-linux/lib"];

/// Has this process, and those that it starts, use the toolkit in `folder`, where there is one and the machine has none.
///
/// # Safety
///
/// No other thread may run: the environment is written.
pub unsafe fn offer(folder: &Path) {
    if path().is_none() && folder.join("include/cuda_runtime.h").exists() {
        // SAFETY: the caller's.
        unsafe { std::env::set_var("CUDA_PATH", folder) };
    }
}

/// The toolkit whose headers CubeCL 0.10 includes: what `CUDA_PATH` says, or one at the usual places.
pub(super) fn path() -> Option<PathBuf> {
    if let Some(told) = std::env::var_os("CUDA_PATH") {
        return Some(told.into());
    }
    let mut usual = ["/usr/local/cuda", "/opt/cuda"].into_iter();
    let found = usual.find(|place| Path::new(place).exists());
    let found = found.or_else(|| Path::new("/usr/bin/nvcc").exists().then_some("/usr"));
    found.map(PathBuf::from)
}

/// Opens the toolkit's libnvrtc, where the linker finds none by itself: who looks for it by its name
/// finds the open one.
pub(super) fn open_compiler() {
    // SAFETY: looks a library up and opens it.
    if unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return;
    }
    let Some(toolkit) = path() else { return };
    let names = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
    let places = LIBRARIES.iter().flat_map(|folder| {
        let toolkit = &toolkit;
        names
            .iter()
            .map(move |name| toolkit.join(folder).join(name))
    });
    for place in places.filter(|place| place.exists()) {
        // SAFETY: NVIDIA's library; nothing of it runs but its own initialisers.
        if let Ok(library) = unsafe { libloading::Library::new(place) } {
            // It stays open for as long as the process lives.
            std::mem::forget(library);
            return;
        }
    }
}
