//! Who owns which partition, given everyone's number of slots: a flow of least cost, the cost being the slots
//! that move.
//!
//! The network: from the source one unit for each copy of each partition; from a partition to each zone, as
//! promise 1 permits; from a partition's zone to each of the zone's members, one unit, free if the member
//! owns the partition already and at the cost of one if not; from each member to the sink, its slots.
//!
//! What may stay stays; what is free to take goes greedily to whoever lacks most; what is left over is placed
//! along shortest augmenting paths (successive shortest paths with potentials: Ahuja, Magnanti, Orlin,
//! "Network Flows", 9.7), which exchange owners of other partitions until everything fits. Greedy steps are
//! taken only where they are shortest paths too, so the result is a flow of least cost.

use super::Zones;

/// The owners of each partition. `quota` must be realisable: see [`super::shares`].
pub(super) fn assign(previous: &[Vec<u16>], zones: &Zones, quota: Vec<usize>, width: usize) -> Vec<Vec<u16>> {
    let mut table = Table::new(previous, zones, quota, width);
    table.keep(previous);
    table.give_up_surplus();
    table.place(Take::Back);
    let mut search = Search::new(&table);
    let mut exhausted = false;
    while table.lacking() > 0 {
        let (path, cost) = search.shortest(&table).expect("shares within the bounds can be realised");
        if cost > 0 && !exhausted {
            // From here on nothing comes back for free: any direct place is a shortest path.
            exhausted = true;
            table.place(Take::Any);
            continue;
        }
        table.augment(&path);
    }
    table.owners
}

/// What [`Table::place`] may use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    /// Only members that owned the partition before.
    Back,
    /// Any member.
    Any,
}

/// Owners so far: a flow, and what it is bounded by.
struct Table<'a> {
    zones: &'a Zones,
    width: usize,
    quota: Vec<usize>,
    load: Vec<usize>,
    owners: Vec<Vec<u16>>,
    /// The partitions of each member.
    held: Vec<Vec<u32>>,
    /// Who owned what before: a bit for each partition and member.
    had: Vec<u64>,
    /// Fewer zones than copies: each partition is in all of them, and some of its owners share one.
    covers: bool,
}

impl<'a> Table<'a> {
    fn new(previous: &[Vec<u16>], zones: &'a Zones, quota: Vec<usize>, width: usize) -> Self {
        let members = zones.of.len();
        let mut table = Self {
            zones,
            width,
            load: vec![0; members],
            quota,
            owners: vec![Vec::with_capacity(width); previous.len()],
            held: vec![Vec::new(); members],
            had: vec![0; (previous.len() * members).div_ceil(64)],
            covers: zones.count() < width,
        };
        for (partition, owners) in previous.iter().enumerate() {
            for owner in owners.iter().filter(|owner| usize::from(**owner) < members) {
                let bit = table.bit(partition, *owner);
                table.had[bit / 64] |= 1 << (bit % 64);
            }
        }
        table
    }

    fn bit(&self, partition: usize, member: u16) -> usize {
        partition * self.zones.of.len() + usize::from(member)
    }

    fn had(&self, partition: usize, member: u16) -> bool {
        let bit = self.bit(partition, member);
        self.had[bit / 64] >> (bit % 64) & 1 == 1
    }

    fn zone(&self, member: u16) -> usize {
        usize::from(self.zones.of[usize::from(member)].expect("owners are active members"))
    }

    fn lacks(&self, member: u16) -> bool {
        self.load[usize::from(member)] < self.quota[usize::from(member)]
    }

    /// How many owners of a partition stand in a zone.
    fn inside(&self, partition: usize, zone: usize) -> usize {
        self.owners[partition].iter().filter(|owner| self.zone(**owner) == zone).count()
    }

    /// How many owners a partition lacks that may stand in any zone that has room.
    fn open(&self, partition: usize) -> usize {
        let owners = &self.owners[partition];
        if !self.covers {
            return self.width - owners.len();
        }
        let mut zones: Vec<usize> = owners.iter().map(|owner| self.zone(*owner)).collect();
        zones.sort_unstable();
        zones.dedup();
        // One owner in each zone; any beyond that may be anywhere.
        (self.width - self.zones.count()) - (owners.len() - zones.len())
    }

    /// Whether a partition's next owner may stand in a zone, `open` being what [`Table::open`] says.
    fn has_room(&self, partition: usize, zone: usize, open: usize) -> bool {
        let empty = self.inside(partition, zone) == 0;
        if self.covers { empty || open > 0 } else { empty && open > 0 }
    }

    fn lacking(&self) -> usize {
        self.owners.iter().map(|owners| self.width - owners.len()).sum()
    }

