//! Questions: what still fits, what breaks if a box dies, where the machines of a box or an availability zone would go, which moves would
//! gain something.
//!
//! They are answered from the database as it stands and write nothing. What is found is tried out and proves that it can be done; that nothing is
//! found proves nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use shoal_agent::Fault;
use shoal_agent::chooser::{Answer, Word, question};
use shoal_core::View;

use super::boxes::PAGE;
use super::decide::Settings;
use super::read::{BOX, Standing};
use super::write::reasons;
use crate::choose::{Evacuation, Fleet, Gain, Invalid, Move, Named, Request, Room, State, Step};

/// So many shapes are looked at, the most frequent ones.
const SHAPES: usize = 10;
/// So many boxes, and so many availability zones, are named where one is meant that is none.
const NAMED: usize = 10;
/// So many machines of a shape are counted at most.
const COUNTED: usize = 10_000;

/// The question about capacity.
#[derive(Clone, Debug, Args)]
struct Capacity {
    /// A shape to ask for, instead of those that are there: cpu=4,memory=8589934592
    #[arg(long, value_name = "RESOURCE=N,…", value_parser = shape)]
    size: Vec<Named>,
    /// What breaks if a box dies is not asked for: it takes a search for each box
    #[arg(long)]
    only_free: bool,
}

/// The question about one box or availability zone.
#[derive(Clone, Debug, Args)]
struct Evacuate {
    /// The box, or the availability zone
    #[arg(value_name = "BOX")]
    room: String,
}

/// The question about moves.
#[derive(Clone, Debug, Args)]
struct Rebalance {
    /// Moves are planned, and made by nobody yet
    #[arg(long, required = true)]
    plan: bool,
    /// The least that a move gains, in percent of a box that gets empty or of a rule that is kept again
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    least: u8,
}

/// Answers where the command line asks a question.
pub fn answered() -> Option<ExitCode> {
    question(
        "capacity",
        "What still fits, by shape, and what breaks if a box dies",
        |s, view, q: &Capacity| {
            let fleet = fleet(s, view)?;
            capacity(fleet, q).map_err(failed)
        },
    )
    .or_else(|| {
        let about = "Where the machines of a box or an availability zone would go";
        question("evacuate", about, |s, view, q: &Evacuate| {
            let fleet = fleet(s, view)?;
            if fleet.rooms().all(|room| room.name != q.room) {
                return Err(no_room(&fleet, view, &q.room));
            }
            evacuate(&fleet, &q.room).map_err(failed)
        })
    })
    .or_else(|| {
        question("rebalance", "Which moves would gain something", |s, view, q: &Rebalance| {
            let steps = fleet(s, view)?.rebalance(usize::from(q.least)).map_err(failed)?;
            Ok(rebalance(&steps))
        })
    })
}

/// What is attempted by all of them.
const DOING: &str = "reckon with the fleet";

fn failed(why: Invalid) -> Fault {
    Fault::new(DOING, why)
}

/// Why there is no such box or availability zone, and which there are.
fn no_room(fleet: &Fleet, view: &View, name: &str) -> Fault {
    let (zones, boxes): (Vec<&Room>, Vec<&Room>) = fleet.rooms().partition(|room| room.zone);
    let (is, next) = match (boxes.is_empty(), zones.is_empty()) {
        (true, true) => ("is no box", no_boxes()),
        (false, true) => ("is no box", format!("boxes are {}", names(&boxes))),
        (true, false) => ("is no availability zone", format!("availability zones are {}", names(&zones))),
        (false, false) => (
            "is neither a box nor an availability zone",
            format!("boxes are {}; availability zones are {}", names(&boxes), names(&zones)),
        ),
    };
    let why = match view.host(name).map(|host| host.text(BOX)) {
        None => "there is no host of that name".to_owned(),
        Some(Some(on)) => format!("that host {is}, it is on {on}"),
        Some(None) => format!("that host {is}"),
    };
    Fault::new(format!("evacuate {name}"), why).next(next)
}

fn names(rooms: &[&Room]) -> String {
    let mut names: Vec<&str> = rooms.iter().map(|room| room.name.as_str()).collect();
    names.sort_unstable();
    match names.len() {
        n if n > NAMED => format!("{} and {} more", names[..NAMED].join(", "), n - NAMED),
        _ => names.join(", "),
    }
}

fn no_boxes() -> String {
    format!("there are no boxes: one is a host that says `{BOX}: {{capacity: …}}` ({PAGE})")
}

fn shape(text: &str) -> Result<Named, String> {
    let one = |part: &str| {
        let (name, n) = part.split_once('=').ok_or_else(|| format!("{part:?} is not RESOURCE=N"))?;
        let n = n.parse::<u64>().map_err(|e| format!("{part:?}: {e}"))?;
        Ok::<_, String>((name.to_owned(), n))
    };
    text.split(',').map(one).collect()
}

/// The fleet as it stands.
pub(super) fn fleet(settings: Settings, view: &View) -> Result<Fleet, Fault> {
    let standing = Standing::read(view, settings.policy).map_err(failed)?;
    match standing.blind {
        Some(why) => Err(Fault::new(DOING, why)),
        None => Ok(standing.fleet),
    }
}

