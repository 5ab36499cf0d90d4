//! The places of runs: one of the host, one of its physical machine, one of the repository, or all of a repository. They are claims in the
//! database, so that the limits hold for all nodes together.
//!
//! A run takes all of its places or none, and asks for them ever more rarely. While it holds them it renews them, and it stops itself when
//! it cannot, before they run out. Hundreds may wait: of each repository only as many ask the database as may run.

use std::time::{Duration, Instant};

use shoal_agent::{Fault, Place};
use tokio::sync::watch;

use super::program::{Stop, stopped};
use super::runs::{ENDS, Run, Work};
use crate::item::{Begun, Item, Key, Record};
use crate::name::Label;
use crate::schedule::seed;
use crate::step;

/// How long a place is held without being renewed.
const LEASE: Duration = Duration::from_secs(60);
/// How often a place is renewed, and how long that may take.
const RENEW: Duration = Duration::from_secs(10);
/// How long to wait at first until places are asked for again.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest wait; well below the lease, which keeps what was got so far.
const RARELY: Duration = Duration::from_secs(20);

impl Work {
    /// Takes the places of a run, until it has them; `None`: its window closed meanwhile.
    pub(crate) async fn places(
        &self,
        run: &Run<'_>,
        record: &Record,
        begun: &Begun,
        stop: &mut Stop,
    ) -> Result<Option<Vec<Place>>, Fault> {
        let repository = run.key.repository();
        let Some(queue) = self.queues.get(repository) else {
            return self.caller(repository, false).map(|_| Some(Vec::new()));
        };
        let wanted = self.wanted(run, record, begun);
        let (exclusive, mut places, mut attempt) =
            (wanted.iter().any(|(.., count)| *count > 1), Vec::new(), 0);
        loop {
            let turn = tokio::select! {
                turn = queue.acquire() => turn.map_err(|_| ENDS.to_owned()),
                why = stopped(stop) => Err(why),
            };
            let why = match turn {
                Ok(turn) => {
                    let tried = self.try_places(&wanted, run, &mut places).await;
                    drop(turn);
                    match tried {
                        Ok(true) => return Ok(Some(places)),
                        Ok(false) => {}
                        Err(fault) => run.say(&fault.to_string()),
                    }
                    // What needs all of a repository keeps what it has got, or it would never have all while others come and go.
                    if !exclusive {
                        free(&mut places).await;
                    }
                    if closed(run, record, begun) {
                        free(&mut places).await;
                        return Ok(None);
                    }
                    attempt += 1;
                    tokio::select! {
                        () = tokio::time::sleep(pause(run.key, attempt)) => continue,
                        why = stopped(stop) => why,
                    }
                }
                Err(why) => why,
            };
            free(&mut places).await;
            return Err(Fault::new(format!("{} {}", begun.verb, run.key), why));
        }
    }

    /// The places of a run: each with how many there are of it, and how many the run takes. That of which there are fewest comes first:
    /// who does not get it has asked for no other.
    fn wanted(&self, run: &Run<'_>, record: &Record, begun: &Begun) -> Vec<(String, u32, u32)> {
        let of = |name: &Label| self.settings.repositories.get(name).map_or(1, |one| one.parallel.max(1));
        let place = |name: &Label| format!("repository/{name}");
        let repository = run.key.repository();
        let parallel = of(repository);
        match (run.key, &record.item) {
            (Key::Backup { host, .. }, Item::Backup(job)) => {
                let mut wanted = vec![
                    (place(repository), parallel, 1),
                    (format!("box/{}", job.on), self.settings.per_box.max(1), 1),
                    (format!("host/{host}"), 1, 1),
                ];
                // Nothing is removed from a repository while a file is purged for being in it.
                let also =
                    job.purge.iter().filter(|_| begun.verb == step::PURGE).flat_map(|purge| &purge.also);
                wanted.extend(also.map(|name| (place(name), of(name), 1)));
                wanted
            }
            // What is exclusive in the repository has it alone here, too. One at a time gathers all of its places: two that each have
            // some would wait for each other.
            _ => vec![(format!("upkeep/{repository}"), 1, 1), (place(repository), parallel, parallel)],
        }
    }

    /// Whether it has all places now.
    async fn try_places(
        &self,
        wanted: &[(String, u32, u32)],
        run: &Run<'_>,
        places: &mut Vec<Place>,
    ) -> Result<bool, Fault> {
        let mut kept = places.len();
        let mut lost = false;
        for place in places.iter_mut() {
            lost |= place.renew().await.is_err();
        }
        if lost {
            free(places).await;
            kept = 0;
        }
        let all = wanted.iter().flat_map(|(name, of, count)| (0..*count).map(move |_| (name, *of)));
        for (name, of) in all.skip(kept) {
            match self.base.place("backup", name, of, LEASE).await? {
                Some(place) => places.push(place),
                None => {
                    run.say(&format!("waits for one of {of} places: {name}"));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

async fn free(places: &mut Vec<Place>) {
    for place in places.drain(..) {
        place.release().await;
    }
}

/// How long to wait until places are asked for again: longer each time, and not with all others at once.
fn pause(key: &Key, attempt: u32) -> Duration {
    let most = (AGAIN * 2u32.saturating_pow(attempt.min(6) - 1)).min(RARELY);
    let chance = seed(&format!("{key} {attempt}")) % 1_000;
    most / 2 + (most / 2).mul_f64(f64::from(u32::try_from(chance).unwrap_or(0)) / 1_000.0)
}

/// Whether a backup's window has closed since it was begun. It is due as before, and begins when that opens again.
fn closed(run: &Run<'_>, record: &Record, begun: &Begun) -> bool {
    let (Item::Backup(job), step::BACK_UP) = (&record.item, begun.verb.as_str()) else { return false };
    let now = begun.at.saturating_add(run.elapsed());
    job.schedule.opens(run.key.seed(), now).is_none_or(|opens| opens > now)
}

/// Renews places. Tells the run to stop as soon as others have one of them; or when none can be renewed for so long that the run, with the
/// time that it has for its end, still ends before its places do.
pub(crate) async fn keep(
    places: &mut [Place],
    stop: &watch::Sender<Option<String>>,
) -> std::convert::Infallible {
    let mut held = Instant::now();
    loop {
        tokio::time::sleep(RENEW).await;
        let now = Instant::now();
        let renewed = tokio::time::timeout(RENEW, renew(places)).await;
        let late = || Fault::new("keep the places of a run", "the database does not answer");
        match renewed.unwrap_or_else(|_| Err(late())) {
            Ok(()) => held = now,
            Err(fault) if fault.permanent || held.elapsed() >= LEASE / 2 => {
                stop.send_replace(Some(fault.to_string()));
            }
            Err(fault) => tracing::warn!("{fault}; tried again"),
        }
    }
}

/// Renews all of them, also where one cannot be. Of several faults answers the one that will not pass.
async fn renew(places: &mut [Place]) -> Result<(), Fault> {
    let mut lost: Option<Fault> = None;
    for place in places {
        let Err(fault) = place.renew().await else { continue };
        if lost.as_ref().is_none_or(|lost| fault.permanent && !lost.permanent) {
            lost = Some(fault);
        }
    }
    lost.map_or(Ok(()), Err)
}
