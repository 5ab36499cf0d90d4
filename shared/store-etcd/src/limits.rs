//! Etcd's limits, before they bite.
//!
//! * *Operations and octets of a request.* What is larger is written in parts (see `large`), counted by etcd's defaults; keys count as values do, also
//!   those that are only compared or asked for (see `known`), because a rule is a member, and so a key of 4 KiB. Whether etcd allows
//!   that much is tried when a database is made, or a copy begun; later it is an error that names the settings.
//! * *The size of its own database.* When its file has reached its quota, etcd raises an alarm and takes no more writes, from nobody,
//!   until a person acts. So a program that stays says in its log when four fifths are taken, and a large commit
//!   that would not fit is refused before anything of it is written, where the quota is known. A copy, which writes more than anything else
//!   does, looks every few megabytes.
//! * *Slow watchers.* Etcd is told by one watch for each process, in pieces, and read at once; a watcher of ours is a cursor. What a slow one
//!   missed is read from the log (see `news`).

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn};
use shoal_store::{Result, StoreError};
use tokio::task::JoinHandle;

use crate::judge::{Ops, octets};
use crate::keys::Keys;
use crate::link::{ASKED, BYTES, Link, OPS, Room, get, put};

/// How often a program looks how large etcd's database is.
const LOOK: Duration = Duration::from_secs(600);
/// When it looks first: commands are gone by then.
const FIRST: Duration = Duration::from_secs(30);
/// What a change takes beside its value: its rows in the indexes, and what etcd adds to each of them; and in how many more of them its key
/// stands, at most: its versions, and of a member, which is most of the key, also who names it.
const BESIDE: usize = 1 << 10;
const KEYS: usize = 3;
/// What etcd adds to one key.
const ADDED: usize = 256;
/// After so much of etcd's file a copy looks again how much there is.
const STRETCH: u64 = 8 << 20;

/// Tries whether etcd takes as much at once as we send, and writes nothing. Costs one request of that size.
pub(crate) async fn try_out(link: &Link, keys: &Keys) -> Result<()> {
    // No key has such a version: so nothing is done, and all of it is looked at.
    let never = Compare::version(keys.head(), CompareOp::Less, 0);
    let largest = put(keys.part("try", 0), vec![b' '; BYTES + 2 * ASKED]);
    let ops = std::iter::once(largest).chain((0..OPS).map(|_| get(keys.head()))).collect::<Vec<_>>();
    link.again("trying how much it takes at once", Txn::new().when(vec![never]).and_then(ops)).await.map(drop)
}

/// Refuses a write of so many octets, and so many [`beside`] them, that would leave etcd without room. Where it is not known how much that has,
/// nothing is refused.
pub(crate) async fn room_for(link: &Link, octets: usize, beside: usize) -> Result<()> {
    // In parts, and once more as rows.
    fits(link, 2 * octets as u64 + beside as u64).await
}

/// How many octets the indexes take of changes at these keys.
pub(crate) fn beside<'a>(keys: impl Iterator<Item = &'a str>) -> usize {
    keys.map(|key| BESIDE + KEYS * key.len()).sum()
}

/// The same for what takes so many octets of etcd's file.
async fn fits(link: &Link, wanted: u64) -> Result<()> {
    let room = match link.room().await {
        Ok(room) => room,
        Err(error) => {
            tracing::debug!(%error, "how much room etcd has is not known");
            return Ok(());
        }
    };
    match room.known && !room.fits(wanted) {
        false => Ok(()),
        true => Err(StoreError::Full {
            place: link.place.to_string(),
            why: format!(
                "a write that takes about {} is too much for its quota of {}, of which {} are in use; raise its \
                 --quota-backend-bytes (and ?quota= of the address), or compact and defragment it, or commit less at once",
                size(wanted),
                size(room.quota),
                size(room.used)
            ),
        }),
    }
}

/// How much of the room that was found is left, for who writes very much in many transactions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stretch {
    left: u64,
}

