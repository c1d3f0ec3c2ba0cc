//! Memory is touched ahead of who fills it. The kernel makes a page, and clears it, at the first touch: that takes about as long
//! as to read what goes there. A second thread has it done meanwhile.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::place::{Fill, touch};

/// So much is asked for at once: several huge pages, and little to wait for at the end.
const STEP_BYTES: usize = 8 << 20;
/// Below this, a thread is not worth starting.
const LEAST_BYTES: usize = 32 << 20;

/// Addresses of memory that is to be filled, in this order.
pub(super) struct Ahead(Vec<Range<usize>>);

impl Ahead {
    /// That of tensors whose memory is the host's.
    pub fn of(fills: &mut [&mut dyn Fill]) -> Ahead {
        let memories = fills.iter_mut().filter_map(|fill| fill.memory());
        let ranges = memories.map(|memory| {
            let start = memory.as_ptr().addr();
            start..start + memory.len()
        });
        Ahead(ranges.collect())
    }

    /// Does the work while a thread touches the memory, where there is a processor for it.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        let bytes: usize = self.0.iter().map(Range::len).sum();
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        if bytes < LEAST_BYTES || processors < 2 {
            return work();
        }
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let touching = std::thread::Builder::new().name("featherweight-touch".to_owned());
            // Without it, whoever fills the memory touches it.
            let _ = touching.spawn_scoped(scope, || self.touch(&is_done));
            let done = Done(&is_done);
            let result = work();
            drop(done);
            result
        })
    }

    fn touch(&self, is_done: &AtomicBool) {
        for memory in &self.0 {
            for start in memory.clone().step_by(STEP_BYTES) {
                let part = start..memory.end.min(start + STEP_BYTES);
                if is_done.load(Relaxed) || !touch(part) {
                    return;
                }
            }
        }
    }
}

/// The work has ended, be it by a panic: the scope waits for the thread.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::Unobserved;
    use crate::place::HostFill;

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size()
    }

    #[test]
    fn memory_is_made_while_the_work_goes_on_and_a_panic_ends_both() {
        let fill = || HostFill::new(2 * LEAST_BYTES, &(Arc::new(Unobserved) as _));
        let ahead = |fill: &mut HostFill| Ahead::of(&mut [fill as &mut dyn Fill]);
        let panicked =
            std::panic::catch_unwind(|| ahead(&mut fill()).during(|| panic!("on purpose")));
        assert!(panicked.is_err());
        let mut fill = fill();
        let before = resident_bytes();
        let made = ahead(&mut fill).during(|| {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let made = resident_bytes().saturating_sub(before);
                if made > LEAST_BYTES || Instant::now() > deadline {
                    return made;
                }
            }
        });
        let alone = std::thread::available_parallelism().unwrap().get() < 2;
        assert!(made > LEAST_BYTES || alone, "{made} bytes were made");
        assert!(fill.memory().unwrap().iter().all(|&byte| byte == 0));
    }
}
