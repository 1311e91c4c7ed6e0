//! Scale on paper that runs: what planning, gossip and placement come to in networks of 10 to 10,000 nodes.
//!
//! The pure parts are run as they are; disks and wires are arithmetic. Prints a table, or JSON with
//! `--json`; `--no-gossip` leaves out the simulations, which take minutes. See `docs/scale.md`.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::{Duration, Instant};

use pando_core::{
    gossip::{Name, News, Rumour},
    id::{NetworkId, PARTITIONS},
    layout::{Layout, Member, MemberState, Replicas, Slots, plan},
    register::LayoutVersion,
    wire::{self, Pulse, Request},
};
use serde_json::{Map, Value, json};

/// Figures in the order in which they are shown.
type Column = Vec<(String, Value)>;

#[path = "../tests/gossip/world.rs"]
mod world;

use world::{World, id, news};

const COPIES: usize = 3;
/// The data of the arithmetic: this many objects of this size on average, one chunk each.
const OBJECTS: f64 = 1e9;
const AVERAGE: f64 = (1u64 << 20) as f64;
/// What one node takes in while it heals, in bytes per second: a disk that has other things to do.
const INTAKE: f64 = 100e6;
/// How often a node repeats its news (as `pando-node` does): 10 s, and 0.2 s for each member if that is more.
const REPEAT: Duration = Duration::from_secs(10);
const PER_MEMBER: Duration = Duration::from_millis(200);
/// The largest network whose gossip is simulated. `foca` looks members up in a list, so setting up a world
/// of N nodes takes N^3 / 2 comparisons.
const SIMULATED: usize = 2000;

fn main() {
    let option = |name: &str| std::env::args().any(|argument| argument == name);
    let as_json = option("--json");
    let simulated = if option("--no-gossip") { &[][..] } else { &[10, 100, 1000, SIMULATED][..] };
    let partitions = usize::from(PARTITIONS);
    let sizes = [
        (10, partitions),
        (100, partitions),
        (1000, partitions),
        (10_000, partitions),
        (10_000, 16 * partitions),
    ];
    let gossips: Vec<Heard> = simulated.iter().copied().map(gossip).collect();
    let mut columns: Vec<Column> = Vec::new();
    for (nodes, partitions) in sizes {
        let mut column: Column =
            vec![("nodes".into(), json!(nodes)), ("partitions".into(), json!(partitions))];
        let owners = placement(nodes, partitions, &mut column);
        column.extend(heard(nodes, &gossips));
        tables(nodes, &owners, &mut column);
        columns.push(column);
    }
    if as_json {
        let objects =
            columns.into_iter().map(|column| Value::Object(column.into_iter().collect::<Map<_, _>>()));
        println!("{}", Value::from(objects.collect::<Vec<_>>()));
        return;
    }
    for (row, (name, _)) in columns[0].iter().enumerate() {
        let cells: Vec<String> = columns.iter().map(|column| cell(&column[row].1)).collect();
        println!("| {name} | {} |", cells.join(" | "));
        if row == 0 {
            println!("|---|{}", "---:|".repeat(columns.len()));
        }
    }
}

fn cell(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number >= 100.0 || number.fract() == 0.0 => {
            let digits = format!("{number:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().filter_map(|g| str::from_utf8(g).ok()).collect();
            groups.join(",")
        }
        Some(number) => format!("{number:.2}"),
        None => value.as_str().unwrap_or_default().to_owned(),
    }
}

// ---- placement

fn members(count: usize) -> Vec<Member> {
    let zones = (count / 40).clamp(4, 64);
    let member = |number: usize| Member {
        id: id(number),
        addresses: vec![([10, 0, (number / 250) as u8, (number % 250) as u8], 7433).into()],
        zone: format!("zone-{}", number % zones),
        // 8 to 15 TiB.
        capacity: (8 + (number as u64 * 5) % 8) << 40,
        state: MemberState::Active,
    };
    (0..count).map(member).collect()
}