    fn add(&mut self, partition: usize, member: u16) {
        self.owners[partition].push(member);
        self.held[usize::from(member)].push(partition as u32);
        self.load[usize::from(member)] += 1;
    }

    fn remove(&mut self, partition: usize, member: u16) {
        self.owners[partition].retain(|owner| *owner != member);
        self.held[usize::from(member)].retain(|held| *held != partition as u32);
        self.load[usize::from(member)] -= 1;
    }

    /// Leaves owners where they are, as far as zones permit.
    fn keep(&mut self, previous: &[Vec<u16>]) {
        for (partition, owners) in previous.iter().enumerate() {
            if owners.len() > self.width {
                // Too many to keep; who keeps what is decided by shares.
                continue;
            }
            for owner in owners {
                let known = usize::from(*owner) < self.zones.of.len();
                if !known || self.zones.of[usize::from(*owner)].is_none() {
                    continue;
                }
                let twice = self.owners[partition].contains(owner);
                if !twice && self.has_room(partition, self.zone(*owner), self.open(partition)) {
                    self.add(partition, *owner);
                }
            }
        }
    }

    /// Takes from each member what it has above its share.
    fn give_up_surplus(&mut self) {
        for member in 0..self.zones.of.len() as u16 {
            let surplus = self.load[usize::from(member)].saturating_sub(self.quota[usize::from(member)]);
            if surplus == 0 {
                continue;
            }
            // First those that nobody else gave up (a member that takes over can take a partition only
            // once), spread by a hash so that neighbours don't move together.
            let mut held = self.held[usize::from(member)].clone();
            held.sort_by_key(|partition| {
                let lacking = self.width - self.owners[*partition as usize].len();
                (lacking, spread(*partition as usize, member))
            });
            for partition in held.into_iter().take(surplus) {
                self.remove(partition as usize, member);
            }
        }
    }

    /// Gives what is missing to whoever lacks most of its share, where that works without exchanges.
    fn place(&mut self, take: Take) {
        let mut order: Vec<usize> =
            (0..self.owners.len()).filter(|p| self.owners[*p].len() < self.width).collect();
        order.sort_by_key(|partition| (self.owners[*partition].len(), spread(*partition, u16::MAX)));
        for partition in order {
            while self.owners[partition].len() < self.width {
                let open = self.open(partition);
                let rooms = (0..self.zones.count()).filter(|zone| self.has_room(partition, *zone, open));
                let best = rooms
                    .flat_map(|zone| &self.zones.members[zone])
                    .filter(|member| self.lacks(**member) && !self.owners[partition].contains(member))
                    .filter(|member| take == Take::Any || self.had(partition, **member))
                    .max_by_key(|member| {
                        let (load, quota) =
                            (self.load[usize::from(**member)], self.quota[usize::from(**member)]);
                        (((quota - load) << 16) / quota, spread(partition, **member))
                    });
                let Some(best) = best.copied() else { break };
                self.add(partition, best);
            }
        }
    }

    /// Applies a path of exchanges.
    fn augment(&mut self, path: &[Step]) {
        for step in path {
            if let Step::Leave(partition, member) = step {
                self.remove(*partition, *member);
            }
        }
        for step in path {
            if let Step::Take(partition, member) = step {
                self.add(*partition, *member);
            }
        }
    }
}

/// One edge of a path that changes owners.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize, u16),
    Leave(usize, u16),
}

const UNSEEN: i32 = i32::MAX;

/// Dijkstra's search in the residual network, on reduced costs. Nodes are numbered: partitions, then
/// partitions' zones, then members, then source and sink.
struct Search {
    zones: usize,
    partitions: usize,
    potential: Vec<i32>,
    distance: Vec<i32>,
    from: Vec<u32>,
    seen: Vec<u32>,
    /// Nodes to look at, by distance. Costs are -1, 0 or 1, so there are few distances.
    buckets: Vec<Vec<u32>>,
}

impl Search {
    fn new(table: &Table<'_>) -> Self {
        let (partitions, zones) = (table.owners.len(), table.zones.count());
        let nodes = partitions + partitions * zones + table.zones.of.len() + 2;
        Self {
            zones,
            partitions,
            potential: vec![0; nodes],
            distance: vec![UNSEEN; nodes],
            from: vec![0; nodes],
            seen: Vec::new(),
            buckets: Vec::new(),
        }
    }

    fn zone_node(&self, partition: usize, zone: usize) -> usize {
        self.partitions + partition * self.zones + zone
    }

    fn member_node(&self, member: u16) -> usize {
        self.partitions + self.partitions * self.zones + usize::from(member)
    }

