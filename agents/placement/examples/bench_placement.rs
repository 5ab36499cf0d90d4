//! Figures of choosing: how full boxes get and how long it takes, beside first fit, first fit decreasing and OR-tools' CP-SAT.
//!
//! `tests/bench --only placement`. One line of JSON for each figure; without OR-tools its lines are left out, and it says so. It ends with 1
//! where a goal was missed, or CP-SAT found fewer boxes, and names what.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the lines are what a bench is for")]
#![allow(clippy::expect_used, reason = "a bench ends where its instance is wrong")]

#[path = "../tests/instances/mod.rs"]
mod instances;

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use instances::{Chance, Shapes, boxes, machines, seeds};
use serde_json::{Value, json};
use shoal_placement::choose::{Fleet, Policy, Request, Room, lower_bound};

/// What was to be reached, and was not.
#[derive(Default)]
struct Missed(Vec<String>);

impl Missed {
    /// A figure that could not be taken reaches nothing.
    fn at_most(&mut self, what: &str, value: f64, most: f64) {
        if value.is_nan() || value > most {
            self.0.push(format!("{what}: {value}, and {most} at most was to be reached"));
        }
    }
}

fn main() -> ExitCode {
    let mut missed = Missed::default();
    run(std::env::args().skip(1).collect(), &mut missed);
    for what in &missed.0 {
        eprintln!("MISSED: {what}");
    }
    if missed.0.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(args: Vec<String>, missed: &mut Missed) {
    let python = args.iter().position(|arg| arg == "--python").and_then(|at| args.get(at + 1));
    let seconds = args.iter().position(|arg| arg == "--seconds").and_then(|at| args.get(at + 1));
    let only = args.iter().any(|arg| arg == "--batch");
    for shapes in [Shapes::Flavours, Shapes::Services, Shapes::Each] {
        let some = seeds(10_000, 1_000, shapes).take(5);
        let small: Vec<f64> = some.map(|seed| batch(missed, 10_000, 1_000, shapes, seed, true)).collect();
        for seed in seeds(100_000, 10_000, shapes).take(1) {
            let large = batch(missed, 100_000, 10_000, shapes, seed, false);
            ten_times(missed, shapes, &small, large);
        }
    }
    if only {
        return;
    }
    for survive in [false, true] {
        for size in [1_000, 10_000] {
            one_more(missed, size, survive);
        }
    }
    for count in [50, 100, 200] {
        for seed in seeds(count, count / 6, Shapes::Services).take(2) {
            beside_cp_sat(missed, count, seed, python, seconds.map_or("20", String::as_str));
        }
    }
}

/// Seconds that this thread has computed: others of the machine do not count. The kernel brings the figure up to date when the thread
/// yields, and else every few milliseconds.
fn cpu() -> f64 {
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

/// How many boxes too many, in percent.
fn over(used: usize, least: usize) -> f64 {
    ((used as f64 / least as f64 - 1.0) * 1e4).round() / 1e2
}

/// Says how many seconds of the processor it took.
fn batch(missed: &mut Missed, count: usize, room: usize, shapes: Shapes, seed: u64, peers: bool) -> f64 {
    let (boxes, requests) = (boxes(room), machines(count, shapes, seed));
    let least = lower_bound(&requests, &boxes);
    let mut times = Vec::new();
    let (mut used, mut refused) = (0, 0);
    for _ in 0..3 {
        let mut fleet = Fleet::new(boxes.clone(), Policy::default()).expect("a fleet");
        let start = cpu();
        let plan = fleet.plan(&requests).expect("a plan");
        times.push(cpu() - start);
        (used, refused) = (fleet.rooms_used(), plan.refused.len());
    }
    times.sort_by(f64::total_cmp);
    let mut beside = BTreeMap::new();
    if peers {
        for (name, decreasing) in [("first fit", false), ("first fit decreasing", true)] {
            let start = cpu();
            let used = first_fit(&requests, &boxes, decreasing);
            beside.insert(format!("{name}, s CPU"), json!(cpu() - start));
            beside.insert(format!("{name}, % over"), json!(over(used, least)));
        }
    }
    let (percent, goal) = (over(used, least), count as f64 / 1e4);
    println!(
        "{}",
        json!({"figure": "placement_batch", "shapes": format!("{shapes:?}"), "machines": count, "boxes": room, "seed": seed,
            "least": least, "used": used, "refused": refused, "over_percent": percent, "goal_percent": 1.0,
            "seconds_cpu": times[1], "goal_seconds": goal, "beside": beside})
    );
    let which = format!("{count} machines, {shapes:?}, seed {seed}");
    missed.at_most(&format!("{which}: without room"), refused as f64, 0.0);
    missed.at_most(&format!("{which}: percent over the bound"), percent, 1.0);
    missed.at_most(&format!("{which}: seconds"), times[1], goal);
    times[1]
}

/// How many times as long ten times the machines take as the mean of some.
fn ten_times(missed: &mut Missed, shapes: Shapes, small: &[f64], large: f64) {
    let times = large / (small.iter().sum::<f64>() / small.len() as f64);
    println!(
        "{}",
        json!({"figure": "placement_ten_times", "shapes": format!("{shapes:?}"), "times_cpu": times, "goal_times": 12.0})
    );
    missed.at_most(&format!("{shapes:?}: ten times the machines, times as long"), times, 12.0);
}

/// The boxes that first fit uses; as many as it likes.
fn first_fit(requests: &[Request], boxes: &[Room], decreasing: bool) -> usize {
    let kinds = ["cpu", "memory", "disk"];
    let size: Vec<u64> = kinds.iter().map(|kind| boxes[0].capacity[*kind]).collect();
    let need = |request: &Request| -> Vec<u64> { kinds.iter().map(|kind| request.needs[*kind]).collect() };
    let mut all: Vec<(Vec<u64>, &String)> =
        requests.iter().map(|r| (need(r), r.group.as_ref().expect("a service"))).collect();
    if decreasing {
        let scalar = |need: &[u64]| need.iter().zip(&size).map(|(n, s)| *n as f64 / *s as f64).sum::<f64>();
        all.sort_by(|a, b| scalar(&b.0).total_cmp(&scalar(&a.0)));
    }
    let mut bins: Vec<(Vec<u64>, HashSet<&String>)> = Vec::new();
    for (need, service) in all {
        let fits = |bin: &(Vec<u64>, HashSet<&String>)| {
            need.iter().zip(&bin.0).all(|(n, f)| n <= f) && !bin.1.contains(service)
        };
        let found = bins.iter().position(fits).unwrap_or_else(|| {
            bins.push((size.clone(), HashSet::new()));
            bins.len() - 1
        });
        bins[found].0.iter_mut().zip(&need).for_each(|(free, n)| *free -= n);
        bins[found].1.insert(service);
    }
    bins.len()
}

/// One machine goes, another comes, in a fleet nine tenths full. The goals speak of 1,000 boxes.
fn one_more(missed: &mut Missed, size: usize, survive: bool) {
    let mut requests = machines(size * 9, Shapes::Services, 7);
    let mut fleet = Fleet::new(boxes(size), Policy { survive, ..Policy::default() }).expect("a fleet");
    requests.retain(|request| fleet.place(request).is_ok());
    let mut chance = Chance(3);
    let mut times = Vec::new();
    let computed = cpu();
    for _ in 0..50_000 {
        let again = &requests[chance.below(requests.len() as u64) as usize];
        fleet.remove(&again.name);
        let start = Instant::now();
        let placed = fleet.place(again);
        times.push(start.elapsed().as_secs_f64() * 1e6);
        assert!(placed.is_ok(), "{placed:?}");
    }
    let with_removal = (cpu() - computed) / times.len() as f64 * 1e6;
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[times.len() * share / 1000];
    let figure = if survive { "placement_one_more_any_box_may_die" } else { "placement_one_more" };
    let mut line = json!({"figure": figure, "boxes": size, "machines": requests.len(), "mean_us": mean,
        "mean_us_cpu_with_its_removal": with_removal, "median_us": at(500), "p99_us": at(990), "p999_us": at(999)});
    if size == 1_000 {
        (line["goal_mean_us"], line["goal_p99_us"]) = (json!(10.0), json!(50.0));
        missed.at_most(&format!("{figure}: mean in us"), mean, 10.0);
        missed.at_most(&format!("{figure}: 99th of a hundred in us"), at(990), 50.0);
    }
    println!("{line}");
}

fn beside_cp_sat(missed: &mut Missed, count: usize, seed: u64, python: Option<&String>, seconds: &str) {
    let (boxes, requests) = (boxes(count / 6), machines(count, Shapes::Services, seed));
    let mut fleet = Fleet::new(boxes.clone(), Policy::default()).expect("a fleet");
    let start = Instant::now();
    let plan = fleet.plan(&requests).expect("a plan");
    let mut line = json!({"figure": "placement_beside_cp_sat", "machines": count, "seed": seed,
        "least": lower_bound(&requests, &boxes), "used": fleet.rooms_used(), "refused": plan.refused.len(),
        "first_fit": first_fit(&requests, &boxes, false), "first_fit_decreasing": first_fit(&requests, &boxes, true),
        "seconds": start.elapsed().as_secs_f64()});
    let Some(python) = python else {
        eprintln!(
            "SKIPPED: CP-SAT beside ours at {count} machines: OR-tools is not there (--python of an environment with it)"
        );
        return;
    };
    match cp_sat(python, &requests, &boxes, seconds) {
        Ok(theirs) => {
            // A solution that leaves nobody out, whether it is proved to be the best or not.
            if let Some(found) = theirs["used"].as_u64() {
                let which = format!("{count} machines, seed {seed}, beside CP-SAT");
                missed.at_most(&format!("{which}: without room"), plan.refused.len() as f64, 0.0);
                missed.at_most(&format!("{which}: boxes"), fleet.rooms_used() as f64, found as f64);
            }
            line["cp_sat"] = theirs;
        }
        Err(why) => eprintln!("SKIPPED: CP-SAT beside ours at {count} machines: {why}"),
    }
    println!("{line}");
}

fn cp_sat(python: &str, requests: &[Request], boxes: &[Room], seconds: &str) -> Result<Value, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cp_sat.py");
    let mut child = Command::new(python)
        .args([script, seconds])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("start {python}: {e}"))?;
    let instance = json!({"machines": requests, "box": boxes[0], "boxes": boxes.len()});
    child
        .stdin
        .take()
        .ok_or("no input")?
        .write_all(instance.to_string().as_bytes())
        .map_err(|e| e.to_string())?;
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    serde_json::from_slice(&out.stdout).map_err(|e| format!("its answer is no JSON: {e}"))
}
