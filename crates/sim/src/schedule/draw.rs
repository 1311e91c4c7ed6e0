//! Draws the faults of a plan: stories of several faults that belong together, and an end to all of them.

use super::{Fault, Plan, Profile};
use crate::rng::Rng;

/// Faults begin after this: a network that is being made is another test's matter.
const FIRST_MS: u64 = 2_000;

/// A story: some faults that belong together.
#[derive(Clone, Copy)]
enum Story {
    Partition,
    OneWay,
    Flap,
    Loss,
    Slow,
    Pause,
    Crash,
    PowerCut,
    CrashLoop,
    Absence,
    DiskLost,
    BitRot,
    Misdirect,
    ReadErrors,
    FsyncFails,
    DiskFull,
    Clock,
    Join,
    Drain,
    Remove,
    Check,
}

use Story::{
    Absence, BitRot, Check, Clock, Crash, CrashLoop, DiskFull, DiskLost, Drain, Flap, FsyncFails, Join, Loss,
    Misdirect, OneWay, Partition, Pause, PowerCut, ReadErrors, Remove, Slow,
};

/// The stories of a profile by weight, and the least and the most of them.
fn stories(profile: Profile) -> (&'static [(Story, u64)], (u32, u32)) {
    match profile {
        Profile::Calm => (&[(Slow, 1), (Pause, 1), (Check, 1)], (0, 2)),
        Profile::Partitions => {
            (&[(Partition, 5), (OneWay, 3), (Flap, 3), (Loss, 2), (Slow, 1), (Pause, 2), (Crash, 1)], (4, 10))
        }
        Profile::Crashes => {
            (&[(Crash, 6), (PowerCut, 2), (CrashLoop, 2), (Pause, 1), (Partition, 1)], (4, 10))
        }
        Profile::Disks => (
            &[
                (DiskLost, 2),
                (BitRot, 4),
                (Misdirect, 3),
                (ReadErrors, 2),
                (FsyncFails, 3),
                (DiskFull, 2),
                (Crash, 3),
                (PowerCut, 1),
                (Check, 1),
            ],
            (3, 9),
        ),
        Profile::Clocks => (&[(Clock, 6), (Crash, 2), (Partition, 2), (Pause, 1)], (3, 9)),
        Profile::Membership => (
            &[
                (Join, 4),
                (Drain, 4),
                (Remove, 3),
                (DiskLost, 1),
                (Crash, 3),
                (PowerCut, 1),
                (Partition, 3),
                (Pause, 1),
            ],
            (3, 8),
        ),
        Profile::HotKey => (
            &[(Crash, 3), (CrashLoop, 8), (PowerCut, 2), (Partition, 2), (OneWay, 1), (Pause, 1), (Clock, 4)],
            (10, 20),
        ),
        Profile::Moving => (
            &[
                (Join, 4),
                (Drain, 4),
                (Remove, 2),
                (Crash, 3),
                (CrashLoop, 1),
                (PowerCut, 1),
                (Partition, 3),
                (Slow, 2),
                (Pause, 2),
            ],
            (8, 16),
        ),
        Profile::Deletes => (
            &[
                (Absence, 5),
                (Partition, 3),
                (Crash, 2),
                (Pause, 1),
                (OneWay, 1),
                (Clock, 1),
                (Drain, 1),
                (Join, 1),
            ],
            (3, 8),
        ),
        Profile::Versions => (
            &[
                (Partition, 4),
                (OneWay, 2),
                (Slow, 1),
                (Pause, 3),
                (Crash, 5),
                (PowerCut, 1),
                (CrashLoop, 2),
                (BitRot, 1),
                (Clock, 2),
                (Join, 1),
                (Drain, 1),
                (Check, 1),
            ],
            (4, 12),
        ),
        Profile::Everything => (
            &[
                (Partition, 3),
                (OneWay, 2),
                (Flap, 1),
                (Loss, 1),
                (Slow, 1),
                (Pause, 2),
                (Crash, 4),
                (PowerCut, 1),
                (CrashLoop, 1),
                (DiskLost, 1),
                (BitRot, 2),
                (Misdirect, 1),
                (ReadErrors, 1),
                (FsyncFails, 1),
                (DiskFull, 1),
                (Clock, 2),
                (Join, 2),
                (Drain, 2),
                (Remove, 1),
                (Check, 1),
            ],
            (6, 14),
        ),
    }
}