fn loads(owners: &[Vec<u16>], members: usize) -> Vec<usize> {
    let mut loads = vec![0; members];
    owners.iter().flatten().for_each(|owner| loads[usize::from(*owner)] += 1);
    loads
}

/// Slots that each member gains.
fn gains(before: &[Vec<u16>], after: &[Vec<u16>], members: usize) -> Vec<usize> {
    let mut gains = vec![0; members];
    for (old, new) in before.iter().zip(after) {
        new.iter().filter(|owner| !old.contains(owner)).for_each(|owner| gains[usize::from(*owner)] += 1);
    }
    gains
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed().as_secs_f64() * 1e3)
}

fn placement(nodes: usize, partitions: usize, column: &mut Column) -> Vec<Vec<u16>> {
    let mut members = members(nodes + 1);
    let newcomer = members.pop().expect("one more");
    let nothing: Vec<Vec<u16>> = vec![vec![0]; partitions];
    let (owners, first) = timed(|| plan::table(&nothing, &members, COPIES));
    let loads = loads(&owners, nodes);
    let total: f64 = members.iter().map(|member| member.capacity as f64).sum();
    let slots = (partitions * COPIES) as f64;
    let relative =
        |(load, member): (&usize, &Member)| *load as f64 * total / (slots * member.capacity as f64);
    let fullest = loads.iter().zip(&members).map(relative).fold(0.0, f64::max);
    let slot = OBJECTS * AVERAGE / partitions as f64;

    let grown = [members.clone(), vec![newcomer]].concat();
    let (joined, join) = timed(|| plan::table(&owners, &grown, COPIES));
    let join_moves: usize = gains(&owners, &joined, nodes + 1).iter().sum();
    let mut left = members.clone();
    let dead = nodes / 2;
    left[dead].state = MemberState::Gone;
    let (without, death) = timed(|| plan::table(&owners, &left, COPIES));
    let death_gains = gains(&owners, &without, nodes);
    let most = death_gains.iter().max().copied().unwrap_or_default();
    let mut set = |name: &str, value: f64| column.push((name.to_owned(), json!(value)));
    set("plan from nothing, ms", first);
    set("plan a join, ms", join);
    set("plan a death, ms", death);
    set("slots per node, mean", slots / nodes as f64);
    set("fullest node / mean, by capacity", fullest);
    set("a join moves, slots", join_moves as f64);
    set("a join moves, % of all data", 100.0 * join_moves as f64 / slots);
    set("a death moves, slots", death_gains.iter().sum::<usize>() as f64);
    set("a death moves, % of all data", 100.0 * death_gains.iter().sum::<usize>() as f64 / slots);
    set("nodes that take over from a dead one", death_gains.iter().filter(|gain| **gain > 0).count() as f64);
    set("hours to heal at 100 MB/s per node", most as f64 * slot / INTAKE / 3600.0);
    owners
}

// ---- gossip

/// What a simulated world came to.
struct Heard {
    nodes: usize,
    packets: f64,
    bytes: f64,
    death: f64,
    news: f64,
}

fn run_telling(world: &mut World, seconds: u64, told: &mut [Duration]) {
    let repeat = REPEAT.max(PER_MEMBER * told.len() as u32);
    for _ in 0..seconds * 10 {
        world.run(Duration::from_millis(100));
        for (node, next) in told.iter_mut().enumerate() {
            if *next <= world.now && world.nodes[node].is_some() {
                *next += repeat;
                world.tell(node, world.now.as_millis() as u64);
            }
        }
    }
}