impl Stretch {
    /// Refuses to write these keys if etcd would soon be without room. Looks how much it has once for every few megabytes.
    pub(crate) async fn take(&mut self, link: &Link, all: &[Ops]) -> Result<()> {
        let wanted = all.iter().map(cost).sum::<u64>();
        if wanted > self.left {
            let stretch = wanted.max(STRETCH);
            // Twice that: etcd says how large it was a moment ago, and others write, too.
            fits(link, 2 * stretch).await?;
            self.left = stretch;
        }
        self.left -= wanted;
        Ok(())
    }
}

/// About what these keys take of etcd's file: pages are half full at worst, and each key has what etcd adds to it.
fn cost(ops: &Ops) -> u64 {
    (2 * octets(ops) + ADDED * ops.len()) as u64
}

impl Room {
    /// Whether so much more may be written. What was freed in the file is filled first.
    fn fits(&self, wanted: u64) -> bool {
        self.file.max(self.used + wanted) < self.quota
    }

    /// What a person should know of it.
    fn warning(&self) -> Option<String> {
        // A file that is larger than what is only guessed says that the guess is wrong.
        if self.file < self.quota / 5 * 4 || !self.known && self.file > self.quota {
            return None;
        }
        let (file, used, quota) = (size(self.file), size(self.used), size(self.quota));
        let guess = match self.known {
            true => "",
            false => {
                " (unless its --quota-backend-bytes says otherwise: then write it behind the address, as in ?quota=8GiB)"
            }
        };
        Some(format!(
            "etcd's database has {file} of {quota}{guess}, {used} of it in use; when it is full nothing can be written any more: compact \
             and defragment it, or raise its quota"
        ))
    }
}

fn size(octets: u64) -> String {
    match octets {
        0..0x10_0000 => format!("{} KiB", octets >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", octets >> 20),
        _ => format!("{}.{} GiB", octets >> 30, ((octets & 0x3fff_ffff) * 10) >> 30),
    }
}

/// Who looks now and then how large etcd's database is; ends with the store.
pub(crate) struct Watching(JoinHandle<()>);

impl Watching {
    pub(crate) fn start(link: Link) -> Self {
        Self(tokio::spawn(async move {
            tokio::time::sleep(FIRST).await;
            loop {
                match link.room().await.map(|room| room.warning()) {
                    Ok(Some(warning)) => tracing::warn!("{}: {warning}", link.place),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "how much room etcd has is not known"),
                }
                tokio::time::sleep(LOOK).await;
            }
        }))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_fits_counts_what_was_freed() {
        let room = Room { file: 7 * GIB, used: 3 * GIB, quota: 8 * GIB, known: true };
        assert!(room.fits(4 * GIB) && !room.fits(5 * GIB));
        assert!(!Room { file: 8 * GIB, ..room }.fits(1), "its file is what etcd looks at");
    }

    #[test]
    fn it_is_said_when_four_fifths_are_taken() {
        let room = Room { file: 7 * GIB, used: 3 * GIB, quota: 8 * GIB, known: true };
        let said = room.warning().unwrap();
        assert!(said.contains("7.0 GiB of 8.0 GiB") && !said.contains("?quota="), "{said}");
        assert_eq!(Room { file: 6 * GIB, ..room }.warning(), None);
        assert!(Room { file: 9 * GIB, ..room }.warning().is_some());
        // Where it is a guess, that is said, and a file that is larger proves it wrong.
        let guessed = Room { file: 2 * GIB - 1, used: 0, quota: 2 * GIB, known: false };
        assert!(guessed.warning().unwrap().contains("?quota=8GiB"));
        assert_eq!(Room { file: 3 * GIB, ..guessed }.warning(), None);
    }

    #[test]
    fn long_keys_take_more_room() {
        assert_eq!(beside(["lb/a", "lb/b"].into_iter()), 2 * (BESIDE + 4 * KEYS));
        let rule = format!("dns/a/members/select: {}", "x".repeat(4000));
        assert!(beside(std::iter::once(rule.as_str())) > 3 * 4000 + BESIDE);
    }

    #[test]
    fn sizes_are_readable() {
        for (octets, said) in [(5 << 10, "5 KiB"), (700 << 20, "700 MiB"), (GIB + GIB / 2, "1.5 GiB")] {
            assert_eq!(size(octets), said);
        }
    }
}