/// The faults of a plan, in order of time.
pub(super) fn faults(plan: &Plan, rng: &mut Rng) -> Vec<(u64, Fault)> {
    let (stories, (least, most)) = stories(plan.profile);
    let weights: Vec<u64> = stories.iter().map(|&(_, weight)| weight).collect();
    let mut times: Vec<u64> = (0..rng.between(u64::from(least), u64::from(most)))
        .map(|_| rng.between(FIRST_MS, plan.calm_from_ms - 1))
        .collect();
    times.sort_unstable();
    let everyone: Vec<u32> = (0..plan.nodes).collect();
    let victims = rng.sample(&everyone, plan.expendable() as usize);
    let mut drawer = Drawer { plan, rng, members: everyone, next: plan.nodes, victims, faults: Vec::new() };
    for at in times {
        let story = stories[drawer.rng.weighted(&weights)].0;
        drawer.tell(story, at);
    }
    drawer.end()
}

struct Drawer<'a> {
    plan: &'a Plan,
    rng: &'a mut Rng,
    /// Who is there and is to stay, as far as was told.
    members: Vec<u32>,
    /// The number of the next that joins.
    next: u32,
    /// Nodes that may lose data; once one is gone for good, it is no longer among them.
    victims: Vec<u32>,
    faults: Vec<(u64, Fault)>,
}

