//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// The whole run's parts. The ceilings are always measured: ratios need them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A large object in memory-backed folders: put, get, ranges, first byte
    Large,
    /// A large object on disk
    Disk,
    /// Small objects on disk: put, get, conditional put, delete, by the native path and by S3
    Small,
    /// Listing many keys
    List,
    /// Many readers of one object; networks of several sizes
    Many,
    /// Starting a node, and a node that does nothing
    Idle,
}

/// Measures what Pando reaches on this machine, and what the machine itself allows, in one run.
#[derive(Debug, Parser)]
#[command(name = "pando-bench", version, max_term_width = 100)]
pub(crate) struct Args {
    /// Parts to run, with commas between [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    pub(crate) only: Vec<Part>,
    /// Everything, but so little of it that only whether it works is of interest, never a time
    #[arg(long)]
    pub(crate) quick: bool,
    /// Size of the large object, in MiB [default: 1024; 16 with --quick]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) size: Option<u64>,
    /// Keys in the longest listing [default: 100000; 2000 with --quick]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(10..=10_000_000))]
    pub(crate) keys: Option<u64>,
    /// A folder on the disk to measure [default: where this program is]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// A memory-backed folder
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub(crate) memory: PathBuf,
    /// The pando executable to measure [default: the one that is part of this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) pando: Option<PathBuf>,
    /// Write everything as JSON to a file, or to stdout with -
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the goals as a chart
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

impl Args {
    /// Whether a part is to run.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}
