//! What a world's machines, clients and judge share. One thread, so plain cells.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use pando_node::{
    Error, Node,
    core::{
        id::{NodeId, WriteId},
        ticket::Ticket,
    },
    simulated,
};

use crate::{
    history::{History, Kind, Operation, Outcome, Value},
    report::Report,
    rng::Rng,
    schedule::{Fault, Plan},
    versions::Book,
};

/// Lines of a trace that are kept when nobody asked for it: the last ones before a violation.
const KEPT: usize = 60;

/// What the world wants some node to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Let this machine's node drain.
    Drain(u32),
    /// Remove this machine's node, whatever it says.
    Remove(u32),
    /// Remove a member that will never come back.
    Forget(NodeId),
    /// Check everything.
    Check,
}

/// One simulated machine.
#[derive(Default)]
struct Machine {
    node: Option<Node>,
    id: Option<NodeId>,
    /// It was a member with the disk it has.
    joined: bool,
    off: bool,
    tear: bool,
    /// It left the network, or was removed from it: it is out of the world.
    left: bool,
    /// Its node ended by itself.
    stopped: bool,
    clock: i64,
    /// How far ahead its clock ever was.
    furthest: i64,
    clock_moved: bool,
}

/// See the module's text.
pub(crate) struct State {
    pub(crate) plan: Plan,
    machines: RefCell<Vec<Machine>>,
    operations: RefCell<Vec<Operation>>,
    written: RefCell<BTreeMap<Value, u64>>,
    etags: RefCell<BTreeMap<[u8; 16], Value>>,
    pub(crate) book: Book,
    tickets: RefCell<BTreeMap<u32, Option<Ticket>>>,
    wants: RefCell<Vec<Want>>,
    events: RefCell<BTreeMap<String, u64>>,
    trace: RefCell<(blake3::Hasher, Vec<String>)>,
    whole_trace: bool,
    now: Cell<Duration>,
    rng: RefCell<Rng>,
    next: Cell<u64>,
    clients_run: Cell<bool>,
    clients_began: Cell<bool>,
    broken: RefCell<Option<String>>,
    why: RefCell<String>,
    in_order: Cell<bool>,
}

impl State {
    pub(crate) fn new(plan: Plan, whole_trace: bool) -> Self {
        let rng = Rng::of(plan.seed, 7);
        Self {
            plan,
            machines: RefCell::default(),
            operations: RefCell::default(),
            written: RefCell::default(),
            etags: RefCell::default(),
            book: Book::default(),
            tickets: RefCell::default(),
            wants: RefCell::default(),
            events: RefCell::default(),
            trace: RefCell::new((blake3::Hasher::new(), Vec::new())),
            whole_trace,
            now: Cell::default(),
            rng: RefCell::new(rng),
            next: Cell::new(1),
            clients_run: Cell::new(false),
            clients_began: Cell::new(false),
            broken: RefCell::default(),
            why: RefCell::default(),
            in_order: Cell::new(false),
        }
    }

    // ---- the trace

    pub(crate) fn set_now(&self, now: Duration) {
        self.now.set(now);
    }

    /// Virtual microseconds.
    pub(crate) fn micros(&self) -> u64 {
        turmoil::sim_elapsed().unwrap_or(self.now.get()).as_micros() as u64
    }

    /// Enters a line in the trace.
    pub(crate) fn note(&self, line: &str) {
        let line = format!("{:>10.3}s {line}", self.micros() as f64 / 1e6);
        let mut trace = self.trace.borrow_mut();
        trace.0.update(line.as_bytes()).update(b"\n");
        if !self.whole_trace && trace.1.len() >= 2 * KEPT {
            trace.1.drain(..KEPT);
        }
        trace.1.push(line);
    }

    pub(crate) fn event(&self, name: &str) {
        *self.events.borrow_mut().entry(name.to_owned()).or_default() += 1;
    }

    pub(crate) fn report(&self, violation: Option<String>) -> Report {
        let trace = self.trace.borrow();
        Report {
            trace_hash: *trace.0.finalize().as_bytes(),
            operations: self.operations.borrow().len() as u64,
            virtual_ms: self.now.get().as_millis() as u64,
            events: self.events.borrow().clone(),
            lines: if violation.is_some() || self.whole_trace { trace.1.clone() } else { Vec::new() },
            violation,
        }
    }

