//! The model of registers with bounds of your own: `cargo run --release -p pando-core --example register_model
//! -- --help`. The tests explore smaller spaces with the same code.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command that reports to a person")]

use std::{process::ExitCode, time::Instant};

mod cases;
mod client;
mod explore;
mod intern;
mod judge;
mod layouts;
mod node;
mod reconfig;
mod rules;
mod run;
mod sameness;
mod tell;
mod world;

use explore::Bounds;
use layouts::Layouts;
use rules::{Broken, Config, Kind, Leavers, Op};

const HELP: &str = "\
Explores the register protocol, run by the production code, in every order within bounds.

  --scripts S     one script a client, separated by commas; a letter is an operation, numbered from 1
                  through all scripts: p put, a put if absent, d delete, r read, s put into the second
                  register, 1 to 7 put if the last write was that of this operation (default pp,ar,1)
  --ballots N     the highest counter (default 4)
  --tries N       attempts per operation (default 2)
  --crashes N     restarts of owners (default 1)
  --failures N    failed durable writes (default 0)
  --capacity N    promises in an owner's table (default 8)
  --step N        by how much ceilings are raised (default 1)
  --clocks N,N,N  the counter after which each client starts (default 0)
  --written       start after client 0's first operation
  --silent        chosen values are not told to owners that missed them
  --detached      replies travel by themselves, instead of arriving at once or never
  --broken RULE   break a rule, by its name in rules.rs, as in --broken LateCeiling
  --case NAME     a configuration of the tests instead: writes, reads, learning, restarts, eviction,
                  retries, declines, failures, detached-writes, detached-reads; of layouts that
                  change: grow, replace, join, join-all, there-and-back, returning, stale-rows,
                  everything (too large to be seen in full: for walks);
                  of tombstones that are forgotten: purge, purge-and-tell, purge-without-one,
                  purge-without-one-open; or the name of a broken rule. What is given after it changes it
  --layouts S,S   the owners, one set after the other, as in abc,bcd,cda: from set to set by a
                  version with the previous owners and one without; nodes are a to e
  --syncers S     the nodes that sync (default none)
  --rounds N      how often a node begins to sync one version (default 1)
  --leavers RULE  what becomes of the rows of those that leave: GatePurge (default), DropIfAway,
                  and two that are not enough, DropSometime and DropWhenNew
  --purges        tombstones are forgotten
  --no-prelude    start at the very beginning
  --walks N       take so many random walks instead of seeing everything
  --seed N        of the walks (default 1)
  --states N      stop after so many states (default 20000000; 1000000 take about 100 MiB)
  --depth N       stop at so many moves (default 1000)

Exit status: 0 if nothing is wrong, 1 if something is, 2 if the arguments are.";

const RULES: [Broken; 25] = [
    Broken::RestartForgets,
    Broken::AcceptsBelow,
    Broken::LearnsUnchosen,
    Broken::ReadTrustsOne,
    Broken::EvictsSilently,
    Broken::FreshWriteId,
    Broken::MajorityOfOne,
    Broken::LateCeiling,
    Broken::ReadTakesHighest,
    Broken::DeclinesLightly,
    Broken::DeclinesOnNothing,
    Broken::FailedWriteGoesOn,
    Broken::SyncFromOne,
    Broken::SyncTakesHighest,
    Broken::StayersSkipSync,
    Broken::EndsEarly,
    Broken::NoFence,
    Broken::LayoutLost,
    Broken::NewMajorityOnly,
    Broken::PurgeByMajority,
    Broken::PurgeWithoutFloor,
    Broken::PurgeWithoutGrace,
    Broken::GraceSinceChosen,
    Broken::PurgeInTransition,
    Broken::RefusedIsSkipped,
];

