//! What all parts of a run share: where, how much, and the report.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    cluster::{Cluster, Shape},
    content::Noise,
    report::Report,
};

/// How much of everything is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amounts {
    /// Bytes of the large object.
    pub(crate) large: u64,
    /// How often a large transfer is repeated; the best counts.
    pub(crate) rounds: u64,
    /// How long small operations of one kind go on.
    pub(crate) window: Duration,
    /// Samples of what is measured one by one.
    pub(crate) samples: usize,
    /// Keys of the long list; the short one has a tenth.
    pub(crate) keys: u64,
    /// Sizes of networks.
    pub(crate) networks: &'static [usize],
    /// How long nobody does anything.
    pub(crate) idle: Duration,
}

/// See the module's text.
pub(crate) struct Bench {
    pub(crate) pando: PathBuf,
    pub(crate) memory: PathBuf,
    pub(crate) disk: PathBuf,
    pub(crate) amounts: Amounts,
    pub(crate) noise: Noise,
    pub(crate) report: Report,
}

impl Amounts {
    pub(crate) fn whole() -> Self {
        Self {
            large: 1 << 30,
            rounds: 2,
            window: Duration::from_millis(1200),
            samples: 30,
            keys: 100_000,
            networks: &[3, 5, 9],
            idle: Duration::from_secs(15),
        }
    }

    /// Only to see that it works.
    pub(crate) fn quick() -> Self {
        Self {
            large: 16 << 20,
            rounds: 1,
            window: Duration::from_millis(100),
            samples: 3,
            keys: 2000,
            networks: &[3],
            idle: Duration::from_secs(1),
        }
    }

    /// A smaller object, where several are moved at once or many times.
    pub(crate) fn medium(&self) -> u64 {
        (self.large / 4).max(1 << 20)
    }
}

impl Bench {
    /// Nodes whose data are in memory.
    pub(crate) async fn in_memory(&self, shape: Shape) -> anyhow::Result<Cluster> {
        self.cluster(&self.memory, shape).await
    }

    /// Nodes whose data are on disk.
    pub(crate) async fn on_disk(&self, shape: Shape) -> anyhow::Result<Cluster> {
        self.cluster(&self.disk, shape).await
    }

    async fn cluster(&self, place: &Path, shape: Shape) -> anyhow::Result<Cluster> {
        Cluster::start(&self.pando, place, shape).await
    }
}

/// A size as people write it.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}
