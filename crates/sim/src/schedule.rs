//! The plan of a world: how large, how the network is, and which faults strike when; all drawn from a seed.
//!
//! A plan is fair: what Pando promises must hold under it. So whatever destroys data strikes only a few nodes
//! chosen beforehand (less than half of the copies), everything that goes down comes up again, and the
//! last third is calm, so that a world can demand that all is well at its end. How a fault is brought about is
//! the world's business; what users do is [`crate::client`]'s.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

mod draw;

/// What strikes. Nodes are numbered from 0; nodes that join later continue the count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// These nodes can't be reached by the others, nor reach them, until [`Fault::Heal`].
    Partition {
        /// One side; all others are the other.
        side: Vec<u32>,
    },
    /// Nothing that `from` sends reaches `to`, until [`Fault::Heal`].
    OneWay {
        /// Who is not heard.
        from: u32,
        /// Who does not hear.
        to: u32,
    },
    /// The link between two nodes is cut and mended so many times, a few hundred milliseconds each.
    Flap {
        /// One end.
        a: u32,
        /// The other.
        b: u32,
        /// How often.
        times: u32,
    },
    /// Every link works again.
    Heal,
    /// So many of 1000 segments are lost; 0 ends it. Nothing is sent again here, so a connection that lost one is
    /// dead: worse than ten times as many lost packets are where TCP repeats them.
    Loss {
        /// Of 1000.
        permille: u32,
    },
    /// What this node sends and gets takes so much longer; 0 ends it.
    Slow {
        /// Which.
        node: u32,
        /// Milliseconds more.
        ms: u32,
    },
    /// The node stands still, with its connections open, and goes on as if nothing had been.
    Pause {
        /// Which.
        node: u32,
        /// For how long.
        ms: u32,
    },
    /// The node stops at once; what was not synced may be gone.
    Crash {
        /// Which.
        node: u32,
        /// Whether unsynced writes survive in part, and in any order.
        tear: bool,
    },
    /// The node starts with the disk that it has; its disk's faults are over.
    Restart {
        /// Which.
        node: u32,
    },
    /// The disk of this node, which is down, is gone: it does not come back as who it was.
    Wipe {
        /// Which.
        node: u32,
    },
    /// A bit of several files changes.
    FlipBits {
        /// Of which node.
        node: u32,
        /// In how many files.
        files: u32,
    },
    /// A write of one chunk file went into another.
    Misdirect {
        /// Of which node.
        node: u32,
    },
    /// So many of 100 reads fail; 0 ends it.
    ReadErrors {
        /// Of which node.
        node: u32,
        /// Of 100.
        percent: u32,
    },
    /// The next sync fails, and what it should have made durable is gone.
    FsyncFails {
        /// Of which node.
        node: u32,
    },
    /// Nothing more can be written.
    DiskFull {
        /// Of which node.
        node: u32,
        /// For how long.
        for_ms: u32,
    },
    /// The wall clock of the node is wrong by so much more. It stays so: a wrong clock is not an outage.
    ClockJump {
        /// Which.
        node: u32,
        /// By how much.
        by_ms: i64,
    },
    /// A new node joins; it has the next number.
    Join,
    /// The node hands over what it holds and leaves.
    Drain {
        /// Which.
        node: u32,
    },
    /// The node is removed without being asked.
    Remove {
        /// Which.
        node: u32,
    },
    /// Some node checks every copy.
    CheckNow,
}

impl Fault {
    /// The nodes that it names.
    pub fn nodes(&self) -> Vec<u32> {
        match *self {
            Self::Partition { ref side } => side.clone(),
            Self::OneWay { from: a, to: b } | Self::Flap { a, b, .. } => vec![a, b],
            Self::Slow { node, .. }
            | Self::Pause { node, .. }
            | Self::Crash { node, .. }
            | Self::Restart { node }
            | Self::Wipe { node }
            | Self::FlipBits { node, .. }
            | Self::Misdirect { node }
            | Self::ReadErrors { node, .. }
            | Self::FsyncFails { node }
            | Self::DiskFull { node, .. }
            | Self::ClockJump { node, .. }
            | Self::Drain { node }
            | Self::Remove { node } => vec![node],
            Self::Heal | Self::Loss { .. } | Self::Join | Self::CheckNow => vec![],
        }
    }

