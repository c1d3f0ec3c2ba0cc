//! A file system of one file that can be slow, fail, and let nothing be cached: a real one, served by the test itself.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry,
    ReplyOpen, Request,
};

/// How the file behaves.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// What a read takes, whatever its length.
    pub delay: Duration,
    /// Whether the kernel keeps its pages from one opening to the next.
    pub is_kept: bool,
    /// While this is set, the second half of the file cannot be read.
    pub fails: Arc<AtomicBool>,
}

/// Where it is mounted; until this is dropped.
pub struct Mounted {
    _session: BackgroundSession,
    folder: tempfile::TempDir,
}

const NAME: &str = "model.safetensors";
const FILE: INodeNo = INodeNo(2);
const FOREVER: Duration = Duration::from_secs(3600);

impl Mounted {
    /// Mounts a file with these bytes. `None`, and said so, where this machine mounts nothing.
    pub fn new(bytes: Vec<u8>, behaviour: &Behaviour) -> Option<Mounted> {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::FSName("unreliable".to_owned()),
        ];
        config.n_threads = Some(8);
        let served = Unreliable {
            bytes,
            behaviour: behaviour.clone(),
        };
        match fuser::spawn_mount(served, folder.path(), &config) {
            Ok(session) => Some(Mounted {
                _session: session,
                folder,
            }),
            Err(error) => {
                eprintln!("skipped: no file system can be mounted: {error}");
                None
            }
        }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }
}

struct Unreliable {
    bytes: Vec<u8>,
    behaviour: Behaviour,
}

impl Unreliable {
    fn attributes(&self, node: INodeNo) -> Option<FileAttr> {
        let (kind, size, perm) = match node {
            INodeNo::ROOT => (FileType::Directory, 0, 0o755),
            FILE => (FileType::RegularFile, self.bytes.len() as u64, 0o444),
            _ => return None,
        };
        Some(FileAttr {
            ino: node,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        })
    }
}

impl Filesystem for Unreliable {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let is_it = parent == INodeNo::ROOT && name == NAME;
        match self.attributes(FILE).filter(|_| is_it) {
            Some(attributes) => reply.entry(&FOREVER, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(node) {
            Some(attributes) => reply.attr(&FOREVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = match self.behaviour.is_kept {
            true => FopenFlags::FOPEN_KEEP_CACHE,
            false => FopenFlags::empty(),
        };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        std::thread::sleep(self.behaviour.delay);
        let start = (offset as usize).min(self.bytes.len());
        let end = (start + size as usize).min(self.bytes.len());
        match self.behaviour.fails.load(Relaxed) && end > self.bytes.len() / 2 {
            true => reply.error(Errno::EIO),
            false => reply.data(&self.bytes[start..end]),
        }
    }
}
