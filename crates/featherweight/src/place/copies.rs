//! Copies to a CUDA device, in a stream of the library's own. What is copied from is kept until the driver has said that the copy
//! was made: a wait that fails is no such word, and memory of which nobody knows whether it is still read is never used again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use burn::tensor::Bytes;
use cubecl::server::Handle;
use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::sys;

use super::pinned::Locked;
use super::recycled;
use crate::Observe;

/// When nothing has come of a copy for so long, the device is taken to hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn hangs() -> String {
    let seconds = PATIENCE.as_secs();
    format!("nothing was copied for {seconds} s: the device hangs")
}

/// What the program has asked of the device before may take longer, and so may the compilation of a kernel.
pub(super) const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(60);

pub(super) fn is_busy() -> String {
    let seconds = PATIENCE_WITH_OTHERS.as_secs();
    format!(
        "it has not done within {seconds} s what it was asked for before: it hangs, or is busy with what takes longer (wait for \
         that before you load)"
    )
}

/// A device's context, and the stream of this process's copies to it. They stay for as long as the process, as CubeCL's do.
#[derive(Clone, Copy)]
pub(super) struct Context {
    context: usize,
    stream: usize,
}

impl Context {
    fn of(device: i32) -> Result<Context, DriverError> {
        static OPEN: Mutex<BTreeMap<i32, Context>> = Mutex::new(BTreeMap::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = open.get(&device) {
            return Ok(*context);
        }
        // This may be the first that the process asks of CUDA. Where it is not, nothing happens.
        driver::init()?;
        // SAFETY: the driver has just handed out what is handed back to it.
        let context = unsafe { driver::primary_ctx::retain(driver::device::get(device)?)? };
        let context = Context {
            context: context.expose_provenance(),
            stream: 0,
        };
        let stream =
            context.within(|| driver::stream::create(driver::stream::StreamKind::NonBlocking))?;
        let context = Context {
            stream: stream.expose_provenance(),
            ..context
        };
        open.insert(device, context);
        Ok(context)
    }

    /// Makes it this thread's.
    fn enter(self) -> Result<(), DriverError> {
        // SAFETY: it is retained for ever.
        unsafe { driver::ctx::set_current(std::ptr::with_exposed_provenance_mut(self.context)) }
    }

    /// Makes it this thread's for as long as the task takes: the thread is a user's, who may compute on another device by it.
    pub fn within<T>(
        self,
        task: impl FnOnce() -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let before = driver::ctx::get_current()?;
        self.enter()?;
        let done = task();
        // SAFETY: it was this thread's, or there was none.
        unsafe { driver::ctx::set_current(before.unwrap_or(std::ptr::null_mut())) }?;
        done
    }

    fn stream(self) -> sys::CUstream {
        std::ptr::with_exposed_provenance_mut(self.stream)
    }
}

/// What the driver says of an error.
fn text(error: DriverError) -> String {
    let said = |text: Result<&std::ffi::CStr, DriverError>| match text {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("error {:?}", error.0),
    };
    format!(
        "{}: {}",
        said(error.error_name()),
        said(error.error_string())
    )
}

/// The copies of a load to a device.
pub(super) struct Copies {
    context: Result<Context, String>,
    locked: Option<Locked>,
    heap: recycled::Buffers,
    /// Those of which nobody has heard yet, in their order.
    in_flight: Mutex<VecDeque<Copy>>,
    landing: Arc<Landing>,
    threads: Mutex<Option<Threads>>,
}

struct Copy {
    number: u64,
    from: Bytes,
    /// Kept for as long as it is written to.
    _to: Handle,
}

/// The driver's calls that a load is made of may never return: threads make them. Those before and behind it (a context, memory that is
/// locked and freed) are made by whoever loads.
struct Threads {
    /// Who begins copies.
    begin: Sender<Begin>,
    /// Who waits for what was begun.
    wait: Sender<Wait>,
}

/// A copy to be begun.
struct Begin {
    number: u64,
    from: usize,
    bytes: usize,
    to: u64,
}

/// What is waited for, in turn.
enum Wait {
    /// A copy, by its event.
    Copy { number: u64, event: usize },
    /// All that the device was asked for before.
    Device {
        answer: SyncSender<Result<(), String>>,
    },
}

impl Copies {
    pub fn new(device: i32, observer: &Arc<dyn Observe>) -> Copies {
        let context = Context::of(device).map_err(text);
        Copies {
            locked: context
                .as_ref()
                .ok()
                .map(|&context| Locked::new(context, observer)),
            context,
            heap: recycled::Buffers::default(),
            in_flight: Mutex::default(),
            landing: Arc::default(),
            threads: Mutex::default(),
        }
    }

