//! Fair shares: how many slots each member should own.
//!
//! A member can own one slot of each partition at most. With at least as many zones as copies, a zone can
//! too; with fewer, it owns at least one of each. Within these bounds shares are proportional to capacity
//! (weighted max-min fairness: one water level for all, another one for a zone that is at a bound).
//!
//! Shares within the bounds can always be realised exactly, together with promise 1 of [`super`]: giving each
//! member the same fraction of every partition does it, and a flow network with whole capacities that has a
//! fractional solution has a whole one.

use super::{Member, Zones};

/// What rounding in the sixteenth digit may be off, in slots; summed over 65,536 members still below one.
const NOISE: f64 = 1e-9;
/// Halvings of an interval: enough for capacities of 1 and 2^64 side by side, at full precision.
const HALVINGS: usize = 200;

/// Slots for each member, by its number; in total `width` for each partition. Which shares are rounded up is
/// decided so that as little as possible moves.
pub(super) fn quotas(previous: &[Vec<u16>], members: &[Member], zones: &Zones, width: usize) -> Vec<usize> {
    let mut held = vec![0; members.len()];
    for owner in previous.iter().flatten().filter(|owner| usize::from(**owner) < members.len()) {
        held[usize::from(*owner)] += 1;
    }
    let weight = |member: &u16| members[usize::from(*member)].capacity.max(1) as f64;
    let weights: Vec<Vec<f64>> = zones.members.iter().map(|zone| zone.iter().map(weight).collect()).collect();
    let totals = zone_totals(&weights, previous.len(), width);
    let mut quota = vec![0; members.len()];
    let mut rests: Vec<(bool, f64, usize)> = Vec::new();
    let mut order: Vec<Vec<u16>> = Vec::new();
    let mut left = previous.len() * width;
    for (zone, inside) in zones.members.iter().enumerate() {
        let level = level(previous.len(), &weights[zone], totals[zone]);
        let share = |place: usize| fill(&weights[zone][place..=place], previous.len(), level);
        let whole = |share: f64| (share + NOISE).floor() as usize;
        let floors: usize = (0..inside.len()).map(|place| whole(share(place))).sum();
        let mut rounded: Vec<usize> = (0..inside.len()).collect();
        let gains = |place: usize| held[usize::from(inside[place])] > whole(share(place));
        rounded.sort_by(|a, b| {
            let rest = |place: usize| share(place) - whole(share(place)) as f64;
            gains(*b).cmp(&gains(*a)).then(rest(*b).total_cmp(&rest(*a))).then(a.cmp(b))
        });
        rounded.retain(|place| whole(share(*place)) < previous.len());
        let zone_floor = whole(totals[zone]).max(floors);
        for (place, member) in inside.iter().enumerate() {
            quota[usize::from(*member)] = whole(share(place));
        }
        let mut rounded = rounded.into_iter().map(|place| inside[place]);
        for member in rounded.by_ref().take(zone_floor - floors) {
            quota[usize::from(member)] += 1;
        }
        order.push(rounded.collect());
        left -= zone_floor;
        let zone_held: usize = inside.iter().map(|member| held[usize::from(*member)]).sum();
        rests.push((zone_held > zone_floor, totals[zone] - zone_floor as f64, zone));
    }
    // Totals of zones are rounded like shares are: a zone at a bound has no rest.
    rests.retain(|(_, rest, _)| *rest > NOISE);
    rests.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
    for (_, _, zone) in rests.into_iter().take(left) {
        let member = order[zone].first().expect("a zone with a rest has a member with a rest");
        quota[usize::from(*member)] += 1;
    }
    quota
}

/// Slots for each zone, not rounded.
fn zone_totals(weights: &[Vec<f64>], partitions: usize, width: usize) -> Vec<f64> {
    let (least, most) = match weights.len() < width {
        true => (partitions, partitions * (width - weights.len() + 1)),
        false => (0, partitions),
    };
    let total = |zone: &Vec<f64>, level: f64| {
        let most = most.min(zone.len() * partitions) as f64;
        fill(zone, partitions, level).clamp(least as f64, most)
    };
    let lightest = weights.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let wanted = (partitions * width) as f64;
    let level = halve(partitions as f64 / lightest, |level| {
        weights.iter().map(|zone| total(zone, level)).sum::<f64>() >= wanted
    });
    weights.iter().map(|zone| total(zone, level)).collect()
}

/// The slots of members with these weights at a water level.
fn fill(weights: &[f64], partitions: usize, level: f64) -> f64 {
    weights.iter().map(|weight| (weight * level).min(partitions as f64)).sum()
}

/// The level at which members with these weights have so many slots.
fn level(partitions: usize, weights: &[f64], slots: f64) -> f64 {
    let lightest = weights.iter().copied().fold(f64::INFINITY, f64::min);
    halve(partitions as f64 / lightest, |level| fill(weights, partitions, level) >= slots)
}

/// The lowest level up to `most` that is enough.
fn halve(most: f64, enough: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, most);
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if enough(middle) { high = middle } else { low = middle }
    }
    high
}