fn shapes(fleet: &Fleet) -> Vec<(Named, usize)> {
    let mut counts: BTreeMap<&Named, usize> = BTreeMap::new();
    for room in fleet.rooms() {
        for machine in fleet.machines_in(&room.name) {
            *counts.entry(&machine.needs).or_insert(0) += 1;
        }
    }
    let mut shapes: Vec<(Named, usize)> = counts.into_iter().map(|(named, n)| (named.clone(), n)).collect();
    shapes.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    shapes.truncate(SHAPES);
    shapes
}

fn capacity(fleet: Fleet, asked: &Capacity) -> Result<Answer, Invalid> {
    let shapes = match &asked.size[..] {
        [] => shapes(&fleet),
        some => some.iter().map(|size| (size.clone(), 0)).collect(),
    };
    let mut text = String::new();
    let free = fleet.free();
    let _ = writeln!(text, "free in open boxes together: {}", worded(&free));
    let mut fits = Vec::new();
    for (size, there) in shapes {
        let like = Request { name: "one more".to_owned(), needs: size.clone(), ..Request::default() };
        let more = fleet.still_fit(&like, COUNTED)?;
        let at_least = if more == COUNTED { "at least " } else { "" };
        let _ = writeln!(text, "{}: {at_least}{more} more ({there} there)", worded(&size));
        fits.push(json!({"size": size, "more": more, "there": there}));
    }
    let broken = if asked.only_free { BTreeMap::new() } else { fleet.breaks()? };
    for (room, evacuation) in &broken {
        let _ = writeln!(text, "if {room} dies, {} of its machines have no room:", evacuation.stuck.len());
        stuck(&mut text, evacuation);
    }
    if !asked.only_free && broken.is_empty() {
        text.push_str("whichever box dies, its machines have room\n");
    }
    if fleet.rooms().next().is_none() {
        text = format!("{}\n", no_boxes());
    }
    let word = if broken.is_empty() { Word::Well } else { Word::Not };
    let breaks: BTreeMap<&String, Value> = broken.iter().map(|(room, what)| (room, told(what))).collect();
    let mut json = json!({"free": free, "fits": fits});
    if !asked.only_free {
        json["breaks"] = json!(breaks);
    }
    Ok(Answer { text, json, word })
}

fn evacuate(fleet: &Fleet, room: &str) -> Result<Answer, Invalid> {
    let evacuation = fleet.evacuate(room)?;
    let (moves, left) = (evacuation.moves.len(), evacuation.stuck.len());
    let mut text = format!("{room}: {moves} would move, {left} have no room\n");
    moved(&mut text, &evacuation.moves);
    stuck(&mut text, &evacuation);
    let open = fleet.rooms().any(|one| one.name == room && one.state == State::Open);
    if open && moves > 0 {
        let _ = writeln!(text, "set the state of {room} to draining first, so that nothing new comes");
    }
    let word = match (moves, left) {
        (0, 0) => Word::Well,
        (_, 0) => Word::ToDo,
        _ => Word::Not,
    };
    Ok(Answer { text, json: told(&evacuation), word })
}

fn rebalance(steps: &[Step]) -> Answer {
    let mut text = String::new();
    for step in steps {
        let gain = match &step.gain {
            Gain::Emptied(room) => format!("{room} gets empty"),
            Gain::Kept(reason) => format!("no longer: {reason}"),
        };
        let _ = writeln!(text, "{gain} ({} % for each move)", step.percent());
        moved(&mut text, &step.moves);
    }
    if steps.is_empty() {
        text.push_str("no moves would gain that much\n");
    }
    let one = |step: &Step| {
        let gain = match &step.gain {
            Gain::Emptied(room) => json!({"emptied": room}),
            Gain::Kept(reason) => json!({"kept": reason.to_string()}),
        };
        json!({"gain": gain, "percent": step.percent(), "moves": step.moves})
    };
    let json = json!({"steps": steps.iter().map(one).collect::<Vec<_>>()});
    Answer { text, json, word: if steps.is_empty() { Word::Well } else { Word::ToDo } }
}

fn worded(named: &Named) -> String {
    let parts: Vec<String> = named.iter().map(|(name, n)| format!("{name} {n}")).collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

fn moved(text: &mut String, moves: &[Move]) {
    for Move { machine, from, to } in moves {
        let _ = writeln!(text, "  {machine} from {from} to {to}");
    }
}

fn stuck(text: &mut String, evacuation: &Evacuation) {
    for refusal in &evacuation.stuck {
        let _ = writeln!(text, "  ! {refusal}");
    }
}

fn told(evacuation: &Evacuation) -> Value {
    let stuck = evacuation
        .stuck
        .iter()
        .map(|refusal| json!({"machine": refusal.machine, "not": reasons(&refusal.counts)}));
    json!({"moves": evacuation.moves, "stuck": stuck.collect::<Vec<_>>()})
}
