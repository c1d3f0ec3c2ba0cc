//! The device's bytes. They lie in a file of memory that is not mapped, so that they are neither in a heap nor resident, and an
//! address of them that the host uses is a fault, as with a real device.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};

use crate::settings::Settings;
use crate::{Code, ILLEGAL_ADDRESS, INVALID_VALUE, OUT_OF_MEMORY, SUCCESS};

/// Where addresses begin: no process has anything mapped there.
const BASE: u64 = 0x7000_0000_0000_0000;
/// Addresses that each device has, whatever its memory.
const ADDRESSES: u64 = 1 << 44;
/// Allocations begin at multiples of this.
const ALIGNMENT: u64 = 512;
/// What a pool takes from the device at once.
const POOL_BLOCK: u64 = 32 << 20;
/// What lies in memory that nobody has written yet.
const POISON: u8 = 0xa5;

#[derive(Clone, Copy)]
struct Allocation {
    bytes: u64,
    is_pooled: bool,
}

/// What of a device is used.
#[derive(Default, Clone, Copy)]
pub struct Used {
    /// Of the pool, now.
    pub pool: u64,
    /// The most of it since the mark was reset.
    pub pool_high: u64,
    /// What the pool has taken from the device, now.
    pub reserved: u64,
    pub reserved_high: u64,
    /// Outside of the pool.
    pub other: u64,
}

impl Used {
    pub fn total(&self) -> u64 {
        self.pool + self.other
    }
}

pub struct Memory {
    devices: Vec<Device>,
    limit: u64,
    /// Page-locked memory of the host, by address.
    locked: BTreeMap<usize, usize>,
    log: Option<File>,
}

struct Device {
    bytes: OwnedFd,
    allocations: BTreeMap<u64, Allocation>,
    next: u64,
    used: Used,
}

impl Memory {
    pub fn new(settings: &Settings) -> Memory {
        let device = |_| Device {
            bytes: memfd_create("simulated-cuda", MemfdFlags::CLOEXEC).expect("a file of memory"),
            allocations: BTreeMap::new(),
            next: 0,
            used: Used::default(),
        };
        let log = settings.log.as_ref();
        Memory {
            devices: (0..settings.devices).map(device).collect(),
            limit: settings.memory_bytes,
            locked: BTreeMap::new(),
            log: log.map(|path| {
                let open = File::options().create(true).append(true).open(path);
                open.expect("the log can be written")
            }),
        }
    }

