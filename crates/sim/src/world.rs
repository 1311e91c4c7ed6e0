//! A world: real nodes on simulated machines, run by a plan, and what must hold of it.
//!
//! Owns bringing plans about (machines, faults, clients) and the checks at the end. What strikes is
//! [`crate::schedule`]'s, what clients ask [`crate::client`]'s, whether the answers fit [`crate::linearizable`]'s.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use pando_node::{
    Config, Ended, Error, Node,
    core::{
        layout::{Replicas, change::Force},
        ticket::Ticket,
    },
    simulated::{self, Disk, Faults},
};

use crate::{
    linearizable,
    report::{Options, Report},
    schedule::{Copies, Fault, Plan},
    users,
};

mod ending;
mod state;

pub(crate) use state::{State, Want};

/// How long virtual time is cut: messages take at least this.
const TICK: Duration = Duration::from_millis(2);
/// How long a network may take to form (nine nodes join one after the other, where a message may take most of a
/// second), and to be in order again after the last fault.
const FORMING: Duration = Duration::from_secs(180);
const MENDING: Duration = Duration::from_secs(400);
/// How long what no object needs is kept: short, so that it is collected and purged within a world's time.
const GRACE: Duration = Duration::from_secs(6);
/// How long a ticket is good: clocks differ by hours.
const TICKET: Duration = Duration::from_secs(30 * 24 * 3600);
/// Where every machine listens.
const PORT: u16 = 7433;

/// The name of a machine.
fn machine_name(number: u32) -> String {
    format!("n{number}")
}

/// Logs of the nodes go to stderr, if `PANDO_LOG` says which.
fn log() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if let Ok(filter) = std::env::var("PANDO_LOG") {
            let filter = tracing_subscriber::EnvFilter::new(filter);
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .without_time()
                .init();
        }
    });
}

/// Makes the next task's number a multiple of 64. A runtime that ends (a machine that crashes) drops its tasks by
/// their numbers modulo the shards of its list, and numbers are counted by the process: a world would depend on
/// the worlds that ran before it.
fn align_task_numbers() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let number = || runtime.spawn(async {}).id().to_string().parse::<u64>().expect("ids are numbers");
    while (number() + 1) % 64 != 0 {}
}

/// Runs the world of a seed.
pub fn run(seed: u64, options: &Options) -> Report {
    log();
    align_task_numbers();
    let plan = options.profile.map_or_else(|| Plan::of(seed), |profile| Plan::of_profile(seed, profile));
    simulated::seed(seed);
    simulated::set_mutant(options.mutant.as_deref());
    simulated::reset_clocks();
    Disk::reset_all();
    let state = Rc::new(State::new(plan, options.trace));
    let outcome = World::new(Rc::clone(&state)).play();
    simulated::set_mutant(None);
    let violation = outcome.err().or_else(|| judge(&state));
    state.report(violation)
}

/// Whether what the clients saw can have been.
fn judge(state: &State) -> Option<String> {
    let history = state.history();
    for (key, operations) in history.by_key() {
        if let Err(violation) = linearizable::check(&operations) {
            return Some(format!("{key}: {violation}"));
        }
    }
    None
}

struct World {
    state: Rc<State>,
    sim: turmoil::Sim<'static>,
    /// Faults still to come, the next one last.
    faults: Vec<(u64, Fault)>,
    /// What must be undone, and when.
    later: Vec<(Duration, Fault)>,
    machines: u32,
    /// When the network had formed.
    began: Duration,
}