    /// A buffer of this length, page-locked where the driver locks pages; what is in it is of no meaning. Waits while what is on its way
    /// leaves no room for it in `all` bytes.
    pub fn buffer(&self, bytes: usize, all: usize) -> Bytes {
        // The driver locks no memory of no length.
        if bytes == 0 {
            return self.heap.buffer(0);
        }
        loop {
            self.let_go();
            let on_their_way = self.in_flight();
            let oldest = on_their_way.front().map(|copy| copy.number);
            let their_bytes: usize = on_their_way.iter().map(|copy| copy.from.len()).sum();
            drop(on_their_way);
            // The last that could be waited for is the caller's own: there is room for it in any case.
            let most = match oldest {
                Some(_) => all,
                None => usize::MAX,
            };
            match &self.locked {
                Some(locked) if !locked.is_refused() => {
                    if let Some(buffer) = locked.buffer(bytes, most) {
                        return buffer;
                    }
                }
                _ if their_bytes + bytes <= most => return self.heap.buffer(bytes),
                _ => {}
            }
            let landed = oldest.map(|oldest| self.landing.wait_for(oldest));
            if let Some(Err(_)) = landed {
                // Whoever writes it hears of the error.
                return self.heap.buffer(bytes);
            }
        }
    }

    /// Has a piece copied to this address on the device: the number of the copy.
    ///
    /// # Safety
    ///
    /// There must be so many bytes of memory, for as long as the handle lives.
    pub unsafe fn send(&self, to: u64, piece: Bytes, memory: &Handle) -> Result<u64, String> {
        self.landing.check()?;
        self.with_threads(|threads| {
            let mut in_flight = self.in_flight();
            let from = piece.as_ptr().expose_provenance();
            let begin = Begin {
                number: self.landing.sent(),
                from,
                bytes: piece.len(),
                to,
            };
            in_flight.push_back(Copy {
                number: begin.number,
                from: piece,
                _to: memory.clone(),
            });
            let number = begin.number;
            threads.begin.send(begin).map_err(gone)?;
            Ok(number)
        })
    }

    /// Waits until the device has done all that it was asked for before, by whomever and in whichever stream.
    pub fn wait_for_device(&self) -> Result<(), String> {
        let (answer, answered) = sync_channel(1);
        self.with_threads(|threads| {
            let wait = Wait::Device { answer };
            threads.wait.send(wait).map_err(gone)
        })?;
        match answered.recv_timeout(PATIENCE_WITH_OTHERS) {
            Ok(ended) => ended,
            Err(RecvTimeoutError::Timeout) => Err(is_busy()),
            Err(RecvTimeoutError::Disconnected) => Err(gone(())),
        }
    }

    /// Waits until this copy is made, and with it those before it.
    pub fn wait_for(&self, number: u64) -> Result<(), String> {
        self.landing.wait_for(number)
    }

    /// Waits until every copy is made.
    pub fn wait_for_all(&self) -> Result<(), String> {
        let last = self.in_flight().back().map(|copy| copy.number);
        self.wait_for(last.unwrap_or(0))?;
        self.let_go();
        Ok(())
    }

    /// Frees what is kept for pieces: a load has ended.
    pub fn release(&self) {
        self.heap.release();
        if let Some(locked) = &self.locked {
            locked.release();
        }
    }

    fn in_flight(&self) -> MutexGuard<'_, VecDeque<Copy>> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of what copies that are made were made from.
    fn let_go(&self) {
        let landed = self.landing.landed();
        let mut in_flight = self.in_flight();
        while in_flight.front().is_some_and(|copy| copy.number <= landed) {
            in_flight.pop_front();
        }
    }