    pub fn log(&mut self, line: std::fmt::Arguments<'_>) {
        if let Some(log) = &mut self.log {
            let line = format!("{} {line}\n", std::process::id());
            log.write_all(line.as_bytes())
                .expect("the log can be written");
        }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn used(&self, device: usize) -> Used {
        self.devices[device].used
    }

    /// Starts the pool's marks over.
    pub fn reset_used_mark(&mut self, device: usize) {
        let used = &mut self.devices[device].used;
        used.pool_high = used.pool;
    }

    pub fn reset_reserved_mark(&mut self, device: usize) {
        let used = &mut self.devices[device].used;
        used.reserved_high = used.reserved;
    }

    pub fn allocate(&mut self, device: usize, bytes: u64, is_pooled: bool) -> Result<u64, Code> {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let limit = self.limit;
        let one = &mut self.devices[device];
        if one
            .used
            .total()
            .checked_add(bytes)
            .is_none_or(|all| all > limit)
        {
            let used = one.used.total();
            self.log(format_args!(
                "refused device={device} bytes={bytes} used={used}"
            ));
            return Err(OUT_OF_MEMORY);
        }
        let start = one.next;
        one.next = (start + bytes).next_multiple_of(4096).max(start + 4096);
        debug_assert!(start.is_multiple_of(ALIGNMENT));
        if one.next > ADDRESSES {
            return Err(OUT_OF_MEMORY);
        }
        let address = BASE + device as u64 * ADDRESSES + start;
        ftruncate(&one.bytes, one.next).map_err(|_| OUT_OF_MEMORY)?;
        one.allocations
            .insert(address, Allocation { bytes, is_pooled });
        let used = &mut one.used;
        match is_pooled {
            true => used.pool += bytes,
            false => used.other += bytes,
        }
        used.pool_high = used.pool_high.max(used.pool);
        used.reserved = used
            .reserved
            .max(used.pool.next_multiple_of(POOL_BLOCK).min(limit));
        used.reserved_high = used.reserved_high.max(used.reserved);
        let used = used.total();
        // Its first and last page: who takes what nobody wrote for what was written finds something else than zeros.
        let poison = [POISON; 4096];
        for at in [0, bytes.saturating_sub(4096)] {
            let length = (bytes - at).min(4096) as usize;
            self.write(address + at, &poison[..length])?;
        }
        self.log(format_args!(
            "allocated device={device} address={address} bytes={bytes} used={used}"
        ));
        Ok(address)
    }

    pub fn free(&mut self, address: u64) -> Result<(), Code> {
        let device = self.device_of(address).ok_or(INVALID_VALUE)?;
        let one = &mut self.devices[device];
        let Some(Allocation { bytes, is_pooled }) = one.allocations.remove(&address) else {
            return Err(INVALID_VALUE);
        };
        match is_pooled {
            true => one.used.pool -= bytes,
            false => one.used.other -= bytes,
        }
        let start = address - BASE - device as u64 * ADDRESSES;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let length = bytes.next_multiple_of(4096);
        fallocate(&one.bytes, hole, start, length).map_err(|_| INVALID_VALUE)?;
        let used = one.used.total();
        self.log(format_args!(
            "freed device={device} address={address} bytes={bytes} used={used}"
        ));
        Ok(())
    }

    /// What waiting for a device does to its pool: what is not used goes back.
    pub fn trim(&mut self, device: usize) {
        let used = &mut self.devices[device].used;
        used.reserved = used.pool.next_multiple_of(POOL_BLOCK).min(self.limit);
    }

    fn device_of(&self, address: u64) -> Option<usize> {
        let device = (address.checked_sub(BASE)? / ADDRESSES) as usize;
        (device < self.devices.len()).then_some(device)
    }

    /// The file and offset of a range, all of which lies in one allocation.
    fn place(&self, address: u64, length: usize) -> Result<(&OwnedFd, u64), Code> {
        let device = self.device_of(address).ok_or(ILLEGAL_ADDRESS)?;
        let one = &self.devices[device];
        let before = one.allocations.range(..=address).next_back();
        let (start, allocation) = before.ok_or(ILLEGAL_ADDRESS)?;
        match address + length as u64 <= start + allocation.bytes {
            true => Ok((&one.bytes, address - BASE - device as u64 * ADDRESSES)),
            false => Err(ILLEGAL_ADDRESS),
        }
    }

    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Code> {
        let (file, mut at) = self.place(address, bytes.len())?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = pwrite(file, rest, at).map_err(|_| ILLEGAL_ADDRESS)?;
            (at, rest) = (at + written as u64, &rest[written..]);
        }
        Ok(())
    }

    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Code> {
        let length = bytes.len();
        let (file, mut at) = self.place(address, length)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            match pread(file, &mut *rest, at) {
                Ok(read) if read > 0 => {
                    at += read as u64;
                    rest = &mut std::mem::take(&mut rest)[read..];
                }
                _ => return Err(ILLEGAL_ADDRESS),
            }
        }
        Ok(())
    }

    /// Page-locked memory: ordinary memory of the process, counted.
    pub fn lock(&mut self, bytes: usize) -> Result<usize, Code> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new map of nobody's.
        let map = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::PRIVATE | MapFlags::POPULATE,
            )
        };
        let address = map.map_err(|_| OUT_OF_MEMORY)?.expose_provenance();
        self.locked.insert(address, bytes);
        let all: usize = self.locked.values().sum();
        self.log(format_args!("locked bytes={bytes} all={all}"));
        Ok(address)
    }

    pub fn unlock(&mut self, address: usize) -> Code {
        let Some(bytes) = self.locked.remove(&address) else {
            return INVALID_VALUE;
        };
        // SAFETY: it was mapped by `lock` with this length, and nobody knows it any more.
        let unmapped =
            unsafe { rustix::mm::munmap(std::ptr::with_exposed_provenance_mut(address), bytes) };
        let all: usize = self.locked.values().sum();
        self.log(format_args!("unlocked bytes={bytes} all={all}"));
        unmapped.map_or(INVALID_VALUE, |()| SUCCESS)
    }

    /// The page-locked allocation that this address lies in.
    pub fn locked_around(&self, address: usize) -> Option<usize> {
        let (&start, &bytes) = self.locked.range(..=address).next_back()?;
        (address < start + bytes).then_some(start)
    }
}