    /// Its name in the sums of events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::OneWay { .. } => "one-way",
            Self::Flap { .. } => "flap",
            Self::Heal => "heal",
            Self::Loss { .. } => "loss",
            Self::Slow { .. } => "slow",
            Self::Pause { .. } => "pause",
            Self::Crash { .. } => "crash",
            Self::Restart { .. } => "restart",
            Self::Wipe { .. } => "wipe",
            Self::FlipBits { .. } => "flip-bits",
            Self::Misdirect { .. } => "misdirect",
            Self::ReadErrors { .. } => "read-errors",
            Self::FsyncFails { .. } => "fsync-fails",
            Self::DiskFull { .. } => "disk-full",
            Self::ClockJump { .. } => "clock-jump",
            Self::Join => "join",
            Self::Drain { .. } => "drain",
            Self::Remove { .. } => "remove",
            Self::CheckNow => "check",
        }
    }
}

/// What a world is about: worlds that do a little of everything find less than worlds that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Profile {
    /// Hardly anything goes wrong.
    Calm,
    /// The network fails.
    Partitions,
    /// Nodes crash, also all at once.
    Crashes,
    /// Disks fail.
    Disks,
    /// Clocks are wrong.
    Clocks,
    /// Nodes join, drain, are removed.
    Membership,
    /// One key, many conditional writes, many crashes.
    HotKey,
    /// As a hot key, while nodes come and go.
    Moving,
    /// Many removes, so that tombstones and their purge matter.
    Deletes,
    /// All of it.
    Everything,
    /// The bucket keeps versions.
    Versions,
}

impl Profile {
    /// Whether all clients want one key.
    pub fn is_hot(self) -> bool {
        matches!(self, Self::HotKey | Self::Moving)
    }

    /// How much longer than the least a message may take: on a slow network more happens between a question and
    /// its answer.
    fn jitters_ms(self) -> &'static [u32] {
        match self {
            Self::HotKey => &[10, 50, 200, 400],
            Self::Moving => &[200, 400, 800],
            _ => &[1, 10, 50, 200],
        }
    }

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Partitions => "partitions",
            Self::Crashes => "crashes",
            Self::Disks => "disks",
            Self::Clocks => "clocks",
            Self::Membership => "membership",
            Self::HotKey => "hot-key",
            Self::Moving => "moving",
            Self::Deletes => "deletes",
            Self::Everything => "everything",
            Self::Versions => "versions",
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut all = PROFILES.iter().map(|(profile, _)| *profile);
        all.clone().find(|profile| profile.name() == name).ok_or_else(|| {
            let names: Vec<&str> = all.by_ref().map(Self::name).collect();
            format!("no profile {name:?}; there are {}", names.join(", "))
        })
    }
}

/// Every profile, with how often of 100 it is drawn.
pub const PROFILES: [(Profile, u64); 11] = [
    (Profile::Calm, 4),
    (Profile::Partitions, 12),
    (Profile::Crashes, 14),
    (Profile::Disks, 12),
    (Profile::Clocks, 6),
    (Profile::Membership, 12),
    (Profile::HotKey, 10),
    (Profile::Moving, 8),
    (Profile::Deletes, 10),
    (Profile::Everything, 6),
    (Profile::Versions, 6),
];

/// How many copies of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// So many.
    Count(u32),
    /// One on every node.
    All,
}

