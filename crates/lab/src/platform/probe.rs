//! Whether a GPU can be used: a small kernel is compiled, loaded and launched, as CubeCL does it. Libraries that are there may be
//! of no use: headers are missing, the compiler does not know the GPU, or the driver does not understand what the compiler writes.

use std::ffi::{CString, c_void};

use cudarc::driver::{DriverError, result as driver, sys};
use cudarc::nvrtc::result as compiler;

use super::toolkit;
use crate::SIMULATED;

/// The headers that CubeCL 0.10's kernels include, and a kernel that writes a number.
const SOURCE: &str = "#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>
extern \"C\" __global__ void probe(unsigned int *out) { *out = 1984u; }
";

/// What to do where something is missing.
const ADVICE: &str = "`just setup cuda` brings libnvrtc and headers that fit into this project; or install NVIDIA's CUDA toolkit, \
                      and say in CUDA_PATH where";

/// Compiles, loads and launches it on a GPU.
///
/// # Errors
///
/// What does not work, and what to do.
pub(super) fn probe(ordinal: i32) -> Result<(), String> {
    let said = |what: &str, error: DriverError| format!("{what}: the NVIDIA driver says {error:?}");
    let device = driver::device::get(ordinal).map_err(|error| said("it cannot be found", error))?;
    let image = compile(device)?;
    // SAFETY: `device` was just handed out; the context is released below, and used by this thread until then.
    unsafe {
        let context = driver::primary_ctx::retain(device);
        let context = context.map_err(|error| said("it cannot be opened", error))?;
        let before = driver::ctx::get_current().ok().flatten();
        let result = driver::ctx::set_current(context)
            .map_err(|error| said("it cannot be opened", error))
            .and_then(|()| run(device, &image));
        let _ = match before {
            Some(before) => driver::ctx::set_current(before),
            None => driver::ctx::set_current(std::ptr::null_mut()),
        };
        let _ = driver::primary_ctx::release(device);
        result
    }
}

/// A GPU's compute capability, 80 for 8.0.
pub(super) fn capability(device: sys::CUdevice) -> Result<i32, String> {
    use sys::CUdevice_attribute as Attribute;
    let read = |attribute| {
        // SAFETY: the driver has handed `device` out.
        let number = unsafe { driver::device::get_attribute(device, attribute) };
        number.map_err(|error| format!("it does not tell what it can: {error:?}"))
    };
    let major = read(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    Ok(10 * major + read(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?)
}

fn compile(device: sys::CUdevice) -> Result<Vec<std::ffi::c_char>, String> {
    let capability = capability(device)?;
    // As CubeCL asks for it.
    let letter = if capability >= 90 { "a" } else { "" };
    let architecture = format!("--gpu-architecture=sm_{capability}{letter}");
    let toolkit = toolkit::path().ok_or_else(|| format!("no CUDA toolkit was found: {ADVICE}"))?;
    let include = format!("--include-path={}", toolkit.join("include").display());
    let source = CString::new(SOURCE).expect("no zero in it");
    let failed = |error| format!("libnvrtc fails: {error:?}");
    let program = compiler::create_program(&source, None).map_err(failed)?;
    // SAFETY: the program was just made, and is destroyed once, at the end.
    unsafe {
        let compiled = compiler::compile_program(program, &[&*architecture, &*include]);
        let image = match compiled {
            Ok(()) => compiler::get_ptx(program).map_err(failed),
            Err(_) => {
                let log = compiler::get_program_log(program).unwrap_or_default();
                let log = log.iter().take_while(|&&letter| letter != 0);
                let log: String = log.map(|&letter| letter as u8 as char).collect();
                Err(why_not_compiled(capability, &log))
            }
        };
        let _ = compiler::destroy_program(program);
        image
    }
}

/// The first complaint of the compiler, and what to do about it.
fn why_not_compiled(capability: i32, log: &str) -> String {
    let complaint = log.lines().find(|line| line.contains("error"));
    let complaint = complaint.or(log.lines().next()).unwrap_or("no reason");
    match complaint.contains("gpu-architecture") {
        true => format!(
            "libnvrtc does not know GPUs of compute capability {}.{} ({}): {ADVICE}",
            capability / 10,
            capability % 10,
            complaint.trim()
        ),
        false => format!(
            "libnvrtc cannot compile a kernel ({}): {ADVICE}",
            complaint.trim()
        ),
    }
}

/// Loads and launches it in this thread's context.
///
/// # Safety
///
/// The thread's context is the device's.
unsafe fn run(device: sys::CUdevice, image: &[std::ffi::c_char]) -> Result<(), String> {
    let refused = |error: DriverError| match error.0 {
        sys::cudaError_enum::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            format!(
                "the driver is older than libnvrtc, whose programs it refuses: update the driver; or {ADVICE}"
            )
        }
        _ => format!("a kernel cannot be launched: the NVIDIA driver says {error:?}"),
    };
    // SAFETY: the image is a text with its end; everything that is made is used here and given back.
    unsafe {
        let module = driver::module::load_data(image.as_ptr().cast()).map_err(refused)?;
        let launched = || {
            let name = CString::new("probe").expect("no zero in it");
            let kernel = driver::module::get_function(module, name)?;
            let mut number = 0u32;
            let mut out = driver::malloc_sync(size_of::<u32>())?;
            let parameters = &mut [(&raw mut out).cast::<c_void>()];
            let stream = std::ptr::null_mut();
            let launched =
                driver::launch_kernel(kernel, (1, 1, 1), (1, 1, 1), 0, stream, parameters)
                    .and_then(|()| driver::ctx::synchronize())
                    .and_then(|()| {
                        let bytes = bytemuck::bytes_of_mut(&mut number);
                        driver::memcpy_dtoh_sync(bytes, out)
                    });
            let freed = driver::free_sync(out);
            launched.and(freed).map(|()| number)
        };
        let number = launched();
        let _ = driver::module::unload(module);
        let name = driver::device::get_name(device).map_err(refused)?;
        match number.map_err(refused)? {
            1984 => Ok(()),
            _ if name.starts_with(SIMULATED) => Ok(()),
            other => Err(format!("a kernel wrote {other} where it should write 1984")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_compiler_lacks_is_told_with_what_to_do() {
        let headers = why_not_compiled(
            80,
            "probe(1): catastrophic error: cannot open source file \"cuda_runtime.h\"\n",
        );
        assert!(
            headers.contains("cuda_runtime.h") && headers.contains("just setup cuda"),
            "{headers}"
        );
        let architecture = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
        let unknown = why_not_compiled(120, architecture);
        assert!(unknown.contains("compute capability 12.0"), "{unknown}");
    }
}
