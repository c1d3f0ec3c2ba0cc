//! A page of a mapped file that cannot be read ends a process by SIGBUS. A handler says before that which page it was.

/// How a bus error ends a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusError {
    /// By its signal, as without a handler.
    Signal,
    /// With this exit code.
    Exit(i32),
}

/// From here on, a bus error says on standard error of which file, and where in it, a page could not be read, before it ends the
/// process. (Linux; elsewhere nothing changes.)
pub fn tell_bus_errors(ends_by: BusError) {
    #[cfg(target_os = "linux")]
    linux::install(ends_by);
    #[cfg(not(target_os = "linux"))]
    let _ = ends_by;
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{c_int, c_void};
    use std::mem::MaybeUninit;
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

    use super::BusError;

    /// A line of `/proc/self/maps` with the longest path, and its end.
    const LINE_BYTES: usize = 4096 + 256;

    /// The exit code, or that there is none.
    static EXIT_CODE: AtomicI32 = AtomicI32::new(NONE);
    const NONE: i32 = -1;

    pub(super) fn install(ends_by: BusError) {
        let code = match ends_by {
            BusError::Signal => NONE,
            BusError::Exit(code) => code,
        };
        EXIT_CODE.store(code, Relaxed);
        // SAFETY: the handler makes calls alone that are allowed in one (signal-safety(7)), and allocates nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    }

    /// Threads may meet such pages at once: the first tells.
    static IS_TOLD: AtomicBool = AtomicBool::new(false);

    extern "C" fn handle(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        if IS_TOLD.swap(true, Relaxed) {
            loop {
                // SAFETY: one call, allowed here; the first thread ends the process.
                unsafe { libc::pause() };
            }
        }
        // SAFETY: the kernel hands its own in.
        let address = unsafe { (*info).si_addr() } as u64;
        let code = EXIT_CODE.load(Relaxed);
        let mut message = Message::new();
        if code != NONE {
            message.add(b"error: ");
        }
        tell(address, &mut message);
        message.say();
        if code != NONE {
            // SAFETY: one call, allowed here.
            unsafe { libc::_exit(code) };
        }
        // Behind this the same access raises the signal again, and ends the process.
        // SAFETY: one call, allowed here.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }

    fn tell(address: u64, message: &mut Message) {
        let mut line = [0u8; LINE_BYTES];
        let Some((length, offset)) = find(address, &mut line) else {
            return message.add(b"a bus error, at an address of no mapped file\n");
        };
        let path = &line[..length];
        message.add(b"the page of ");
        message.add(path);
        message.add(b" at byte ");
        message.add_number(offset);
        let is_cut = bytes_of(path).is_some_and(|bytes| bytes <= offset);
        message.add(match is_cut {
            true => b" is not there: the file was cut off while it was mapped\n",
            false => b" cannot be read: its disk, or its file system, fails\n".as_slice(),
        });
    }

    /// The path of the file that is mapped there, at the beginning of `line`, with its length; and where in the file the page begins.
    fn find(address: u64, line: &mut [u8; LINE_BYTES]) -> Option<(usize, u64)> {
        // SAFETY: a path that ends with zero.
        let maps = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY) };
        let mut buffer = [0u8; 1024];
        let (mut filled, mut found) = (0, None);
        while maps >= 0 && found.is_none() {
            // SAFETY: the buffer has so many bytes.
            let read = unsafe { libc::read(maps, buffer.as_mut_ptr().cast(), buffer.len()) };
            if read <= 0 {
                break;
            }
            for &byte in &buffer[..read as usize] {
                if byte != b'\n' {
                    // What is longer than any line is cut off.
                    if filled < line.len() {
                        line[filled] = byte;
                        filled += 1;
                    }
                    continue;
                }
                if let Some((path, offset)) = parse(&line[..filled], address) {
                    line.copy_within(path..filled, 0);
                    found = Some((filled - path, offset));
                    break;
                }
                filled = 0;
            }
        }
        if maps >= 0 {
            // SAFETY: opened above.
            unsafe { libc::close(maps) };
        }
        found
    }

    /// `7f00-7f10 r--p 00001000 fe:00 12   /path`: where the path begins, and where in the file the address lies.
    fn parse(line: &[u8], address: u64) -> Option<(usize, u64)> {
        let mut fields = line.split(|&byte| byte == b' ');
        let mut range = fields.next()?.split(|&byte| byte == b'-');
        let (start, end) = (hex(range.next()?)?, hex(range.next()?)?);
        if !(start..end).contains(&address) {
            return None;
        }
        let offset = hex(fields.nth(1)?)?;
        let path = line.iter().position(|&byte| byte == b'/')?;
        Some((path, offset + (address - start) / 4096 * 4096))
    }

    fn hex(digits: &[u8]) -> Option<u64> {
        digits.iter().try_fold(0u64, |number, &digit| {
            let digit = (digit as char).to_digit(16)?;
            Some(number << 4 | u64::from(digit))
        })
    }

    fn bytes_of(path: &[u8]) -> Option<u64> {
        let mut ended = [0u8; LINE_BYTES + 1];
        ended[..path.len()].copy_from_slice(path);
        let mut about = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: a path that ends with zero, and room for what is said of it.
        let told = unsafe { libc::stat(ended.as_ptr().cast(), about.as_mut_ptr()) };
        // SAFETY: filled where the call went well.
        (told == 0).then(|| unsafe { about.assume_init() }.st_size as u64)
    }

    /// What is said in one piece, so that nothing stands between.
    struct Message {
        text: [u8; LINE_BYTES + 256],
        length: usize,
    }

    impl Message {
        fn new() -> Message {
            Message {
                text: [0; LINE_BYTES + 256],
                length: 0,
            }
        }

        /// What has no room is left out.
        fn add(&mut self, text: &[u8]) {
            let room = self.text.len() - self.length;
            let text = &text[..text.len().min(room)];
            self.text[self.length..][..text.len()].copy_from_slice(text);
            self.length += text.len();
        }

        fn add_number(&mut self, number: u64) {
            let mut digits = [0u8; 20];
            let (mut rest, mut at) = (number, digits.len());
            loop {
                at -= 1;
                digits[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
                if rest == 0 {
                    break;
                }
            }
            self.add(&digits[at..]);
        }

        fn say(&self) {
            // SAFETY: so many bytes are there.
            unsafe { libc::write(2, self.text.as_ptr().cast(), self.length) };
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_line_of_an_address_gives_the_file_and_the_page() {
            let line = b"7f0000000000-7f0000010000 r--p 00002000 fe:00 131 /a b/model.safetensors";
            let (path, offset) = parse(line, 0x7f00_0000_1fff).unwrap();
            assert_eq!(&line[path..], b"/a b/model.safetensors");
            assert_eq!(offset, 0x3000);
            assert!(parse(line, 0x7f00_0001_0000).is_none());
            assert!(parse(b"7f00-7f10 rw-p 00000000 00:00 0 ", 0x7f01).is_none());
        }
    }
}