/// A world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its seed.
    pub seed: u64,
    /// What it is about.
    pub profile: Profile,
    /// Nodes at the start, 3 to 9.
    pub nodes: u32,
    /// Zones, 1 to 3; node n is in zone n modulo this.
    pub zones: u32,
    /// How many copies.
    pub replicas: Copies,
    /// Clients, 2 to 6.
    pub clients: u32,
    /// Keys, 2 to 6; one for a hot key.
    pub keys: u32,
    /// Keys that are written once, by each client; 0 for a hot key.
    pub archives: u32,
    /// How long it lasts: 30 to 60 virtual seconds, or up to 100 where deletes are forgotten.
    pub seconds: u32,
    /// The least and the most that a message takes, in milliseconds.
    pub latency_ms: (u32, u32),
    /// Pairs of nodes that are far from each other, and what a message between them takes, in milliseconds, until
    /// the calm: who asks a near and a far one has its answers at different times, and much may happen between.
    pub far: Vec<(u32, u32, u32)>,
    /// Segments lost of 1000, all the time until the calm.
    pub loss: u32,
    /// When the calm begins: everything is mended, and only checks come after it.
    pub calm_from_ms: u64,
    /// What strikes, and when, in order of time.
    pub faults: Vec<(u64, Fault)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::of(seed, 1);
        let profile = PROFILES[rng.weighted(&PROFILES.map(|(_, weight)| weight))].0;
        Self::with(seed, profile, &mut rng)
    }

    /// A plan of this seed for this profile.
    pub fn of_profile(seed: u64, profile: Profile) -> Self {
        Self::with(seed, profile, &mut Rng::of(seed, 2))
    }

    fn with(seed: u64, profile: Profile, rng: &mut Rng) -> Self {
        // Small worlds are faster and find most; large ones have keys that nodes do not own.
        let nodes = match profile {
            // Whoever changes a key that it does not own waits for others only, and for long.
            Profile::HotKey => rng.between_u32(4, 6),
            _ if rng.chance(60) => rng.between_u32(3, 5),
            _ => rng.between_u32(4, 9),
        };
        let replicas = match rng.below(100) {
            0..5 => Copies::Count(1),
            // Whoever loses the only copy on its way is caught.
            50..70 if profile == Profile::Membership => Copies::Count(1),
            5..11 => Copies::Count(2),
            75..85 if nodes >= 5 => Copies::Count(5),
            85..95 if nodes <= 6 => Copies::All,
            _ => Copies::Count(3),
        };
        // What is deleted is forgotten only after a while.
        let seconds =
            if profile == Profile::Deletes { rng.between_u32(60, 100) } else { rng.between_u32(30, 60) };
        let least = rng.between_u32(1, 10);
        let mut plan = Self {
            seed,
            profile,
            nodes,
            zones: rng.between_u32(1, 3),
            replicas,
            clients: if profile.is_hot() { rng.between_u32(4, 6) } else { rng.between_u32(2, 4) },
            keys: if profile.is_hot() { 1 } else { rng.between_u32(2, 6) },
            archives: match profile {
                Profile::HotKey | Profile::Moving => 0,
                Profile::Deletes => 3,
                _ => 1,
            },
            seconds,
            latency_ms: (least, least + *rng.pick(profile.jitters_ms())),
            far: Vec::new(),
            loss: if !matches!(profile, Profile::Calm | Profile::HotKey) && rng.chance(30) {
                rng.between_u32(1, 5)
            } else {
                0
            },
            calm_from_ms: u64::from(seconds) * 1000 * 2 / 3,
            faults: Vec::new(),
        };
        if profile == Profile::HotKey && rng.chance(60) {
            let pairs = (0..nodes).flat_map(|b| (0..b).map(move |a| (a, b)));
            plan.far = pairs.filter(|_| rng.chance(50)).map(|(a, b)| (a, b, 0)).collect();
            plan.far.iter_mut().for_each(|(_, _, ms)| *ms = rng.between_u32(300, 900));
        }
        plan.faults = draw::faults(&plan, rng);
        plan
    }

    /// With those that are written once.
    pub fn all_keys(&self) -> u32 {
        self.keys + self.archives * self.clients
    }

    /// Copies of each thing, with the nodes of the start.
    pub fn copies(&self) -> u32 {
        match self.replicas {
            Copies::Count(count) => count.min(self.nodes),
            Copies::All => self.nodes,
        }
    }

    /// How many nodes may lose what they hold, so that a majority of the copies of everything remains.
    pub fn expendable(&self) -> u32 {
        (self.copies() - 1) / 2
    }
}

#[cfg(test)]
mod tests;
