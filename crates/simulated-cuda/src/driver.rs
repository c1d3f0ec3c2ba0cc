//! The functions of libcuda that CubeCL and this workspace call. One that is not here is a missing symbol to who looks for it.

#![allow(non_snake_case, clippy::missing_safety_doc)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::faults::{Call, Verdict};
use crate::image::Image;
use crate::work::{Copy, Side, Task};
use crate::{
    Code, ILLEGAL_ADDRESS, INVALID_CONTEXT, INVALID_DEVICE, INVALID_HANDLE, INVALID_VALUE, Machine,
    NO_DEVICE, NOT_FOUND, NOT_INITIALIZED, NOT_READY, OUT_OF_MEMORY, SUCCESS, machine,
};

thread_local! {
    /// This thread's context: a device, and one.
    static CONTEXT: Cell<usize> = const { Cell::new(0) };
}

/// The device of this thread's context.
fn current() -> Result<usize, Code> {
    CONTEXT.get().checked_sub(1).ok_or(INVALID_CONTEXT)
}

fn code(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(SUCCESS)
}

/// Whether a call is to fail; one that hangs does so without holding up whoever asks for something else.
fn meet(call: Call) -> Result<(), Code> {
    // The guard must be gone before the match's arms.
    let verdict = machine().faults.meet(call);
    match verdict {
        Verdict::GoOn => Ok(()),
        Verdict::Fail(code) => Err(code),
        Verdict::Hang => loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        },
    }
}

/// Does it, unless nothing may be done yet, or an error has stuck. An address that is wrong sticks.
fn with(work: impl FnOnce(&mut Machine) -> Result<(), Code>) -> Code {
    let machine = &mut *machine();
    if !machine.is_initialised {
        return NOT_INITIALIZED;
    }
    if let Some(code) = machine.faults.stuck() {
        return code;
    }
    let result = work(machine);
    if result == Err(ILLEGAL_ADDRESS) {
        machine.faults.stick(ILLEGAL_ADDRESS);
    }
    code(result)
}

/// Writes a result where the caller wants it.
///
/// # Safety
///
/// `to` is null, or can be written.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller's.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a text, as much as there is room for, and its end.
///
/// # Safety
///
/// `length` bytes can be written at `to`.
unsafe fn put_text(to: *mut c_char, length: c_int, text: &str) -> Result<(), Code> {
    let room = usize::try_from(length).map_err(|_| INVALID_VALUE)?;
    if to.is_null() || room == 0 {
        return Err(INVALID_VALUE);
    }
    let bytes = text.bytes().take(room - 1).chain([0]);
    for (at, byte) in bytes.enumerate() {
        // SAFETY: the caller's; `at` is below `length`.
        unsafe { to.add(at).write(byte as c_char) };
    }
    Ok(())
}