/// A world of this many nodes: idle for a while, then one dies, then one says something. Latency is 50 ms,
/// 1 % of all packets are lost.
fn gossip(nodes: usize) -> Heard {
    let mut world = World::new(nodes, nodes as u64);
    world.introduce();
    let repeat = REPEAT.max(PER_MEMBER * nodes as u32);
    // Spread evenly, as it comes to be by itself.
    let mut told: Vec<Duration> =
        (0..nodes).map(|node| repeat.mul_f64(((node * 7919) % nodes) as f64 / nodes as f64)).collect();
    run_telling(&mut world, 30, &mut told);
    let (idle, before) = (if nodes > 100 { 20 } else { 60 }, world.sent);
    run_telling(&mut world, idle, &mut told);
    let per = (nodes as u64 * idle) as f64;
    let (packets, bytes) = (world.sent.0 - before.0, world.sent.1 - before.1);
    let watch = |world: &mut World, node: usize| {
        world.watched = node;
        world.heard.iter_mut().for_each(|heard| *heard = [None; 3]);
        world.now
    };
    let (mut news, mut deaths) = (0.0f64, 0.0f64);
    let times = if nodes > 100 { 1 } else { 8 };
    for time in 0..times {
        let who = (time * 3 + 1) % nodes;
        let since = watch(&mut world, who);
        world.tell(who, 1);
        run_telling(&mut world, 8, &mut told);
        news = news.max(seconds(world.all_heard(2, since)));
        let since = watch(&mut world, who);
        world.kill(who);
        run_telling(&mut world, 30, &mut told);
        deaths = deaths.max(seconds(world.all_heard(0, since)));
        world.start(who);
        world.exchange(who, (who + 1) % nodes);
        run_telling(&mut world, 5, &mut told);
    }
    Heard { nodes, packets: packets as f64 / per, bytes: bytes as f64 / per, death: deaths, news }
}

fn seconds(heard: Option<Duration>) -> f64 {
    heard.map_or(f64::NAN, |time| time.as_secs_f64())
}

/// The gossip of a network: simulated, or beyond what is, drawn on from the two largest by the logarithm.
fn heard(nodes: usize, gossips: &[Heard]) -> Column {
    let along = |of: fn(&Heard) -> f64| match gossips.iter().find(|heard| heard.nodes == nodes) {
        Some(heard) => of(heard),
        None => {
            let [.., a, b] = gossips else { return f64::NAN };
            let place = (nodes as f64 / a.nodes as f64).ln() / (b.nodes as f64 / a.nodes as f64).ln();
            of(a) + place * (of(b) - of(a))
        }
    };
    let known = gossips.iter().any(|heard| heard.nodes == nodes);
    let how = if known { "simulated" } else { "extrapolated" };
    vec![
        ("gossip is".into(), json!(how)),
        ("idle packets per node and second".into(), json!(along(|heard| heard.packets))),
        ("idle bytes per node and second".into(), json!(along(|heard| heard.bytes))),
        ("all know of a death after, s (worst)".into(), json!(along(|heard| heard.death))),
        ("all know of news after, s (worst)".into(), json!(along(|heard| heard.news))),
    ]
}

// ---- tables

fn tables(nodes: usize, owners: &[Vec<u16>], column: &mut Column) {
    let members = members(nodes);
    let said: Vec<News> = (0..nodes).map(|node| News { number: 1 << 40, ..news(node, 1 << 40) }).collect();
    let rumour =
        |node: usize| Rumour { name: Name { node: id(node), life: 1 << 40 }, incarnation: 1, alive: true };
    let pulse = Pulse { rumours: (0..nodes).map(rumour).collect(), news: said, book: Vec::new() };
    let exchange = wire::encode(&Request::Pulse(pulse)).len();
    let mut layout = Layout::first(NetworkId([1; 16]), Replicas::Count(3), members[0].clone());
    layout.members = members;
    layout.slots = Slots::Table { width: COPIES as u16, owners: owners.concat() };
    layout.since = vec![LayoutVersion(300); layout.slots.len()];
    let mut set = |name: &str, value: f64| column.push((name.to_owned(), json!(value)));
    set("a full exchange, bytes each way", exchange as f64);
    set("layout, bytes", layout.encode().len() as f64);
    set("index rows of registers per node", OBJECTS * COPIES as f64 / nodes as f64);
    set("chunks per node", OBJECTS * COPIES as f64 / nodes as f64);
    set("TB stored per node", OBJECTS * AVERAGE * COPIES as f64 / nodes as f64 / 1e12);
}