    fn source(&self) -> usize {
        self.potential.len() - 2
    }

    fn sink(&self) -> usize {
        self.potential.len() - 1
    }

    /// The cheapest way to place one more owner, and what it costs.
    fn shortest(&mut self, table: &Table<'_>) -> Option<(Vec<Step>, i32)> {
        for node in self.seen.drain(..) {
            self.distance[node as usize] = UNSEEN;
        }
        self.buckets.iter_mut().for_each(Vec::clear);
        let (source, sink) = (self.source(), self.sink());
        self.distance[source] = 0;
        self.seen.push(source as u32);
        self.expand(table, source, 0);
        let mut at = 0;
        while at < self.buckets.len() && (at as i32) < self.distance[sink] {
            match self.buckets[at].pop() {
                None => at += 1,
                Some(node) if self.distance[node as usize] == at as i32 => {
                    self.expand(table, node as usize, at as i32);
                }
                Some(_outdated) => {}
            }
        }
        let reached = self.distance[sink];
        if reached == UNSEEN {
            return None;
        }
        let cost = reached + self.potential[sink] - self.potential[source];
        let path = self.path(source, sink);
        // Distances become the new potentials; those not reached are at least as far as the sink.
        for node in &self.seen {
            self.potential[*node as usize] += self.distance[*node as usize].min(reached) - reached;
        }
        Some((path, cost))
    }

    fn relax(&mut self, from: usize, to: usize, cost: i32, at: i32) {
        let reduced = cost + self.potential[from] - self.potential[to];
        debug_assert!(reduced >= 0, "potentials keep reduced costs from going below zero");
        let distance = at + reduced;
        if distance < self.distance[to] {
            if self.distance[to] == UNSEEN {
                self.seen.push(to as u32);
            }
            self.distance[to] = distance;
            self.from[to] = from as u32;
            if self.buckets.len() <= distance as usize {
                self.buckets.resize_with(distance as usize + 1, Vec::new);
            }
            self.buckets[distance as usize].push(to as u32);
        }
    }

    /// Looks at everything next to a node.
    fn expand(&mut self, table: &Table<'_>, node: usize, at: i32) {
        if node == self.source() {
            for partition in (0..self.partitions).filter(|p| table.owners[*p].len() < table.width) {
                if table.open(partition) > 0 {
                    self.relax(node, partition, 0, at);
                }
                for zone in (0..self.zones).filter(|_| table.covers) {
                    if table.inside(partition, zone) == 0 {
                        self.relax(node, self.zone_node(partition, zone), 0, at);
                    }
                }
            }
        } else if node < self.partitions {
            for zone in 0..self.zones {
                if table.covers || table.inside(node, zone) == 0 {
                    self.relax(node, self.zone_node(node, zone), 0, at);
                }
            }
        } else if node < self.partitions + self.partitions * self.zones {
            let place = node - self.partitions;
            let (partition, zone) = (place / self.zones, place % self.zones);
            for member in &table.zones.members[zone] {
                if !table.owners[partition].contains(member) {
                    let cost = i32::from(!table.had(partition, *member));
                    self.relax(node, self.member_node(*member), cost, at);
                }
            }
            // Back to the partition, to go to another zone instead.
            if table.inside(partition, zone) > usize::from(table.covers) {
                self.relax(node, partition, 0, at);
            }
        } else if node != self.sink() {
            let member = (node - self.member_node(0)) as u16;
            if table.lacks(member) {
                self.relax(node, self.sink(), 0, at);
            }
            for partition in &table.held[usize::from(member)] {
                let partition = *partition as usize;
                let cost = -i32::from(!table.had(partition, member));
                self.relax(node, self.zone_node(partition, table.zone(member)), cost, at);
            }
        }
    }

    /// The owners that change along the way found.
    fn path(&self, source: usize, sink: usize) -> Vec<Step> {
        let first_member = self.member_node(0);
        let partition_of = |zone_node: usize| (zone_node - self.partitions) / self.zones;
        let mut steps = Vec::new();
        let mut node = self.from[sink] as usize;
        while node != source {
            let before = self.from[node] as usize;
            if node >= first_member {
                steps.push(Step::Take(partition_of(before), (node - first_member) as u16));
            } else if before >= first_member && before != source {
                steps.push(Step::Leave(partition_of(node), (before - first_member) as u16));
            }
            node = before;
        }
        steps
    }
}

/// A fixed pseudo-random order of partitions for a member (SplitMix64's mixing).
fn spread(partition: usize, member: u16) -> u64 {
    let mut mixed = ((partition as u64) << 16 | u64::from(member)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
