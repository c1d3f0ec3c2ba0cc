//! The state of free memory before a run. Under a hypervisor that takes free memory back (free page reporting, balloons), the
//! first touch of a page that has been free for a while takes much longer than of one that was in use a moment ago, and which
//! of the two a run meets is chance. So it is in use a moment before every run.

use memmap2::MmapMut;

/// Stays free, so that no page of the page cache has to go.
const MARGIN_BYTES: u64 = 256 << 20;

/// Touches `bytes` of memory, or what of it is free, and gives it back.
pub fn touch_free_memory(bytes: u64) {
    let free = free_bytes().unwrap_or(0).saturating_sub(MARGIN_BYTES);
    let Ok(mut map) = MmapMut::map_anon(bytes.min(free) as usize) else {
        return;
    };
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    map.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(&map);
}

#[cfg(target_os = "linux")]
fn free_bytes() -> Option<u64> {
    use procfs::Current;
    Some(procfs::Meminfo::current().ok()?.mem_free)
}

#[cfg(not(target_os = "linux"))]
fn free_bytes() -> Option<u64> {
    None
}

/// How many processes the kernel of this machine has ended since it was started, for want of memory.
#[cfg(target_os = "linux")]
pub fn machine_oom_kills() -> Option<u64> {
    let counted = procfs::vmstat().ok()?.get("oom_kill").copied()?;
    u64::try_from(counted).ok()
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub fn machine_oom_kills() -> Option<u64> {
    None
}