    fn with_threads<T>(
        &self,
        task: impl FnOnce(&Threads) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = match &mut *threads {
            Some(threads) => threads,
            none => none.insert(Threads::start(self.context.clone()?, &self.landing)?),
        };
        task(threads)
    }
}

impl Threads {
    fn start(context: Context, landing: &Arc<Landing>) -> Result<Threads, String> {
        let (begin, to_begin) = channel();
        let (wait, to_wait) = channel();
        let (begun, begins, waits) = (wait.clone(), Arc::clone(landing), Arc::clone(landing));
        thread("featherweight-copies", move || {
            let entered = context.enter();
            for Begin {
                number,
                from,
                bytes,
                to,
            } in to_begin
            {
                let from = std::ptr::with_exposed_provenance::<u8>(from);
                let begin = || {
                    entered?;
                    let stream = context.stream();
                    // SAFETY: whoever sends a piece vouches for the device's memory, and keeps the piece until its copy is made,
                    // or for ever; stream and event are the driver's, of this context.
                    unsafe {
                        let from = std::slice::from_raw_parts(from, bytes);
                        driver::memcpy_htod_async(to, from, stream)?;
                        let event =
                            driver::event::create(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC)?;
                        driver::event::record(event, stream)?;
                        Ok(event.expose_provenance())
                    }
                };
                match begin().map_err(text) {
                    Ok(event) => drop(begun.send(Wait::Copy { number, event })),
                    Err(error) => begins.end(number, Err(error)),
                }
            }
        })?;
        thread("featherweight-waits", move || {
            let entered = context.enter();
            for wait in to_wait {
                match wait {
                    Wait::Copy { number, event } => {
                        let event = std::ptr::with_exposed_provenance_mut(event);
                        // SAFETY: it is the driver's, recorded once, and destroyed here alone.
                        let waited = entered.and_then(|()| unsafe {
                            let waited = driver::event::synchronize(event);
                            waited.and(driver::event::destroy(event))
                        });
                        waits.end(number, waited.map_err(text));
                    }
                    Wait::Device { answer } => {
                        let waited = entered.and_then(|()| driver::ctx::synchronize());
                        drop(answer.send(waited.map_err(text)));
                    }
                }
            }
        })?;
        Ok(Threads { begin, wait })
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let started = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work);
    let started = started.map(drop);
    started.map_err(|error| format!("no thread can be started to copy: {error}"))
}

fn gone<T>(_: T) -> String {
    "a thread that copies is gone".to_owned()
}

impl Drop for Copies {
    fn drop(&mut self) {
        // What is not made is kept for ever: better lost than another's while the device still reads it.
        self.landing.wait_for_the_last();
        self.let_go();
        self.in_flight().drain(..).for_each(std::mem::forget);
    }
}

/// What is known of the copies, which are made in their order.
#[derive(Default)]
struct Landing {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    sent: u64,
    /// So many of them, well or not.
    ended: u64,
    /// The last that ended well: those before it in the stream are made, too.
    landed: u64,
    /// The first error.
    failed: Option<String>,
}

impl Landing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more; its number.
    fn sent(&self) -> u64 {
        let mut state = self.state();
        state.sent += 1;
        state.sent
    }

    fn landed(&self) -> u64 {
        self.state().landed
    }

    fn end(&self, number: u64, result: Result<(), String>) {
        let mut state = self.state();
        state.ended += 1;
        match result {
            Ok(()) => state.landed = state.landed.max(number),
            // The first stays: whoever asks again is to hear it, too.
            Err(error) => {
                state.failed.get_or_insert(error);
            }
        }
        self.changed.notify_all();
    }

    fn check(&self) -> Result<(), String> {
        self.state().failed.clone().map_or(Ok(()), Err)
    }

    /// Waits until this one has ended, and for as long as others do.
    fn wait_for(&self, number: u64) -> Result<(), String> {
        let mut state = self.state();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.landed >= number {
                return Ok(());
            }
            let before = state.ended;
            let (next, timeout) = self
                .changed
                .wait_timeout(state, PATIENCE)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() && state.ended == before {
                state.failed.get_or_insert_with(hangs);
            }
        }
    }

    /// Waits until all have ended somehow, if they do.
    fn wait_for_the_last(&self) {
        let state = self.state();
        let is_hung = state.failed.as_ref() == Some(&hangs());
        let patience = match is_hung {
            true => Duration::ZERO,
            false => PATIENCE,
        };
        let waited = self
            .changed
            .wait_timeout_while(state, patience, |state| state.ended < state.sent);
        drop(waited);
    }
}