impl Drawer<'_> {
    fn tell(&mut self, story: Story, at: u64) {
        match story {
            Partition | OneWay | Flap | Loss | Slow => self.network(story, at),
            Crash | PowerCut | CrashLoop | Absence => self.crashes(story, at),
            DiskLost | Remove => self.loses(story, at),
            BitRot | Misdirect | ReadErrors | FsyncFails => self.damages(story, at),
            Pause => {
                let (node, ms) = (self.member(), self.rng.between_u32(100, 8_000));
                self.add(at, Fault::Pause { node, ms });
            }
            DiskFull => {
                let (node, for_ms) = (self.member(), self.rng.between_u32(500, 6_000));
                self.add(at, Fault::DiskFull { node, for_ms });
            }
            Clock => {
                // Seconds as well as hours: both what NTP does and what a dead battery does.
                let most = *self.rng.pick(&[5_000, 600_000, 6 * 3_600_000]);
                let by_ms = self.rng.between(1, 2 * most) as i64 - most as i64;
                let node = self.member();
                self.add(at, Fault::ClockJump { node, by_ms });
            }
            Join => self.join(at),
            // As many must stay as there are copies, or draining could never end.
            Drain if self.members.len() > self.plan.copies() as usize => {
                let node = self.member();
                self.leave(node);
                self.add(at, Fault::Drain { node });
            }
            Drain => self.join(at),
            Check => self.add(at, Fault::CheckNow),
        }
    }

    fn network(&mut self, story: Story, at: u64) {
        let later = at + self.rng.between(300, 8_000);
        match story {
            Partition => {
                let size = self.rng.between(1, (self.members.len() as u64 - 1).max(1)) as usize;
                let mut side = self.rng.sample(&self.members, size);
                side.sort_unstable();
                self.add(at, Fault::Partition { side });
                self.add(later, Fault::Heal);
            }
            OneWay => {
                let (from, to) = self.two();
                self.add(at, Fault::OneWay { from, to });
                self.add(later, Fault::Heal);
            }
            Flap => {
                let ((a, b), times) = (self.two(), self.rng.between_u32(2, 8));
                self.add(at, Fault::Flap { a, b, times });
            }
            Loss => {
                let permille = self.rng.between_u32(5, 30);
                self.add(at, Fault::Loss { permille });
                self.add(later, Fault::Loss { permille: self.plan.loss });
            }
            _ => {
                let (node, ms) = (self.member(), self.rng.between_u32(50, 1_500));
                self.add(at, Fault::Slow { node, ms });
                self.add(later, Fault::Slow { node, ms: 0 });
            }
        }
    }

    fn crashes(&mut self, story: Story, at: u64) {
        let (nodes, rounds) = match story {
            PowerCut => (self.members.clone(), 1),
            CrashLoop => (vec![self.member()], self.rng.between(3, 14)),
            _ => (vec![self.member()], 1),
        };
        let mut at = at;
        for _ in 0..rounds {
            for &node in &nodes {
                let tear = self.rng.chance(60);
                self.add(at, Fault::Crash { node, tear });
                // A service manager restarts at once; a person, after a while.
                let down = match story {
                    CrashLoop => (2, 120),
                    // Longer than it takes to forget what was deleted: the grace time and twice the longest change.
                    Absence => (25_000, 45_000),
                    _ if self.rng.chance(50) => (50, 500),
                    _ => (500, 9_000),
                };
                let up = at + self.rng.between(down.0, down.1);
                self.add(up, Fault::Restart { node });
            }
            at += self.rng.between(150, 1_500);
        }
    }

    /// A node is gone with all it holds; someone removes it, and mostly a new one takes its place.
    fn loses(&mut self, story: Story, at: u64) {
        let enough = self.members.len() > self.plan.copies() as usize;
        let Some(node) = self.victims.pop().filter(|node| self.members.contains(node)) else {
            return self.join(at);
        };
        self.leave(node);
        if !enough {
            self.join(at);
        }
        let mut at = at + self.rng.between(10, 1_000);
        if matches!(story, DiskLost) {
            self.add(at, Fault::Crash { node, tear: false });
            self.add(at + 1, Fault::Wipe { node });
            at += self.rng.between(500, 4_000);
        }
        self.add(at, Fault::Remove { node });
        if enough && self.rng.chance(70) {
            let later = at + self.rng.between(100, 3_000);
            self.join(later);
        }
    }

    fn damages(&mut self, story: Story, at: u64) {
        let Some(&node) = self.victims.first() else { return self.add(at, Fault::CheckNow) };
        match story {
            BitRot => {
                let files = self.rng.between_u32(1, 4);
                self.add(at, Fault::FlipBits { node, files });
            }
            Misdirect => self.add(at, Fault::Misdirect { node }),
            ReadErrors => {
                let percent = self.rng.between_u32(1, 40);
                self.add(at, Fault::ReadErrors { node, percent });
                let later = at + self.rng.between(300, 5_000);
                self.add(later, Fault::ReadErrors { node, percent: 0 });
            }
            _ => {
                self.add(at, Fault::FsyncFails { node });
                let later = at + self.rng.between(500, 6_000);
                self.add(later, Fault::Restart { node });
            }
        }
    }

    fn join(&mut self, at: u64) {
        // More nodes than this make a world slow and find nothing more.
        if self.next < self.plan.nodes + 4 {
            self.add(at, Fault::Join);
            self.members.push(self.next);
            self.next += 1;
        }
    }

    fn leave(&mut self, node: u32) {
        self.members.retain(|&member| member != node);
        self.victims.retain(|&victim| victim != node);
    }

    fn member(&mut self) -> u32 {
        *self.rng.pick(&self.members)
    }

    fn two(&mut self) -> (u32, u32) {
        let pair = self.rng.sample(&self.members, 2);
        (pair[0], pair[1])
    }

    /// Nothing is told of the time after the calm began.
    fn add(&mut self, at: u64, fault: Fault) {
        self.faults.push((at.min(self.plan.calm_from_ms - 1), fault));
    }

    /// Stories overlap: one may name a node that another removed meanwhile, or that joins only later.
    fn drop_impossible(&mut self) {
        let mut joined = self.plan.nodes;
        let (mut wiped, mut removed) = (Vec::new(), Vec::new());
        self.faults.retain(|(_, fault)| {
            let there = |node: &u32| *node < joined && !removed.contains(node);
            let comes_back = matches!(fault, Fault::Restart { node } if wiped.contains(node));
            let possible = fault.nodes().iter().all(there) && !comes_back;
            match *fault {
                Fault::Join => joined += 1,
                Fault::Wipe { node } => wiped.push(node),
                Fault::Remove { node } => removed.push(node),
                _ => {}
            }
            possible
        });
    }

    /// In order, with an end to everything that lasts.
    fn end(mut self) -> Vec<(u64, Fault)> {
        self.faults.sort_by_key(|&(at, _)| at);
        self.drop_impossible();
        let calm = self.plan.calm_from_ms;
        let mut down: Vec<u32> = Vec::new();
        let mut ends = vec![Fault::Heal, Fault::Loss { permille: 0 }];
        for (_, fault) in &self.faults {
            match *fault {
                Fault::Crash { node, .. } | Fault::FsyncFails { node } => down.push(node),
                Fault::Restart { node } => down.retain(|&other| other != node),
                // It never comes back: nothing of it is left to end.
                Fault::Remove { node } => {
                    down.retain(|&other| other != node);
                    ends.retain(|end| !end.nodes().contains(&node));
                }
                Fault::Slow { node, ms } if ms > 0 => ends.push(Fault::Slow { node, ms: 0 }),
                Fault::ReadErrors { node, percent } if percent > 0 => {
                    ends.push(Fault::ReadErrors { node, percent: 0 });
                }
                _ => {}
            }
        }
        ends.extend(down.into_iter().map(|node| Fault::Restart { node }));
        ends.sort();
        ends.dedup();
        self.faults.extend(ends.into_iter().map(|fault| (calm, fault)));
        let check = calm + self.rng.between(1_000, 4_000);
        self.faults.push((check, Fault::CheckNow));
        self.faults
    }
}