    /// Something that must never happen happened.
    pub(crate) fn breaks(&self, what: String) {
        self.broken.borrow_mut().get_or_insert(what);
    }

    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.borrow().clone()
    }

    /// Why the world is not yet as it should be.
    pub(crate) fn set_why(&self, why: String) {
        *self.why.borrow_mut() = why;
    }

    pub(crate) fn why(&self) -> String {
        self.why.borrow().clone()
    }

    pub(crate) fn set_in_order(&self) {
        self.in_order.set(true);
    }

    pub(crate) fn is_in_order(&self) -> bool {
        self.in_order.get()
    }

    // ---- machines

    fn machine<T>(&self, number: u32, look: impl FnOnce(&mut Machine) -> T) -> T {
        look(&mut self.machines.borrow_mut()[number as usize])
    }

    pub(crate) fn add_machine(&self) {
        self.machines.borrow_mut().push(Machine::default());
    }

    pub(crate) fn count(&self) -> u32 {
        self.machines.borrow().len() as u32
    }

    pub(crate) fn came_up(&self, number: u32, node: Node) {
        self.note(&format!("machine {number} is up as {}", node.id().short()));
        self.machine(number, |machine| {
            machine.id = Some(node.id());
            machine.node = Some(node);
            machine.joined = true;
            machine.stopped = false;
        });
    }

    pub(crate) fn ended(&self, number: u32, left: bool) {
        self.machine(number, |machine| {
            machine.node = None;
            machine.stopped = true;
            machine.left |= left;
        });
    }

    pub(crate) fn power_off(&self, number: u32, tear: bool) {
        let _dropped = self.machine(number, |machine| {
            machine.off = true;
            machine.tear = tear;
            machine.node.take()
        });
    }

    /// Returns whether the last write was torn.
    pub(crate) fn power_on(&self, number: u32) -> bool {
        self.machine(number, |machine| {
            machine.off = false;
            machine.stopped = false;
            machine.tear
        })
    }

    pub(crate) fn wiped(&self, number: u32) {
        let old = self.machine(number, |machine| {
            machine.joined = false;
            machine.id.take()
        });
        if let Some(old) = old {
            self.want(Want::Forget(old));
        }
    }

    pub(crate) fn is_off(&self, number: u32) -> bool {
        self.machine(number, |machine| machine.off)
    }

    /// Whether a machine must be started again when everything is to work.
    pub(crate) fn needs_restart(&self, number: u32) -> bool {
        self.machine(number, |machine| !machine.left && (machine.off || machine.stopped))
    }

    pub(crate) fn was_member(&self, number: u32) -> bool {
        self.machine(number, |machine| machine.joined)
    }

    /// Whether this machine is the first of all.
    pub(crate) fn makes_the_network(&self, number: u32) -> bool {
        number == 0 && !self.clients_began.get() && !self.was_member(number)
    }

    pub(crate) fn needs_ticket(&self, number: u32) -> bool {
        !self.makes_the_network(number) && !self.was_member(number)
    }

    pub(crate) fn id(&self, number: u32) -> Option<NodeId> {
        if number >= self.count() { None } else { self.machine(number, |machine| machine.id) }
    }

    /// Whether a start that failed will fail for ever, or until the machine is started anew.
    pub(crate) fn gives_up(&self, number: u32, error: &Error, is_full: bool) -> bool {
        let removed = error.to_string().contains("was removed from its network");
        let broken = is_full || matches!(error, Error::Store(_));
        self.machine(number, |machine| {
            machine.left |= removed;
            machine.stopped |= removed || broken;
        });
        removed || broken
    }

    pub(crate) fn all_joined(&self) -> bool {
        let nodes = self.up();
        nodes.len() == self.plan.nodes as usize
            && nodes.iter().all(|(_, node)| !node.in_transition() && node.members() == nodes.len())
    }

    /// The nodes that run.
    pub(crate) fn up(&self) -> Vec<(u32, Node)> {
        let machines = self.machines.borrow();
        let nodes = machines.iter().zip(0..).filter_map(|(m, number)| Some((number, m.node.clone()?)));
        nodes.collect()
    }

    pub(crate) fn first_up(&self) -> Option<u32> {
        self.machines.borrow().iter().zip(0..).find(|(machine, _)| machine.node.is_some()).map(|(_, n)| n)
    }

    /// Who makes tickets: one that is not lost for good. A newcomer that was admitted but did not hear it counts as
    /// a member; if whoever admitted it were lost, with as many others as may be, no majority would be left.
    pub(crate) fn inviter(&self) -> Option<u32> {
        let is_lost = |number: u32| {
            let loses = |fault: &Fault| matches!(fault, Fault::Wipe { node } | Fault::Remove { node } if *node == number);
            self.plan.faults.iter().any(|(_, fault)| loses(fault))
        };
        let up = self.up();
        let stays = up.iter().map(|(number, _)| *number).find(|number| !is_lost(*number));
        stays.or_else(|| up.first().map(|(number, _)| *number))
    }

    /// Machines that should run when everything works.
    pub(crate) fn should_run(&self) -> Vec<u32> {
        let machines = self.machines.borrow();
        machines.iter().zip(0..).filter(|(machine, _)| !machine.left).map(|(_, number)| number).collect()
    }

    // ---- clocks

    pub(crate) fn clock(&self, number: u32) -> i64 {
        self.machine(number, |machine| machine.clock)
    }

    pub(crate) fn jump_clock(&self, number: u32, by_ms: i64) {
        if number < self.count() {
            self.machine(number, |machine| {
                machine.clock += by_ms;
                machine.furthest = machine.furthest.max(machine.clock);
                machine.clock_moved = true;
            });
        }
    }

    /// Time goes on until it is, everywhere, as late as any clock ever said: what was to happen at some time
    /// by a clock that was wrong is due.
    pub(crate) fn settle_clocks(&self) {
        let mut machines = self.machines.borrow_mut();
        let latest = machines.iter().map(|machine| machine.furthest).max().unwrap_or(0);
        for machine in machines.iter_mut() {
            machine.clock = latest;
            machine.clock_moved = true;
        }
    }

    /// Called on the machine: its clock is moved from there.
    pub(crate) fn move_clock(&self, number: u32) {
        let moved =
            self.machine(number, |machine| std::mem::take(&mut machine.clock_moved).then_some(machine.clock));
        if let Some(clock) = moved {
            simulated::set_clock(clock);
        }
    }

    // ---- wishes

    pub(crate) fn want(&self, want: Want) {
        self.wants.borrow_mut().push(want);
    }

    pub(crate) fn next_want(&self) -> Option<Want> {
        self.wants.borrow().first().copied()
    }

    pub(crate) fn want_done(&self, want: Want, done: bool) {
        let mut wants = self.wants.borrow_mut();
        wants.retain(|other| *other != want);
        if !done {
            wants.push(want);
        }
    }

    pub(crate) fn has_wants(&self) -> bool {
        !self.wants.borrow().is_empty()
    }

    /// This machine's ticket, if it was made; else it is wanted.
    pub(crate) fn ticket(&self, number: u32) -> Option<Ticket> {
        let is_there =
            |ticket: &Ticket| self.machines.borrow().iter().any(|m| m.id == Some(ticket.inviter) && !m.left);
        let mut tickets = self.tickets.borrow_mut();
        let ticket = tickets.entry(number).or_default();
        *ticket = ticket.take().filter(is_there);
        ticket.clone()
    }

    /// This ticket was of no use: another is wanted.
    pub(crate) fn drop_ticket(&self, number: u32) {
        self.tickets.borrow_mut().remove(&number);
    }

    /// The machines that want one.
    pub(crate) fn tickets_wanted(&self) -> Vec<u32> {
        let tickets = self.tickets.borrow();
        tickets.iter().filter(|(_, ticket)| ticket.is_none()).map(|(number, _)| *number).collect()
    }

    pub(crate) fn give_ticket(&self, number: u32, ticket: Ticket) {
        self.tickets.borrow_mut().insert(number, Some(ticket));
    }

    // ---- clients

    pub(crate) fn begin_clients(&self) {
        self.clients_run.set(true);
        self.clients_began.set(true);
    }

    pub(crate) fn end_clients(&self) {
        self.clients_run.set(false);
    }

    pub(crate) fn clients_run(&self) -> bool {
        self.clients_run.get()
    }

    pub(crate) fn clients_ended(&self) -> bool {
        self.clients_began.get() && !self.clients_run.get()
    }

    fn number(&self) -> u64 {
        let next = self.next.get();
        self.next.set(next + 1);
        next
    }

    /// A new value of `size` bytes.
    pub(crate) fn new_value(&self, size: u64) -> Value {
        let value = Value(self.number());
        self.written.borrow_mut().insert(value, size);
        value
    }

    /// How long a value's content is, if it was ever written.
    pub(crate) fn size_of(&self, value: Value) -> Option<u64> {
        self.written.borrow().get(&value).copied()
    }

    pub(crate) fn learn_etag(&self, etag: WriteId, value: Value) {
        self.etags.borrow_mut().insert(etag.0, value);
    }

    pub(crate) fn value_of(&self, etag: &WriteId) -> Option<Value> {
        self.etags.borrow().get(&etag.0).copied()
    }

    pub(crate) fn etag_of(&self, value: Value) -> Option<WriteId> {
        self.etags.borrow().iter().find(|(_, known)| **known == value).map(|(etag, _)| WriteId(*etag))
    }

    /// Begins an operation; as long as nothing is heard of it, its outcome is unknown.
    pub(crate) fn begin(&self, client: u32, node: u32, key: &str, kind: Kind) -> usize {
        let mut operations = self.operations.borrow_mut();
        operations.push(Operation {
            client,
            node,
            key: key.to_owned(),
            kind,
            outcome: Outcome::Unknown,
            start: self.micros(),
            end: u64::MAX,
        });
        operations.len() - 1
    }

    pub(crate) fn end(&self, number: usize, outcome: Outcome) {
        let mut operations = self.operations.borrow_mut();
        let operation = &mut operations[number];
        operation.outcome = outcome;
        operation.end = self.micros();
        let line = operation.to_string();
        drop(operations);
        self.note(&line);
    }

    pub(crate) fn history(&self) -> History {
        let mut history = History::default();
        self.operations.borrow().iter().for_each(|operation| history.push(operation.clone()));
        history
    }

    pub(crate) fn sample<T: Clone>(&self, of: &[T], count: usize) -> Vec<T> {
        self.rng.borrow_mut().sample(of, count)
    }
}