/// How many random walks, and their seed; or everything.
type Walks = Option<(u64, u64)>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match parse(&arguments) {
        Ok((config, bounds, walks)) => run(config, bounds, walks),
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run(config: Config, bounds: Bounds, walks: Walks) -> ExitCode {
    println!("{}: {config:?}\n{bounds:?}", config.name);
    let start = Instant::now();
    let (report, events) = run::run(config, bounds, walks);
    let seconds = start.elapsed().as_secs_f64();
    let seen = if report.exhausted { "every reachable state was seen" } else { "stopped before the end" };
    println!("{} states, {} moves, depth {}: {seen}", report.states, report.moves, report.depth);
    println!("{seconds:.1} s, {:.0} states/s", report.states as f64 / seconds);
    for (event, count) in &events {
        println!("  {count:>12}  {event}");
    }
    match report.violation {
        None => {
            println!("nothing is wrong");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("WRONG: {}", violation.what);
            for (line, number) in violation.trace.iter().zip(1..) {
                println!("{number:>4}. {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<(Config, Bounds, Walks), String> {
    let mut config =
        Config { tries: 2, counters: 4, restarts: 1, learn: true, ..cases::config("yours", &[]) };
    config.scripts = scripts("pp,ar,1")?;
    let mut bounds = Bounds { states: 20_000_000, depth: 1000 };
    let mut clocks = Vec::new();
    let (mut walks, mut seed) = (None, 1);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--scripts" => config.scripts = scripts(value()?)?,
            "--ballots" => config.counters = number(value()?)?,
            "--tries" => config.tries = number(value()?)?,
            "--crashes" => config.restarts = number(value()?)?,
            "--failures" => config.failures = number(value()?)?,
            "--capacity" => config.capacity = number::<usize>(value()?)?.max(1),
            "--step" => config.step = number(value()?)?,
            "--clocks" => clocks = value()?.split(',').map(number).collect::<Result<_, _>>()?,
            "--written" => config.written = true,
            "--silent" => config.learn = false,
            "--detached" => config.detached = true,
            "--broken" => config.broken = Some(rule(value()?)?),
            "--rounds" => config.rounds = number(value()?)?,
            "--layouts" => config.layouts = layouts(value()?)?,
            "--syncers" => config.syncers = nodes(value()?)?.iter().map(|node| 1 << node).sum(),
            "--purges" => config.purges = true,
            "--leavers" => config.leavers = leavers(value()?)?,
            "--no-prelude" => config.prelude.clear(),
            "--case" => config = case(value()?)?,
            "--states" => bounds.states = number::<usize>(value()?)?.min(u32::MAX as usize),
            "--walks" => walks = Some(number(value()?)?),
            "--seed" => seed = number(value()?)?,
            "--depth" => bounds.depth = number(value()?)?,
            _ => return Err(format!("{flag} is not known")),
        }
    }
    if !clocks.is_empty() {
        config.clocks = clocks;
    }
    config.clocks.resize(config.scripts.len(), 0);
    // With room for the owners' ceilings and the model's packed ballots.
    if config.counters > 30 || config.clocks.iter().any(|clock| *clock > 30) {
        return Err("counters of the model are at most 30".to_string());
    }
    Ok((config, bounds, walks.map(|walks| (walks, seed))))
}

fn number<N: std::str::FromStr>(text: impl AsRef<str>) -> Result<N, String> {
    text.as_ref().parse().map_err(|_| format!("{:?} is not a number that fits", text.as_ref()))
}

fn rule(name: &str) -> Result<Broken, String> {
    RULES
        .into_iter()
        .find(|rule| format!("{rule:?}") == name)
        .ok_or_else(|| format!("no rule is named {name:?}"))
}

fn nodes(text: &str) -> Result<Vec<u16>, String> {
    let node = |letter: char| ('a'..='e').position(|known| known == letter).map(|node| node as u16);
    text.chars().map(|letter| node(letter).ok_or_else(|| format!("{letter:?} is not a node"))).collect()
}

fn layouts(text: &str) -> Result<Layouts, String> {
    let sets = text.split(',').map(nodes).collect::<Result<Vec<_>, _>>()?;
    if sets.len() > 4 || sets.iter().any(Vec::is_empty) {
        return Err("four sets of owners at most, and none empty".to_string());
    }
    Ok(Layouts::line(&sets.iter().map(Vec::as_slice).collect::<Vec<_>>(), false))
}

fn leavers(name: &str) -> Result<Leavers, String> {
    [Leavers::DropSometime, Leavers::DropWhenNew, Leavers::DropIfAway, Leavers::GatePurge]
        .into_iter()
        .find(|leavers| format!("{leavers:?}") == name)
        .ok_or_else(|| format!("nothing is named {name:?}"))
}

fn case(name: &str) -> Result<Config, String> {
    Ok(match name {
        "writes" => cases::writes(),
        "reads" => cases::reads(),
        "learning" => cases::learning(),
        "restarts" => cases::restarts(),
        "eviction" => cases::eviction(),
        "retries" => cases::retries(),
        "declines" => cases::declines(),
        "failures" => cases::failures(),
        "detached-writes" => cases::detached_writes(),
        "detached-reads" => cases::detached_reads(),
        "grow" => reconfig::cases::grow(),
        "replace" => reconfig::cases::replace(),
        "join" => reconfig::cases::join(),
        "join-all" => reconfig::cases::join_all(),
        "there-and-back" => reconfig::cases::there_and_back(Leavers::GatePurge),
        "returning" => reconfig::cases::returning(Leavers::GatePurge),
        "stale-rows" => reconfig::cases::stale_rows(Leavers::GatePurge),
        "everything" => reconfig::cases::everything(),
        "purge" => reconfig::cases::purge(),
        "purge-and-tell" => reconfig::cases::purge_and_tell(Leavers::GatePurge),
        "purge-without-one" => reconfig::cases::purge_without_one(true),
        "purge-without-one-open" => reconfig::cases::purge_without_one(false),
        other => cases::broken(rule(other)?),
    })
}

fn scripts(text: &str) -> Result<Vec<Vec<Op>>, String> {
    let letter = |letter: char| {
        let (register, kind) = match letter {
            'p' => (0, Kind::Put),
            'a' => (0, Kind::PutIfAbsent),
            'd' => (0, Kind::Delete),
            'r' => (0, Kind::Read),
            's' => (1, Kind::Put),
            '1'..='7' => (0, Kind::PutIf(letter as u8 - b'0')),
            _ => return Err(format!("{letter:?} is not an operation")),
        };
        Ok(Op { register, kind })
    };
    let scripts: Vec<Vec<Op>> =
        text.split(',').map(|script| script.chars().map(letter).collect()).collect::<Result<_, _>>()?;
    if scripts.len() > world::CLIENTS || scripts.iter().map(Vec::len).sum::<usize>() > rules::OPS {
        return Err("three clients and seven operations at most".to_string());
    }
    Ok(scripts)
}