impl World {
    fn new(state: Rc<State>) -> Self {
        let plan = &state.plan;
        let (least, most) = plan.latency_ms;
        let sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(100_000))
            .min_message_latency(Duration::from_millis(u64::from(least)))
            .max_message_latency(Duration::from_millis(u64::from(most)))
            .tcp_capacity(1 << 20)
            .build();
        let mut faults = plan.faults.clone();
        faults.reverse();
        Self { faults, later: Vec::new(), machines: 0, began: Duration::ZERO, sim, state }
    }

    fn play(mut self) -> Result<(), String> {
        for _ in 0..self.state.plan.nodes {
            self.add_machine();
        }
        self.until(FORMING, "the network did not form", |state| state.all_joined())?;
        self.began = self.sim.elapsed();
        self.state.begin_clients();
        self.state.note("formed");
        self.sim.set_fail_rate(f64::from(self.state.plan.loss) / 1000.0);
        self.place(|far| far);
        let calm = Duration::from_millis(self.state.plan.calm_from_ms);
        while self.now() < calm {
            self.strike();
            self.step()?;
        }
        self.mend();
        let end = Duration::from_secs(u64::from(self.state.plan.seconds)).max(calm + Duration::from_secs(5));
        while self.now() < end {
            self.step()?;
            // A disk may have failed at the last moment before the calm, and its node stopped only then.
            if self.now() < calm + Duration::from_secs(3) {
                self.restart_stopped();
            }
        }
        self.state.end_clients();
        self.until(MENDING, "the world is not in order again", |state| state.is_in_order())
    }

    /// Time since the network formed.
    fn now(&self) -> Duration {
        self.sim.elapsed().saturating_sub(self.began)
    }

    fn step(&mut self) -> Result<(), String> {
        self.state.set_now(self.sim.elapsed());
        self.sim.step().map_err(|error| format!("a machine broke: {error}"))?;
        self.state.broken().map_or(Ok(()), Err)
    }

    fn until(&mut self, most: Duration, what: &str, done: impl Fn(&State) -> bool) -> Result<(), String> {
        let end = self.sim.elapsed() + most;
        while !done(&self.state) {
            if self.sim.elapsed() > end {
                return Err(format!("{what} within {most:?}: {}", self.state.why()));
            }
            self.step()?;
        }
        Ok(())
    }

    fn add_machine(&mut self) -> u32 {
        let number = self.machines;
        self.machines += 1;
        self.state.add_machine();
        let state = Rc::clone(&self.state);
        self.sim.host(machine_name(number), move || machine(Rc::clone(&state), number));
        number
    }

    fn strike(&mut self) {
        let now = self.now();
        while self.faults.last().is_some_and(|(at, _)| Duration::from_millis(*at) <= now) {
            let (_, fault) = self.faults.pop().expect("it is there");
            self.bring_about(&fault);
        }
        let due: Vec<Fault> =
            self.later.iter().filter(|(at, _)| *at <= now).map(|(_, f)| f.clone()).collect();
        self.later.retain(|(at, _)| *at > now);
        for fault in due {
            self.bring_about(&fault);
        }
    }

    fn bring_about(&mut self, fault: &Fault) {
        self.state.event(fault.name());
        self.state.note(&format!("{fault:?}"));
        match fault {
            Fault::Partition { .. } | Fault::OneWay { .. } | Fault::Flap { .. } | Fault::Heal => {
                self.on_links(fault);
            }
            Fault::Loss { permille } => self.sim.set_fail_rate(f64::from(*permille) / 1000.0),
            Fault::Slow { node, ms } => self.slow(*node, *ms),
            Fault::Pause { node, ms } => self.pause(*node, *ms),
            Fault::Crash { node, tear } => self.crash(*node, *tear),
            Fault::Restart { node } => self.restart(*node),
            Fault::Wipe { node } => self.wipe(*node),
            Fault::ClockJump { node, by_ms } => self.state.jump_clock(*node, *by_ms),
            Fault::Join => {
                let number = self.add_machine();
                self.state.note(&format!("machine {number} joins"));
            }
            Fault::Drain { node } => self.state.want(Want::Drain(*node)),
            Fault::Remove { node } => self.state.want(Want::Remove(*node)),
            Fault::CheckNow => self.state.want(Want::Check),
            disk => self.on_disk(disk),
        }
    }

    fn exists(&self, node: u32) -> bool {
        node < self.machines
    }

    fn others(&self, node: u32) -> Vec<u32> {
        (0..self.machines).filter(|other| *other != node).collect()
    }

    fn on_links(&mut self, fault: &Fault) {
        match fault {
            Fault::Partition { side } => {
                let there: Vec<u32> = (0..self.machines).filter(|node| !side.contains(node)).collect();
                for a in side.iter().filter(|a| self.exists(**a)) {
                    for b in &there {
                        self.sim.partition(machine_name(*a), machine_name(*b));
                    }
                }
            }
            Fault::OneWay { from, to } if self.exists(*from) && self.exists(*to) => {
                self.sim.partition_oneway(machine_name(*from), machine_name(*to));
            }
            Fault::Flap { a, b, times } if self.exists(*a) && self.exists(*b) => {
                self.sim.partition(machine_name(*a), machine_name(*b));
                let now = self.now();
                let mut at = now;
                for _ in 0..*times {
                    at += Duration::from_millis(300);
                    self.later.push((at, Fault::Heal));
                    at += Duration::from_millis(300);
                    self.later.push((at, Fault::Flap { a: *a, b: *b, times: 0 }));
                }
                self.later.push((at + Duration::from_millis(300), Fault::Heal));
            }
            _ => self.repair_all(),
        }
    }

    fn repair_all(&mut self) {
        for a in 0..self.machines {
            for b in (0..self.machines).filter(|b| *b != a) {
                self.sim.repair(machine_name(a), machine_name(b));
            }
        }
    }

    fn slow(&mut self, node: u32, ms: u32) {
        if self.exists(node) {
            let latency = self.state.plan.latency_ms.1 + ms;
            for other in self.others(node) {
                let most = Duration::from_millis(u64::from(latency));
                self.sim.set_link_max_message_latency(machine_name(node), machine_name(other), most);
            }
        }
    }

    /// Puts the nodes that are far from each other there, or back.
    fn place(&self, latency: impl Fn(u32) -> u32) {
        for &(a, b, far) in &self.state.plan.far {
            let latency = Duration::from_millis(u64::from(latency(far)));
            self.sim.set_link_latency(machine_name(a), machine_name(b), latency);
        }
    }

    /// Nothing that a paused node says is heard, and it hears nothing, until it goes on: then all of it.
    fn pause(&mut self, node: u32, ms: u32) {
        if ms == 0 {
            for other in self.others(node) {
                self.sim.release(machine_name(node), machine_name(other));
            }
        } else if self.exists(node) {
            for other in self.others(node) {
                self.sim.hold(machine_name(node), machine_name(other));
            }
            let end = self.now() + Duration::from_millis(u64::from(ms));
            self.later.push((end, Fault::Pause { node, ms: 0 }));
        }
    }

    fn crash(&mut self, node: u32, tear: bool) {
        if self.exists(node) && !self.state.is_off(node) {
            Disk::of(&machine_name(node)).power_off();
            self.state.power_off(node, tear);
            self.sim.crash(machine_name(node));
        }
    }

    fn restart(&mut self, node: u32) {
        if !self.exists(node) {
            return;
        }
        // A machine whose node stopped by itself (its disk failed) is started anew, as if it had crashed.
        self.crash(node, false);
        Disk::of(&machine_name(node)).power_on(self.state.power_on(node));
        self.sim.bounce(machine_name(node));
    }

    fn restart_stopped(&mut self) {
        for node in (0..self.machines).filter(|node| self.state.needs_restart(*node)).collect::<Vec<_>>() {
            self.restart(node);
        }
    }

    fn wipe(&mut self, node: u32) {
        if self.exists(node) && self.state.is_off(node) {
            Disk::of(&machine_name(node)).wipe();
            self.state.wiped(node);
        }
    }

    fn on_disk(&mut self, fault: &Fault) {
        let disk = |node: &u32| Disk::of(&machine_name(*node));
        match fault {
            Fault::FlipBits { node, files } => {
                let chunks = disk(node).files("/chunks/");
                for path in self.state.sample(&chunks, *files as usize) {
                    disk(node).flip(&path);
                }
            }
            Fault::Misdirect { node } => {
                let chunks = disk(node).files("/chunks/");
                if let [a, b, ..] = self.state.sample(&chunks, 2).as_slice() {
                    disk(node).misdirect(a, b);
                }
            }
            Fault::ReadErrors { node, percent } => {
                let disk = disk(node);
                disk.set_faults(Faults { read_errors: *percent as u8, ..disk.faults() });
            }
            Fault::FsyncFails { node } => {
                let disk = disk(node);
                disk.set_faults(Faults { sync_fails: true, ..disk.faults() });
            }
            Fault::DiskFull { node, for_ms } => {
                let disk = disk(node);
                disk.set_faults(Faults { full: *for_ms > 0, ..disk.faults() });
                if *for_ms > 0 {
                    let end = self.now() + Duration::from_millis(u64::from(*for_ms));
                    self.later.push((end, Fault::DiskFull { node: *node, for_ms: 0 }));
                }
            }
            _ => {}
        }
    }

    /// Everything works again.
    fn mend(&mut self) {
        self.state.note("calm");
        self.later.clear();
        self.sim.set_fail_rate(0.0);
        self.repair_all();
        self.state.settle_clocks();
        for node in 0..self.machines {
            for other in self.others(node) {
                self.sim.release(machine_name(node), machine_name(other));
            }
            self.slow(node, 0);
            if self.state.needs_restart(node) {
                self.restart(node);
            } else {
                Disk::of(&machine_name(node)).set_faults(Faults::default());
            }
        }
        let near = self.state.plan.latency_ms.1;
        self.place(|_| near);
    }
}

