//! A stand-in for the world: one register for each key behind one lock, in virtual time, without nodes.
//!
//! It uses the plan, the clients, the history and the judge as the real world does, so that all of these and
//! the runner can be tested. Its faults are counted and change nothing; every mutant loses writes.

use std::collections::BTreeMap;

use crate::{
    client::{Client, What},
    history::{History, Kind, Operation, Outcome, Value},
    linearizable,
    report::{Options, Report},
    rng::Rng,
    schedule::Plan,
};

/// Runs the world of a seed.
pub fn run(seed: u64, options: &Options) -> Report {
    let plan = Plan::of(seed);
    let mut rng = Rng::of(seed, 10);
    let mut clients: Vec<Client> = (0..plan.clients).map(|_| Client::new(&plan, &mut rng)).collect();
    // When each client heard its last answer.
    let mut free = vec![0; clients.len()];
    let mut registers = BTreeMap::<String, Value>::new();
    let mut history = History::default();
    let mut now = 0;
    while now < plan.calm_from_ms * 1000 {
        now += rng.between(1_000, 100_000);
        let number = rng.below(u64::from(plan.clients)) as usize;
        if free[number] >= now {
            continue;
        }
        let intent = clients[number].next(&mut rng);
        let value = Value(history.len() as u64);
        let kind = match intent.what {
            What::Put => Kind::Put(value),
            What::PutIfAbsent => Kind::PutIfAbsent(value),
            What::PutIfMatch(expected) => Kind::PutIfMatch { expected, value },
            What::Remove => Kind::Remove,
            What::Read | What::RangeRead { .. } => Kind::Read,
            What::List => continue,
        };
        let state = registers.get(&intent.key).copied();
        let (after, outcome) = apply(state, kind);
        let lost = options.mutant.is_some() && rng.chance(2);
        match after {
            _ if lost => None,
            Some(after) => registers.insert(intent.key.clone(), after),
            None => registers.remove(&intent.key),
        };
        clients[number].saw(&intent.key, after);
        let start = rng.between(free[number] + 1, now);
        let end = now + rng.between(100, 200_000);
        free[number] = end;
        let node = rng.below(u64::from(plan.nodes)) as u32;
        history.push(Operation { client: number as u32, node, key: intent.key, kind, outcome, start, end });
    }
    judge(&plan, &history, options)
}

fn apply(state: Option<Value>, kind: Kind) -> (Option<Value>, Outcome) {
    match kind {
        Kind::Put(value) => (Some(value), Outcome::Done),
        Kind::PutIfAbsent(value) if state.is_none() => (Some(value), Outcome::Done),
        Kind::PutIfMatch { expected, value } if state == Some(expected) => (Some(value), Outcome::Done),
        Kind::PutIfAbsent(_) | Kind::PutIfMatch { .. } => (state, Outcome::Precondition(state)),
        Kind::Remove if state.is_none() => (None, Outcome::NotFound),
        Kind::Remove => (None, Outcome::Done),
        Kind::Read => (state, Outcome::Read(state)),
    }
}

fn judge(plan: &Plan, history: &History, options: &Options) -> Report {
    let mut events = BTreeMap::new();
    for (_, fault) in &plan.faults {
        *events.entry(fault.name().to_owned()).or_default() += 1;
    }
    let mut hasher = blake3::Hasher::new();
    let lines: Vec<String> = history.operations().iter().map(Operation::to_string).collect();
    lines.iter().for_each(|line| _ = hasher.update(line.as_bytes()));
    let judged = history.by_key().into_values().map(|operations| linearizable::check(&operations));
    let violation = judged.filter_map(Result::err).next().map(|violation| violation.to_string());
    Report {
        trace_hash: *hasher.finalize().as_bytes(),
        operations: history.len() as u64,
        virtual_ms: u64::from(plan.seconds) * 1000,
        events,
        violation,
        lines: if options.trace { lines } else { Vec::new() },
    }
}