/// A pool's handle is its device, and one.
fn device_of_pool(pool: usize) -> Result<usize, Code> {
    pool.checked_sub(1).ok_or(INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(_flags: c_uint) -> Code {
    let mut machine = machine();
    machine.is_initialised = machine.settings.devices > 0;
    match machine.is_initialised {
        true => code(machine.faults.stuck().map_or(Ok(()), Err)),
        false => NO_DEVICE,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Code {
    let driver = machine().settings.driver;
    // SAFETY: the caller's.
    code(unsafe { put(version, driver) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Code {
    // SAFETY: the caller's.
    with(|machine| unsafe { put(count, machine.settings.devices) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Code {
    with(
        |machine| match (0..machine.settings.devices).contains(&ordinal) {
            // SAFETY: the caller's.
            true => unsafe { put(device, ordinal) },
            false => Err(INVALID_DEVICE),
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) -> Code {
    let capability = machine().settings.capability;
    let text = format!("simulated GPU, sm_{capability}");
    // SAFETY: the caller's.
    code(unsafe { put_text(name, length, &text) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(
    text: *mut c_char,
    length: c_int,
    device: c_int,
) -> Code {
    // SAFETY: the caller's.
    code(unsafe { put_text(text, length, &bus(device)) })
}

/// The address of a device on its bus.
pub fn bus(device: c_int) -> String {
    format!("0000:{:02X}:00.0", device + 1)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> Code {
    let limit = machine().memory.limit();
    // SAFETY: the caller's.
    code(unsafe { put(bytes, limit as usize) })
}

/// Numbers of CUDA's manual ("CUdevice_attribute"), and of its tables of compute capabilities.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    _device: c_int,
) -> Code {
    let capability = machine().settings.capability;
    let number = match attribute {
        // Threads of a block; a block's and a grid's dimensions.
        1..=3 => 1024,
        4 => 64,
        5 => c_int::MAX,
        6 | 7 => 65535,
        // A warp; multiprocessors.
        10 => 32,
        16 => 108,
        75 => capability / 10,
        76 => capability % 10,
        // Shared memory that a block can opt in to.
        97 => match capability {
            ..=75 => 64 << 10,
            86 | 89 | 120 => 99 << 10,
            80 | 87 => 163 << 10,
            _ => 227 << 10,
        },
        // Memory pools.
        115 => 1,
        _ => 0,
    };
    // SAFETY: the caller's.
    code(unsafe { put(value, number) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> Code {
    // SAFETY: the caller's.
    with(|_| unsafe { put(context, device as usize + 1) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> Code {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: usize) -> Code {
    CONTEXT.set(context);
    code(machine().faults.stuck().map_or(Ok(()), Err))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> Code {
    // SAFETY: the caller's.
    code(unsafe { put(context, CONTEXT.get()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSynchronize() -> Code {
    if let Err(code) = meet(Call::Sync) {
        return code;
    }
    with(|machine| {
        machine.work.finish_all(&mut machine.memory)?;
        machine.memory.trim(current()?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut u64, _flags: c_uint) -> Code {
    // SAFETY: the caller's.
    with(|machine| unsafe {
        current()?;
        put(stream, machine.work.create_stream())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: u64) -> Code {
    if let Err(code) = meet(Call::Sync) {
        return code;
    }
    with(|machine| {
        machine.work.finish_stream(stream, &mut machine.memory)?;
        machine.memory.trim(current()?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: u64, event: u64, _flags: c_uint) -> Code {
    with(|machine| {
        let work = &mut machine.work;
        work.wait_event(stream, event, &mut machine.memory)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut u64, _flags: c_uint) -> Code {
    // SAFETY: the caller's.
    with(|machine| unsafe { put(event, machine.work.create_event()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: u64, stream: u64) -> Code {
    with(|machine| machine.work.record(event, stream, &mut machine.memory))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: u64) -> Code {
    if let Err(code) = meet(Call::Sync) {
        return code;
    }
    with(|machine| machine.work.finish_event(event, &mut machine.memory))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: u64) -> Code {
    with(|machine| match machine.work.is_over(event)? {
        true => Ok(()),
        false => Err(NOT_READY),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: u64) -> Code {
    machine().work.destroy_event(event)
}

/// Memory of this thread's device. Where there is none, what was freed and is still to be is waited for.
fn allocate(address: *mut u64, bytes: usize, is_pooled: bool) -> Code {
    if let Err(code) = meet(Call::Alloc) {
        return code;
    }
    with(|machine| {
        let device = current()?;
        let (memory, work) = (&mut machine.memory, &mut machine.work);
        let allocated = match memory.allocate(device, bytes as u64, is_pooled) {
            Err(OUT_OF_MEMORY) => {
                work.finish_all(memory)?;
                memory.allocate(device, bytes as u64, is_pooled)
            }
            other => other,
        };
        // SAFETY: the caller of the function that this serves promises it.
        unsafe { put(address, allocated?) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, _stream: u64) -> Code {
    allocate(address, bytes, true)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> Code {
    allocate(address, bytes, false)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(address: u64, stream: u64) -> Code {
    with(|machine| {
        let work = &mut machine.work;
        work.submit(stream, Task::Free(address), &mut machine.memory)
    })
}

/// It waits for everything, as CUDA does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: u64) -> Code {
    with(|machine| {
        machine.work.finish_all(&mut machine.memory)?;
        machine.memory.free(address)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    with(|machine| {
        let (limit, used) = (machine.memory.limit(), machine.memory.used(current()?));
        // SAFETY: the caller's.
        unsafe {
            put(free, (limit - used.total()) as usize)?;
            put(total, limit as usize)
        }
    })
}

fn lock_pages(address: *mut usize, bytes: usize) -> Code {
    if let Err(code) = meet(Call::Lock) {
        return code;
    }
    // SAFETY: the caller of the function that this serves promises it.
    with(|machine| unsafe { put(address, machine.memory.lock(bytes)?) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(address: *mut usize, bytes: usize) -> Code {
    lock_pages(address, bytes)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(address: *mut usize, bytes: usize, _flags: c_uint) -> Code {
    lock_pages(address, bytes)
}

/// Memory that a copy is still to read or write must not be freed: nothing says that CUDA waits for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(address: usize) -> Code {
    let machine = &mut *machine();
    let copies = machine.work.copies_with(address, &machine.memory);
    if copies > 0 {
        eprintln!("simulated CUDA: page-locked memory is freed under {copies} copies");
        std::process::abort();
    }
    machine.memory.unlock(address)
}

/// Has a copy made, and waits for it where it is not asynchronous.
fn copy(copy: Copy, stream: Option<u64>) -> Code {
    if let Err(code) = meet(Call::Copy) {
        return code;
    }
    with(|machine| {
        let (work, memory) = (&mut machine.work, &mut machine.memory);
        work.submit(stream.unwrap_or(0), Task::Copy(copy), memory)?;
        match stream {
            Some(_) => Ok(()),
            None => work.finish_stream(0, memory),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: usize,
    bytes: usize,
    stream: u64,
) -> Code {
    let flat = Copy::flat(Side::Host(from), Side::Device(to), bytes);
    copy(flat, Some(stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: usize,
    from: u64,
    bytes: usize,
    stream: u64,
) -> Code {
    let flat = Copy::flat(Side::Device(from), Side::Host(to), bytes);
    copy(flat, Some(stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(
    to: u64,
    from: u64,
    bytes: usize,
    stream: u64,
) -> Code {
    let flat = Copy::flat(Side::Device(from), Side::Device(to), bytes);
    copy(flat, Some(stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: usize, bytes: usize) -> Code {
    let flat = Copy::flat(Side::Host(from), Side::Device(to), bytes);
    copy(flat, None)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: usize, from: u64, bytes: usize) -> Code {
    let flat = Copy::flat(Side::Device(from), Side::Host(to), bytes);
    copy(flat, None)
}

/// One side of `CUDA_MEMCPY2D`.
#[repr(C)]
pub struct Plane {
    x_bytes: usize,
    y: usize,
    /// 1 for the host, 2 for the device.
    kind: c_int,
    host: usize,
    device: u64,
    array: *mut c_void,
    pitch: usize,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
pub struct Copy2d {
    from: Plane,
    to: Plane,
    width_bytes: usize,
    height: usize,
}

impl Plane {
    fn side(&self) -> Result<Side, Code> {
        let behind = self.y * self.pitch + self.x_bytes;
        match self.kind {
            1 => Ok(Side::Host(self.host + behind)),
            2 => Ok(Side::Device(self.device + behind as u64)),
            _ => Err(INVALID_VALUE),
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2DAsync_v2(asked: *const Copy2d, stream: u64) -> Code {
    // SAFETY: the caller's.
    let asked = unsafe { &*asked };
    match (asked.from.side(), asked.to.side()) {
        (Ok(from), Ok(to)) => copy(
            Copy {
                from,
                to,
                width: asked.width_bytes,
                height: asked.height,
                from_pitch: asked.from.pitch,
                to_pitch: asked.to.pitch,
            },
            Some(stream),
        ),
        _ => INVALID_VALUE,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_char) -> Code {
    if let Err(code) = meet(Call::Load) {
        return code;
    }
    with(|machine| {
        // SAFETY: the caller's: a text with an end.
        let text = unsafe { CStr::from_ptr(image) }.to_string_lossy();
        let settings = &machine.settings;
        let image = Image::load(&text, settings.driver, settings.capability)?;
        machine.images.push(image);
        machine.memory.log(format_args!("loaded a program"));
        // SAFETY: the caller's.
        unsafe { put(module, machine.images.len()) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(_module: usize) -> Code {
    with(|_| Ok(()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    module: usize,
    name: *const c_char,
) -> Code {
    with(|machine| {
        let image = module.checked_sub(1).and_then(|at| machine.images.get(at));
        let image = image.ok_or(INVALID_HANDLE)?;
        // SAFETY: the caller's: a text with an end.
        let name = unsafe { CStr::from_ptr(name) }
            .to_string_lossy()
            .into_owned();
        if !image.has(&name) {
            return Err(NOT_FOUND);
        }
        machine.functions.push(name);
        // SAFETY: the caller's.
        unsafe { put(function, machine.functions.len()) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetAttribute(
    _function: usize,
    _attribute: c_int,
    _value: c_int,
) -> Code {
    with(|_| Ok(()))
}

/// The kernel is not executed: only its place in the order is kept.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    _grid_x: c_uint,
    _grid_y: c_uint,
    _grid_z: c_uint,
    _block_x: c_uint,
    _block_y: c_uint,
    _block_z: c_uint,
    _shared_bytes: c_uint,
    stream: u64,
    _parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> Code {
    if let Err(code) = meet(Call::Launch) {
        return code;
    }
    with(|machine| {
        let known = function
            .checked_sub(1)
            .and_then(|at| machine.functions.get(at));
        let name = known.ok_or(INVALID_HANDLE)?;
        machine.memory.log(format_args!("launched {name}"));
        machine.work.submit(stream, Task::Mark, &mut machine.memory)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut usize, device: c_int) -> Code {
    // SAFETY: the caller's.
    with(|_| unsafe { put(pool, device as usize + 1) })
}

/// Marks of a pool, by CUDA's numbers: reserved now 5, at most 6; used now 7, at most 8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolGetAttribute(
    pool: usize,
    attribute: c_int,
    value: *mut u64,
) -> Code {
    with(|machine| {
        let used = machine.memory.used(device_of_pool(pool)?);
        let bytes = match attribute {
            5 => used.reserved,
            6 => used.reserved_high,
            7 => used.pool,
            8 => used.pool_high,
            _ => return Err(INVALID_VALUE),
        };
        machine.memory.log(format_args!("told mark={attribute}"));
        // SAFETY: the caller's: these are 64 bits wide.
        unsafe { put(value, bytes) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolSetAttribute(
    pool: usize,
    attribute: c_int,
    _value: *const u64,
) -> Code {
    with(|machine| {
        let device = device_of_pool(pool)?;
        match attribute {
            6 => machine.memory.reset_reserved_mark(device),
            8 => machine.memory.reset_used_mark(device),
            _ => return Err(INVALID_VALUE),
        }
        let used = machine.memory.used(device).total();
        machine
            .memory
            .log(format_args!("marked mark={attribute} used={used}"));
        Ok(())
    })
}

/// What NVIDIA's own libraries ask for: there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetExportTable(_table: *mut *const c_void, _id: *const c_void) -> Code {
    NOT_FOUND
}

fn name_of(error: Code) -> &'static CStr {
    match error {
        SUCCESS => c"CUDA_SUCCESS",
        INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        NO_DEVICE => c"CUDA_ERROR_NO_DEVICE",
        NOT_INITIALIZED => c"CUDA_ERROR_NOT_INITIALIZED",
        INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
        INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
        crate::NO_BINARY_FOR_GPU => c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        crate::UNSUPPORTED_PTX_VERSION => c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        INVALID_HANDLE => c"CUDA_ERROR_INVALID_HANDLE",
        NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        NOT_READY => c"CUDA_ERROR_NOT_READY",
        ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        crate::LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        _ => c"CUDA_ERROR_UNKNOWN",
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: Code, text: *mut *const c_char) -> Code {
    // SAFETY: the caller's.
    code(unsafe { put(text, name_of(error).as_ptr()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: Code, text: *mut *const c_char) -> Code {
    // SAFETY: the caller's.
    code(unsafe { put(text, name_of(error).as_ptr()) })
}
