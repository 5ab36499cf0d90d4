//! How one process hears of another's commits.
//!
//! Who has committed touches the write-ahead log's time stamp: one system call, after the commit can be seen. Every
//! process that watches has an `inotify` watch on that file and wakes, a thread of its own, in some
//! microseconds. It then reads what is new; the wake-up itself says nothing.
//!
//! A write to the log would wake too, but too early: before the commit can be seen. What could be missed is
//! the commit of a process that died, or was killed, between its commit and the touch: its files are then closed
//! by the kernel, and that wakes as well. So nothing is polled, and nothing is missed for longer than its
//! writer lives.
//!
//! The touch is by path, and the database file itself is never opened here: closing it would drop the locks that
//! SQLite holds on it.

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{AtFlags, CWD, Timestamps, UTIME_NOW, utimensat};
use rustix::io::Errno;
use rustix::time::Timespec;
use shoal_store::parts::Hub;
use shoal_store::{Result, StoreError};

use crate::open::{Options, log_of, reopen};
use crate::shared::catch_up;

/// Wakes every process that watches this file, and says whether that worked. `log` is the write-ahead log.
pub(crate) fn ring(log: &Path) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let rung = utimensat(CWD, log, &times, AtFlags::empty());
    if let Err(error) = rung {
        // What was committed stands all the same. Others hear of it with the next one.
        tracing::warn!(log = %log.display(), %error, "other processes could not be told of a commit");
    }
    rung.is_ok()
}

/// A thread that listens.
pub(crate) struct Bell {
    log: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bell {
    /// Starts to listen. What was committed before is not told: look after this.
    pub(crate) fn hang(
        place: &Path,
        options: &Options,
        hub: Arc<Hub>,
        telling: Arc<Mutex<()>>,
    ) -> Result<Self> {
        let log = log_of(place);
        let failed = |what: &str, error: &dyn std::fmt::Display| StoreError::Unavailable {
            place: log.display().to_string(),
            why: format!("listening for commits of other processes, {what}: {error}"),
        };
        let connection = reopen(place, options)?;
        let events = inotify::init(CreateFlags::CLOEXEC).map_err(|error| {
            failed("starting inotify (the limit is fs.inotify.max_user_instances: raise it)", &error)
        })?;
        let kinds =
            WatchFlags::ATTRIB | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        inotify::add_watch(&events, &log, kinds)
            .map_err(|error| failed("watching the log (the limit is fs.inotify.max_user_watches)", &error))?;
        let stop = Arc::new(AtomicBool::new(false));
        let listener =
            Listener { place: place.to_owned(), connection, hub, telling, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new()
            .name("shoal-bell".into())
            .spawn(move || listener.run(&events))
            .map_err(|error| failed("starting a thread", &error))?;
        Ok(Self { log, stop, thread: Some(thread) })
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes our own thread among others. If that fails it ends with its next event, and is not waited for:
        // when the log is gone, that was the event.
        if ring(&self.log)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

struct Listener {
    place: PathBuf,
    connection: Connection,
    hub: Arc<Hub>,
    telling: Arc<Mutex<()>>,
    stop: Arc<AtomicBool>,
}

impl Listener {
    fn run(self, events: &OwnedFd) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(events, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    if self.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    if event.events().intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                        return self.end("its write-ahead log was taken away while it was open".into());
                    }
                }
                Err(Errno::INTR) => continue,
                Err(error) => return self.end(format!("listening for commits of other processes: {error}")),
            }
            // Many events, one look.
            if !events.is_buffer_empty() {
                continue;
            }
            if let Err(stop) = catch_up(&self.hub, &self.telling, &self.connection) {
                let error = stop.at(&self.place, "reading the commits of another process");
                tracing::error!(%error, "watches end here");
                return self.hub.close(error);
            }
        }
    }

    fn end(&self, why: String) {
        let error = StoreError::Unavailable { place: self.place.display().to_string(), why };
        tracing::error!(%error, "watches end here");
        self.hub.close(error);
    }
}
