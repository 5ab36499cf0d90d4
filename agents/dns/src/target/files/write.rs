//! One batch into one file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shoal_agent::{Applied, Batch, Fault, Fence, Outcome, Why, command};

use super::ask::Answer;
use super::file::{Files, Known};
use super::settings::ZoneFileSettings;
use super::weigh::Draft;
use super::{ask, claim};
use crate::Dns;
use crate::name::Zone;
use crate::record::{Key, Node};
use crate::target::serial::{latest, newer};
use crate::target::zonefile::render;
use crate::target::{moved, undeclared};

/// How often a candidate is mended and checked again before the batch is given up.
const ROUNDS: usize = 16;
/// How long a server may fail for a zone that it served before it is told of the new file, until that counts as refused.
const FAILS: Duration = Duration::from_secs(2);

/// Everything that a batch is carried out with.
pub(super) struct Work<'a> {
    pub(super) zone: &'a Zone,
    pub(super) settings: &'a ZoneFileSettings,
    pub(super) files: &'a Files,
    pub(super) fence: &'a Fence,
    pub(super) telling: &'a tokio::sync::Mutex<()>,
}

impl Work<'_> {
    pub(super) async fn apply(&self, batch: &Batch<Dns>, known: &mut Known) -> Result<Applied<Dns>, Fault> {
        self.fence.check()?;
        self.files.look(self.zone, known).await?;
        claim(&self.settings.directory, self.fence.epoch)?;
        if known.exists() && !known.file.ours && !self.settings.adopts(self.zone) {
            return Err(self
                .fault("write", "the file is not Shoal's: its mark is missing in the second line")
                .next(format!("move it away, or let Shoal take it over with adopt = [\"{}\"]", self.zone))
                .permanent());
        }
        if batch
            .changes
            .iter()
            .any(|edit| edit.from.as_ref().map(|have| &have.records) != known.records(&edit.key))
        {
            return Ok(each(batch, |_| Outcome::Stale));
        }
        let current = Arc::clone(&known.file);
        let mut draft = Draft::new(self.zone, self.settings.kind, batch, &current.nodes);
        if !draft.is_zone() {
            return self.no_zone(batch, known).await;
        }
        let Some((differences, serial)) = self.candidate(&mut draft, known).await? else {
            // Nothing to write: at most, the server has to be told of what stands there.
            if let Some(serial) = known.file.serial {
                known.stamp = self.files.renew(self.zone).map_err(|e| self.fault("renew", e))?;
                self.serve(serial, known).await?;
            }
            return Ok(draft.applied(batch));
        };
        self.fence.check()?;
        known.stamp =
            self.files.replace(self.zone, self.is_good(known)).map_err(|e| self.fault("replace", e))?;
        let mut applied = draft.applied(batch);
        // The last other holders: from here on the map is changed in place.
        drop(draft);
        drop(current);
        let file = Arc::make_mut(&mut known.file);
        for (key, node) in differences {
            match node {
                Some(node) => file.nodes.insert(key, node),
                None => file.nodes.remove(&key),
            };
        }
        (file.ours, file.intact, file.odd, file.serial) = (true, true, None, Some(serial));
        self.serve(serial, known).await?;
        // What was refused for want of a zone can be written now.
        let refused = std::mem::take(&mut known.refused);
        moved(&mut applied.each, batch, refused);
        Ok(applied)
    }

    /// Writes a candidate that the checker accepts; what differs, and the new serial. `None` if nothing differs.
    async fn candidate(
        &self,
        draft: &mut Draft<'_>,
        known: &Known,
    ) -> Result<Option<(Vec<(Key, Option<Node>)>, u32)>, Fault> {
        let path = self.files.candidate(self.zone);
        if self.settings.max_records > 0 {
            draft.bound(self.settings.max_records);
        }
        draft.below_dnames();
        for _ in 0..ROUNDS {
            draft.name_servers()?;
            let differences = draft.differences();
            // A server goes back to an earlier serial as it likes, and its secondaries do not.
            let ahead = known.served.zip(known.file.serial).is_some_and(|(served, file)| newer(served, file));
            if differences.is_empty() && known.file.odd.is_none() && !ahead {
                self.files.discard(self.zone);
                return Ok(None);
            }
            let last = match (known.file.serial, known.served) {
                (Some(file), Some(served)) => Some(latest(file, served)),
                (file, served) => file.or(served),
            };
            let serial = self.settings.serial.next(last, today());
            let rendered = render(self.zone, serial, draft.lines());
            let (files, zone) = (self.files.clone(), self.zone.clone());
            // Nothing stops a thread that writes: if this is given up, the next attempt waits until it has ended.
            let writing = Arc::clone(&known.writing).lock_owned().await;
            let written = tokio::task::spawn_blocking(move || {
                let written = files.write(&zone, &rendered);
                drop(writing);
                written.map(|()| rendered)
            });
            let rendered = written
                .await
                .map_err(|e| self.fault("write the candidate of", e))?
                .map_err(|e| self.fault("write the candidate of", e))?;
            let complaint = match self.run(&self.settings.check, &path).await {
                Ok(()) => return Ok(Some((differences, serial))),
                Err(complaint) if self.settings.kind.traits().loads_all_the_same(&complaint) => {
                    return Ok(Some((differences, serial)));
                }
                Err(complaint) => complaint,
            };
            if !draft.blame(&complaint, &path.to_string_lossy(), &rendered) {
                self.files.discard(self.zone);
                return Err(self.fault("check the candidate of", complaint).permanent());
            }
        }
        self.files.discard(self.zone);
        Err(self.fault(
            "check the candidate of",
            format!("{ROUNDS} rounds of leaving out bad records did not help"),
        ))
    }

    /// Whether the file that stands is one to go back to: what Shoal wrote, or what the server is known to have. An edit of
    /// Shoal's file may never have been loaded, whatever its serial.
    fn is_good(&self, known: &Known) -> bool {
        let file = &known.file;
        let served = self.settings.server.is_none() || known.served.is_some() && known.served == file.serial;
        file.intact || !file.ours && served
    }

    /// Has the file loaded, and makes sure that it is; if not, puts the last good one back.
    async fn serve(&self, serial: u32, known: &mut Known) -> Result<(), Fault> {
        let loaded = self.load(serial, known.served.is_some()).await;
        // Loading may take longer than the claim lasts: what stands beside the file is then the next holder's to settle. It
        // is settled all the same where it is loaded and nobody came: else what always takes so long would never be.
        if loaded.is_err() || self.files.differs(self.zone, known) {
            self.fence.check()?;
        }
        let Err(why) = loaded else {
            known.served = self.settings.server.map(|_| serial);
            known.pending = false;
            return self.files.settle(self.zone).map_err(|e| self.fault("settle", e));
        };
        let back =
            self.files.put_back(self.zone).map_err(|e| self.fault("put the last good file back for", e))?;
        let fault = self.fault("load", &why);
        if !back {
            return Err(
                fault.next("there is no earlier file to go back to; see that the server knows the zone")
            );
        }
        // What becomes of this reload, the next look shows.
        let path = self.files.path(self.zone);
        if let Err(again) = self.run(&self.settings.reload, &path).await {
            tracing::warn!(zone = %self.zone, "reload of the last good file: {again}");
        }
        Err(fault.next("the last good file is back in its place"))
    }

    /// `served`: whether the server served the zone before.
    async fn load(&self, serial: u32, served: bool) -> Result<(), String> {
        let (path, within) = (self.files.path(self.zone), self.settings.within());
        if let Err(why) = self.run(&self.settings.reload, &path).await {
            if self.settings.add.is_empty() {
                return Err(why);
            }
            let _telling = self.telling.lock().await;
            self.run(&self.settings.add, &path)
                .await
                .map_err(|add| format!("{why}; and adding the zone: {add}"))?;
        }
        match self.settings.server {
            Some(server) => {
                // NSD answers SERVFAIL once it has read a broken file. Another reload alone makes that good.
                let fails = if served { FAILS.min(within) } else { within };
                ask::until(server, self.zone, Answer::Serial(serial), within, fails).await
            }
            None => Ok(()),
        }
    }

    /// The batch leaves no start of authority: the zone goes, if a tag or somebody's edit of one says so.
    async fn no_zone(&self, batch: &Batch<Dns>, known: &mut Known) -> Result<Applied<Dns>, Fault> {
        let reason = batch
            .changes
            .iter()
            .find(|edit| edit.key.is_apex() && edit.to.is_none())
            .map(|edit| &edit.because);
        let named = matches!(reason, Some(Why::TagGone(..) | Why::Edited(..)));
        let mut applied = each(batch, |wanted| match wanted {
            None => Outcome::Done,
            Some(key) => Outcome::Failed(undeclared(self.zone, key)),
        });
        // Without a file it may still be served: a removal got half way, or somebody took the file.
        if known.exists() || known.served.is_some() {
            if !named {
                return Err(self.unnamed(known.exists()));
            }
            self.stop_serving().await?;
            // That may have taken longer than the claim lasts.
            self.fence.check()?;
            self.files.remove(self.zone).map_err(|e| self.fault("remove", e))?;
            *known = Known { writing: Arc::clone(&known.writing), ..Known::default() };
            // Every other name went with the file.
            moved(&mut applied.each, batch, batch.after.iter().map(|(key, _)| key.clone()));
        }
        known
            .refused
            .extend(batch.changes.iter().filter(|edit| edit.to.is_some()).map(|edit| edit.key.clone()));
        Ok(applied)
    }

    /// The zone is there, has no start of authority in what is wanted, and nothing says that it should go.
    fn unnamed(&self, file: bool) -> Fault {
        let zone = self.zone;
        let (why, next) = if file {
            (
                "nothing says what its SOA is, and nothing says that the zone should go",
                format!("give the tag dns/{zone} an soa, or delete the tag"),
            )
        } else {
            (
                "there is none, and the server serves this zone from elsewhere",
                format!(
                    "take the zone out of the server's configuration, or let Shoal take it over with adopt = [\"{zone}\"]"
                ),
            )
        };
        self.fault("write", why).next(next).permanent()
    }

    /// Has the server forget the zone, and makes sure that it has. The file goes only after that: while it stands,
    /// whatever stops this is tried again.
    async fn stop_serving(&self) -> Result<(), Fault> {
        self.fence.check()?;
        let (path, remove) = (self.files.path(self.zone), &self.settings.remove);
        let table = self.settings.kind.traits().table;
        let telling = self.telling.lock().await;
        let ran = self.run(remove, &path).await;
        drop(telling);
        let Some(server) = self.settings.server else {
            return ran.map_err(|why| {
                self.fault("remove", why).next(format!("it is tried again; correct `remove` in {table}"))
            });
        };
        // Only a command that succeeded is worth waiting for.
        let works = ran.is_ok() && !remove.is_empty();
        let within = if works { self.settings.within() } else { self.settings.answer_within() };
        let Err(served) = ask::until(server, self.zone, Answer::NotServed, within, within).await else {
            if let Err(why) = ran {
                tracing::debug!(zone = %self.zone, "the zone is not served, so that the remove command failed is no matter: {why}");
            }
            return Ok(());
        };
        Err(match ran {
            Err(why) => self
                .fault("remove", format!("{why}; and {served}"))
                .next(format!("it is tried again; correct `remove` in {table}")),
            Ok(()) if remove.is_empty() => self
                .fault("remove", served)
                .next(format!("take the zone out of the server's configuration, or set `remove` in {table}")),
            Ok(()) => {
                self.fault("remove", served).next("it is tried again; see why the server keeps the zone")
            }
        })
    }

    /// Runs a command of the configuration about this zone and a file of it.
    async fn run(&self, command: &[String], file: &Path) -> Result<(), String> {
        let places = [("{zone}", self.zone.as_str()), ("{file}", &*file.to_string_lossy())];
        command::run(command, &places, self.settings.within()).await
    }

    fn fault(&self, verb: &str, why: impl ToString) -> Fault {
        Fault::new(format!("{verb} the zone file {}", self.files.path(self.zone).display()), why)
    }
}

/// An outcome for each change, from the key of what it wants.
fn each(batch: &Batch<Dns>, outcome: impl Fn(Option<&Key>) -> Outcome) -> Applied<Dns> {
    let one = |edit: &shoal_agent::Edit<Dns>| {
        let wanted = edit.to.is_some().then_some(&edit.key);
        (edit.key.clone(), outcome(wanted))
    };
    Applied { each: batch.changes.iter().map(one).collect(), facts: Vec::new() }
}

/// The day in UTC, as `YYYYMMDD`.
fn today() -> u32 {
    let day = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let part = |n: i32| u32::try_from(n).unwrap_or_default();
    part(day.year().into()) * 10_000 + part(day.month().into()) * 100 + part(day.day().into())
}
