//! How one process hears of another's commits.
//!
//! Who has committed opens the write-ahead log for writing and closes it again, after the commit can be seen. Every
//! process that watches has an `inotify` watch on that file and wakes, a thread of its own, in some
//! microseconds. It then reads what is new; the wake-up itself says nothing.
//!
//! A write to the log would wake too, but too early: before the commit can be seen. A time stamp that is set would wake as
//! well, but makes work for the next sync: a file system without a journal then writes down the inode, too. What could be missed
//! is the commit of a process that died, or was killed, between its commit and the bell: its files are then closed
//! by the kernel, and that wakes as well. So nothing is polled, and nothing is missed for longer than its
//! writer lives.
//!
//! A bell that fails, by an error of one reading, ends the watches and is done; the next watch hangs up another. It also
//! hears when the files are moved, removed or replaced, which is for good (see `files`).
//!
//! A process rings before it answers who committed. So whoever finds that nothing rang which was not looked at ([`Ears`]) knows every
//! commit that was acknowledged by then, without asking SQLite. It rings for itself, too: right after each commit of its own there is something to look at.
//!
//! The log carries no locks. The database file itself is never opened here: closing it would drop the locks that
//! SQLite holds on it.

use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, ioctl_fionread};
use shoal_store::parts::Hub;
use shoal_store::{Result, StoreError};

use crate::files::Files;
use crate::open::{Options, reopen};
use crate::shared::catch_up;

/// Wakes every process that watches this file, and says whether that worked. `log` is the write-ahead log.
pub(crate) fn ring(log: &Path) -> bool {
    let rung = open(log, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    if let Err(error) = rung {
        // What was committed stands all the same. Others hear of it with the next one.
        tracing::warn!(log = %log.display(), %error, "other processes could not be told of a commit");
    }
    rung.is_ok()
}

/// What rings, and whether all of it was looked at.
pub(crate) struct Ears {
    events: OwnedFd,
    /// From before what rang is taken in until the hub was told of what it was about.
    busy: AtomicBool,
    stop: AtomicBool,
}

impl Ears {
    /// Whether the hub was told of every commit that was acknowledged before this was called, by whatever process. Costs a call of the
    /// kernel.
    pub(crate) fn heard_all(&self) -> bool {
        // First what rings, then whether somebody is at it: what was taken in before the first look was announced before.
        !self.stop.load(Ordering::SeqCst)
            && ioctl_fionread(&self.events).is_ok_and(|octets| octets == 0)
            && !self.busy.load(Ordering::SeqCst)
    }
}

/// A thread that listens.
pub(crate) struct Bell {
    files: Arc<Files>,
    ears: Arc<Ears>,
    thread: Option<JoinHandle<()>>,
}

impl Bell {
    /// Starts to listen. What was committed before is not told: look after this.
    pub(crate) fn hang(
        files: &Arc<Files>,
        options: &Options,
        hub: Arc<Hub>,
        telling: Arc<Mutex<()>>,
    ) -> Result<Self> {
        let log = &files.log;
        let failed = |what: &str, error: &dyn std::fmt::Display| StoreError::Unavailable {
            place: log.display().to_string(),
            why: format!("listening for commits of other processes, {what}: {error}"),
        };
        let connection = reopen(&files.place, options)?;
        let events = inotify::init(CreateFlags::CLOEXEC).map_err(|error| {
            failed("starting inotify (the limit is fs.inotify.max_user_instances: raise it)", &error)
        })?;
        // Of the file itself only that it goes.
        let fate = WatchFlags::ATTRIB | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        inotify::add_watch(&events, log, fate | WatchFlags::CLOSE_WRITE)
            .and_then(|_| inotify::add_watch(&events, &files.place, fate))
            .map_err(|error| {
                failed("watching the files (the limit is fs.inotify.max_user_watches)", &error)
            })?;
        let ears = Arc::new(Ears { events, busy: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let listener =
            Listener { files: Arc::clone(files), connection, hub, telling, ears: Arc::clone(&ears) };
        let thread = std::thread::Builder::new()
            .name("shoal-bell".into())
            .spawn(move || listener.run())
            .map_err(|error| failed("starting a thread", &error))?;
        Ok(Self { files: Arc::clone(files), ears, thread: Some(thread) })
    }

    /// What it listens by.
    pub(crate) fn ears(&self) -> Arc<Ears> {
        Arc::clone(&self.ears)
    }

    /// Whether it still does.
    pub(crate) fn listens(&self) -> bool {
        !self.ears.stop.load(Ordering::SeqCst)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ears.stop.store(true, Ordering::SeqCst);
        // Wakes our own thread among others. If that fails it ends with its next event, and is not waited for:
        // when the files are gone, that was the event.
        if self.files.check().is_ok()
            && ring(&self.files.log)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

struct Listener {
    files: Arc<Files>,
    connection: Connection,
    hub: Arc<Hub>,
    telling: Arc<Mutex<()>>,
    ears: Arc<Ears>,
}

impl Listener {
    fn run(self) {
        let ears = Arc::clone(&self.ears);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&ears.events, &mut buffer);
        loop {
            let rang = waited(&ears.events).and_then(|()| {
                // Before any of it is taken in: see `Ears::heard_all`.
                ears.busy.store(true, Ordering::SeqCst);
                events.next()?;
                // Many events, one look.
                while !events.is_buffer_empty() {
                    events.next()?;
                }
                Ok(())
            });
            match rang {
                _ if ears.stop.load(Ordering::SeqCst) => return,
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(error) => {
                    let place = self.files.place.display().to_string();
                    let why = format!("listening for commits of other processes: {error}");
                    return self.end(StoreError::Unavailable { place, why });
                }
            }
            let caught_up = self.files.check().and_then(|()| {
                catch_up(&self.hub, &self.telling, &self.connection)
                    .map_err(|stop| stop.at(&self.files.place, "reading the commits of another process"))
            });
            if let Err(error) = caught_up {
                return self.end(error);
            }
            ears.busy.store(false, Ordering::SeqCst);
        }
    }

    fn end(&self, error: StoreError) {
        tracing::error!(%error, "watches end here, and have to be begun anew");
        // Before the watches are told: who begins anew at once must not rely on this one.
        self.ears.stop.store(true, Ordering::SeqCst);
        self.hub.close(error);
    }
}

/// Waits until something rings.
fn waited(events: &OwnedFd) -> Result<(), Errno> {
    poll(&mut [PollFd::new(events, PollFlags::IN)], None).map(drop)
}
