//! Explores a configuration in the world that it is for: that of one layout, or that in which layouts change.

use std::collections::BTreeMap;

use crate::{
    explore::{Bounds, Report, explore, walk},
    reconfig,
    rules::Config,
    world,
};

/// What happened how often, over all moves.
pub(crate) type Events = BTreeMap<&'static str, u64>;

/// All that may happen, or `walks` from a seed.
pub(crate) fn run(config: Config, bounds: Bounds, walks: Option<(u64, u64)>) -> (Report, Events) {
    if config.layouts.last() == 1 && !config.purges {
        let mut model = world::Model::new(config);
        let report = match walks {
            None => explore(&mut model, bounds),
            Some((count, seed)) => walk(&mut model, bounds, count, seed),
        };
        return (report, model.events);
    }
    let mut model = reconfig::Model::new(config);
    let report = match walks {
        None => explore(&mut model, bounds),
        Some((count, seed)) => walk(&mut model, bounds, count, seed),
    };
    (report, model.events)
}
