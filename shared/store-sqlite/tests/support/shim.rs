//! A SQLite VFS that stands before the real one and writes down what passes: every write, truncation, sync and
//! deletion, in order.
//!
//! From that record the files can be made again as a machine would find them that lost power after any of the
//! steps ([`Shim::after_power_loss`]): what was synced is there; what was not is gone, or there in part, in any
//! order, torn. The shim can also run out of room, and lie about syncs.
//!
//! Shared memory and locks go to the real VFS untouched: they do not outlive a power loss.

#![allow(unsafe_code, reason = "a VFS is a table of C functions; each says why it is sound")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use rand::Rng;
use rusqlite::ffi;

/// One thing that happened to a file, or that the test noted in between.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write {
        file: String,
        at: u64,
        data: Vec<u8>,
    },
    Truncate {
        file: String,
        size: u64,
    },
    Sync {
        file: String,
    },
    Delete {
        file: String,
    },
    /// Something was acknowledged to somebody.
    Note(String, u64),
}

/// A registered VFS. Never goes away: SQLite may ask for it at any time.
pub(crate) struct Shim {
    real: *mut ffi::sqlite3_vfs,
    steps: Mutex<Vec<Step>>,
    /// Octets by which files may still grow.
    room: AtomicI64,
    lies: AtomicBool,
    forgets: AtomicBool,
    /// How many more writes to a log pass before the process dies.
    life: AtomicI64,
    /// What was written to a log since somebody took the lock for writers, and the most of all times, in octets.
    held: AtomicI64,
    longest: AtomicI64,
}

// SAFETY: `real` points to SQLite's default VFS, which is made for use by any thread and lives for ever.
unsafe impl Send for Shim {}
// SAFETY: as above; everything else is synchronised.
unsafe impl Sync for Shim {}

/// An open file of ours: SQLite's part first, then ours, then the real file.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    shim: *const Shim,
    /// From `CString::into_raw`, taken back in `close`.
    name: *mut c_char,
}

/// Where the real file begins: after ours, aligned as C aligns anything.
const REAL: usize = size_of::<File>().next_multiple_of(16);

fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` asks SQLite for REAL octets more than the real file needs.
    unsafe { file.cast::<u8>().add(REAL).cast() }
}

impl Shim {
    /// Registers a VFS of this name.
    pub(crate) fn register(name: &str) -> &'static Self {
        // SAFETY: SQLite initialises itself; a null name is the default VFS.
        let found = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        assert!(!found.is_null());
        let shim: &'static Self = Box::leak(Box::new(Self {
            real: found,
            steps: Mutex::new(Vec::new()),
            room: AtomicI64::new(i64::MAX),
            lies: AtomicBool::new(false),
            forgets: AtomicBool::new(false),
            life: AtomicI64::new(i64::MAX),
            held: AtomicI64::new(0),
            longest: AtomicI64::new(0),
        }));
        // SAFETY: the default VFS is a plain table of functions and may be copied. All functions but the two that
        // are replaced work on names alone and take any VFS. What is registered lives for ever.
        unsafe {
            let mut table = std::ptr::read(found);
            table.szOsFile = (*found).szOsFile + c_int::try_from(REAL).unwrap();
            table.pNext = std::ptr::null_mut();
            table.zName = CString::new(name).unwrap().into_raw();
            table.pAppData = std::ptr::from_ref(shim).cast_mut().cast();
            table.xOpen = Some(open);
            table.xDelete = Some(delete);
            let code = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(table)), 0);
            assert_eq!(code, ffi::SQLITE_OK);
        }
        shim
    }

    /// Lets files grow by so many octets more.
    pub(crate) fn set_room(&self, octets: i64) {
        self.room.store(octets, Ordering::SeqCst);
    }

    /// From now on syncs do nothing and say that they did.
    pub(crate) fn lie(&self) {
        self.lies.store(true, Ordering::SeqCst);
    }

    /// Writes nothing down: the shim is then a VFS without syncs, for looking at what is left without waiting.
    pub(crate) fn forget(&self) {
        self.forgets.store(true, Ordering::SeqCst);
    }

    /// Kills this process, as `kill -9` does, before the next write to a log but so many.
    pub(crate) fn live_for(&self, writes: i64) {
        self.life.store(writes, Ordering::SeqCst);
    }

    /// How many writes are left of those.
    pub(crate) fn life(&self) -> i64 {
        self.life.load(Ordering::SeqCst)
    }

    /// The most octets that were written to the log while somebody held the lock for writers, since this was asked last.
    pub(crate) fn longest_hold(&self) -> i64 {
        self.longest.swap(0, Ordering::SeqCst)
    }

    /// Notes that something was acknowledged.
    pub(crate) fn note(&self, who: &str, what: u64) {
        self.record(Step::Note(who.into(), what));
    }

    /// All that happened so far.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, step: Step) {
        if self.forgets.load(Ordering::SeqCst) {
            return;
        }
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this with our VFS, whose pAppData is a leaked Shim, and with szOsFile octets at `file`.
    unsafe {
        let shim = (*vfs).pAppData.cast::<Shim>();
        let ours = file.cast::<File>();
        (*ours).base.pMethods = std::ptr::null();
        let code = ((*(*shim).real).xOpen.unwrap())((*shim).real, name, real(file), flags, out);
        if code == ffi::SQLITE_OK {
            (*ours).base.pMethods = &raw const METHODS;
            (*ours).shim = shim;
            // Only temporary files have no name; they do not matter after a power loss.
            let text = if name.is_null() { CString::default() } else { CStr::from_ptr(name).to_owned() };
            (*ours).name = text.into_raw();
        }
        code
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: as in `open`; the name is a C string.
    unsafe {
        let shim = (*vfs).pAppData.cast::<Shim>();
        let file = CStr::from_ptr(name).to_string_lossy().into_owned();
        (*shim).record(Step::Delete { file });
        ((*(*shim).real).xDelete.unwrap())((*shim).real, name, sync)
    }
}

/// Calls the same method of the real file.
macro_rules! forward {
    ($name:ident, $method:ident, ($($arg:ident: $type:ty),*) -> $out:ty) => {
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file, $($arg: $type),*) -> $out {
            // SAFETY: `file` was opened by `open`, so the real file behind it is open too; arguments are SQLite's.
            unsafe { ((*(*real(file)).pMethods).$method.unwrap())(real(file), $($arg),*) }
        }
    };
}

forward!(read, xRead, (buffer: *mut c_void, amount: c_int, at: i64) -> c_int);
forward!(file_size, xFileSize, (size: *mut i64) -> c_int);
forward!(lock, xLock, (level: c_int) -> c_int);
forward!(unlock, xUnlock, (level: c_int) -> c_int);
forward!(check_reserved, xCheckReservedLock, (out: *mut c_int) -> c_int);
forward!(control, xFileControl, (op: c_int, arg: *mut c_void) -> c_int);
forward!(sector_size, xSectorSize, () -> c_int);
forward!(characteristics, xDeviceCharacteristics, () -> c_int);
forward!(shm_map, xShmMap, (page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int);
forward!(shm_barrier, xShmBarrier, () -> ());
forward!(shm_unmap, xShmUnmap, (delete: c_int) -> c_int);

/// The lock for writers is the first of those in the shared memory.
unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    let (shim, _) = opened(file);
    // SAFETY: as in `forward!`.
    let code = unsafe { ((*(*real(file)).pMethods).xShmLock.unwrap())(real(file), offset, n, flags) };
    if offset == 0 && code == ffi::SQLITE_OK {
        let held = shim.held.swap(0, Ordering::SeqCst);
        shim.longest.fetch_max(held, Ordering::SeqCst);
    }
    code
}

fn opened(file: *mut ffi::sqlite3_file) -> (&'static Shim, String) {
    // SAFETY: `file` was opened by `open`, which filled in both; the shim is leaked, the name lives until `close`.
    unsafe {
        let ours = file.cast::<File>();
        (&*(*ours).shim, CStr::from_ptr((*ours).name).to_string_lossy().into_owned())
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as in `forward!`; the name was made by `into_raw` and is taken back once.
    unsafe {
        drop(CString::from_raw((*file.cast::<File>()).name));
        ((*(*real(file)).pMethods).xClose.unwrap())(real(file))
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    amount: c_int,
    at: i64,
) -> c_int {
    let (shim, name) = opened(file);
    let mut size = 0;
    // SAFETY: as in `forward!`.
    unsafe { file_size(file, &raw mut size) };
    let grows = (at + i64::from(amount) - size).max(0);
    if shim.room.fetch_sub(grows, Ordering::SeqCst) < grows {
        shim.room.fetch_add(grows, Ordering::SeqCst);
        return ffi::SQLITE_FULL;
    }
    if name.ends_with("-wal") {
        if shim.life.fetch_sub(1, Ordering::SeqCst) <= 0 {
            std::process::abort();
        }
        shim.held.fetch_add(i64::from(amount), Ordering::SeqCst);
    }
    // SAFETY: SQLite hands `amount` octets at `data`.
    let octets = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(amount).unwrap()) };
    shim.record(Step::Write { file: name, at: at.cast_unsigned(), data: octets.to_vec() });
    // SAFETY: as in `forward!`.
    unsafe { ((*(*real(file)).pMethods).xWrite.unwrap())(real(file), data, amount, at) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let (shim, name) = opened(file);
    shim.record(Step::Truncate { file: name, size: size.cast_unsigned() });
    // SAFETY: as in `forward!`.
    unsafe { ((*(*real(file)).pMethods).xTruncate.unwrap())(real(file), size) }
}

/// Noted before it would begin: what is written while it runs is not covered. The real sync is left out, the
/// test's machine does not lose power.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    let (shim, name) = opened(file);
    if !shim.lies.load(Ordering::SeqCst) {
        shim.record(Step::Sync { file: name });
    }
    ffi::SQLITE_OK
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2, // no memory mapping: it would pass us by
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// What a disk holds, and what is on its way there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: BTreeMap<String, Stored>,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    /// What was synced; `None`: the file itself never was.
    durable: Option<Vec<u8>>,
    pending: Vec<Step>,
}

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// All of it is lost.
    Lost,
    /// Any part of it, in any order, may be there; the last octets of a write may be missing.
    Anything,
}

impl Disk {
    /// Takes one step. Only a sync makes anything durable.
    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::Note(..) => {}
            Step::Sync { file } => {
                self.sync_folder(file);
                let stored = self.files.entry(file.clone()).or_default();
                let mut content = stored.durable.take().unwrap_or_default();
                for step in stored.pending.drain(..) {
                    apply(&mut content, &step, usize::MAX);
                }
                stored.durable = Some(content);
            }
            Step::Write { file, .. } | Step::Truncate { file, .. } | Step::Delete { file } => {
                self.files.entry(file.clone()).or_default().pending.push(step.clone());
            }
        }
    }

    /// The real VFS syncs the folder with the first sync of a log or journal that it made: then what was taken
    /// away before stays away. Nothing else syncs it.
    fn sync_folder(&mut self, file: &str) {
        let made =
            |s: &Stored| s.durable.is_none() || s.pending.iter().any(|p| matches!(p, Step::Delete { .. }));
        let first = self.files.get(file).is_some_and(made);
        if !first || !(file.ends_with("-wal") || file.ends_with("-journal")) {
            return;
        }
        for stored in self.files.values_mut() {
            if let Some(last) = stored.pending.iter().rposition(|p| matches!(p, Step::Delete { .. })) {
                stored.durable = None;
                stored.pending.drain(..=last);
            }
        }
    }

    /// Writes the files into `folder` as the machine finds them when the power is back.
    pub(crate) fn lose_power(&self, folder: &Path, unsynced: Unsynced, random: &mut impl Rng) {
        for (file, stored) in &self.files {
            let mut content = stored.durable.clone();
            if unsynced == Unsynced::Anything {
                for step in &stored.pending {
                    if matches!(step, Step::Delete { .. }) && random.random() {
                        content = None;
                    } else if random.random() {
                        let cut = if random.random_ratio(1, 8) {
                            random.random_range(0..8) * 512
                        } else {
                            usize::MAX
                        };
                        apply(content.get_or_insert_default(), step, cut);
                    }
                }
            }
            if let Some(mut content) = content {
                if file.ends_with("-wal") {
                    // The store appends zeros behind the log past SQLite, and so past this record: any part of them may be there.
                    content.resize(content.len() + random.random_range(0..=64) * 1024, 0);
                }
                let name = PathBuf::from(file);
                std::fs::write(folder.join(name.file_name().unwrap()), content).unwrap();
            }
        }
    }
}

/// Does one step to a file's content, of a write at most `cut` octets.
fn apply(content: &mut Vec<u8>, step: &Step, cut: usize) {
    match step {
        Step::Write { at, data, .. } => {
            let (at, data) = (usize::try_from(*at).unwrap(), &data[..data.len().min(cut)]);
            if content.len() < at + data.len() {
                content.resize(at + data.len(), 0);
            }
            content[at..at + data.len()].copy_from_slice(data);
        }
        Step::Truncate { size, .. } => content.truncate(usize::try_from(*size).unwrap()),
        Step::Delete { .. } => content.clear(),
        Step::Sync { .. } | Step::Note(..) => {}
    }
}