/// One machine's life from power on to power off.
async fn machine(state: Rc<State>, number: u32) -> turmoil::Result {
    simulated::set_clock(state.clock(number));
    let address = SocketAddr::new(turmoil::lookup(machine_name(number)), PORT);
    let mut config = Config {
        data: format!("/{}/data", machine_name(number)).into(),
        // A simulated machine listens on all of its addresses.
        listen: Some(SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), PORT)),
        advertise: Some(address),
        zone: Some(format!("zone-{}", number % state.plan.zones)),
        capacity: Some(1 << 31),
        replicas: state.makes_the_network(number).then(|| replicas(state.plan.replicas)),
        join: None,
        grace: GRACE,
        dead_after: None,
        heal_rate: None,
    };
    let node = loop {
        if state.needs_ticket(number) {
            config.join = Some(ticket(&state, number).await);
        }
        match Node::start(config.clone()).await {
            Ok(node) => break node,
            Err(error) => {
                state.note(&format!("machine {number} does not start: {error}"));
                let may_have_joined = matches!(error, Error::JoinUndecided(_))
                    || error.to_string().contains("can't be reached");
                if !may_have_joined {
                    state.drop_ticket(number);
                }
                let is_full = Disk::of(&machine_name(number)).faults().full;
                if state.gives_up(number, &error, is_full) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    };
    state.came_up(number, node.clone());
    users::start(&state, number, &node);
    let ended = tokio::select! {
        biased;
        ended = node.ended() => ended,
        () = serve(&state, number, &node) => unreachable!("it goes on for ever"),
    };
    state.note(&format!("machine {number} ends: {ended:?}"));
    state.ended(number, !matches!(ended, Ended::DiskFailed(_)));
    node.stop().await;
    Ok(())
}

fn replicas(copies: Copies) -> Replicas {
    match copies {
        Copies::Count(count) => Replicas::Count(count as u8),
        Copies::All => Replicas::All,
    }
}

/// A machine's ticket, from some node that runs. A newcomer that was cut off uses the same one again.
async fn ticket(state: &Rc<State>, number: u32) -> Ticket {
    loop {
        if let Some(ticket) = state.ticket(number) {
            return ticket;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Does what the world wants of some node, as long as this one is the first that runs.
async fn serve(state: &Rc<State>, number: u32, node: &Node) {
    loop {
        tokio::time::sleep(Duration::from_millis(40)).await;
        state.move_clock(number);
        if state.inviter() == Some(number) {
            for wanted in state.tickets_wanted() {
                match node.invite(TICKET).await {
                    Ok(ticket) => state.give_ticket(wanted, ticket),
                    Err(error) => state.note(&format!("no ticket: {error}")),
                }
            }
        }
        if state.first_up() != Some(number) {
            continue;
        }
        if let Some(want) = state.next_want() {
            let done = fulfil(state, node, want).await;
            state.want_done(want, done);
        }
        ending::look(state, node).await;
    }
}

/// Whether a wish came true, or can't any more.
async fn fulfil(state: &Rc<State>, node: &Node, want: Want) -> bool {
    let of = |machine: u32| state.id(machine);
    let outcome = match want {
        Want::Drain(machine) => match of(machine) {
            Some(id) if id != node.id() => node.drain(id, false).await,
            _ => return true,
        },
        Want::Remove(machine) => match of(machine) {
            Some(id) if id != node.id() => node.remove_node(id, Force::EvenUp).await,
            _ => return true,
        },
        Want::Forget(id) => node.remove_node(id, Force::EvenUp).await,
        Want::Check => {
            let (progress, _) = tokio::sync::watch::channel(Default::default());
            node.check(false, &progress).await.map(|_| ())
        }
    };
    match outcome {
        Ok(()) => true,
        Err(error) => {
            let text = error.to_string();
            state.note(&format!("{want:?}: {text}"));
            // What is refused for good is not asked again; a network that is in trouble will be asked later.
            want == Want::Check
                || ["is so already", "not a member", "only node"].iter().any(|w| text.contains(w))
        }
    }
}
