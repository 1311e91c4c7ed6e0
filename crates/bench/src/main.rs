//! Measures what Pando reaches on this machine, and in the same run what the machine allows, so that every result is
//! a ratio. See docs/performance.md; `cargo run --release -p pando-bench -- --help`.
//!
//! The nodes are real processes: this program, which becomes `pando` when it is called so. So what is measured is always
//! what was built with it.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{Args, Part},
    bench::{Amounts, Bench},
    ceilings::{Amount, Ceilings},
    content::Noise,
    floor::Floors,
    goals::{Figures, goals},
    machine::{Machine, check_room},
    report::{Report, Shown},
};

mod args;
mod bare;
mod bench;
mod ceilings;
mod cluster;
mod content;
mod floor;
mod goals;
mod helper;
mod idle;
mod large;
mod list;
mod load;
mod machine;
mod many;
mod process;
mod report;
mod s3;
mod sigv4;
mod small;
mod stats;
mod svg;

/// Copies of the large object that are in a folder at the most, of all contents together: three of each of three.
const COPIES: u64 = 9;

fn main() -> ExitCode {
    let called = std::env::args_os().next().map(PathBuf::from);
    let called = called.as_deref().and_then(Path::file_name).unwrap_or_default();
    let becomes: Option<fn() -> ExitCode> = match called.to_str() {
        Some(cluster::PANDO) => Some(pando_cli::main),
        Some(bare::BARE) => Some(bare::main),
        Some(ceilings::ECHO) => Some(ceilings::echo),
        _ => None,
    };
    if let Some(becomes) = becomes {
        helper::end_with_parent();
        return becomes();
    }
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "pando-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Whoever is dropped here takes its nodes and folders along.
        tokio::select! {
            done = measure(&args) => done,
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        }
    });
    runtime.shutdown_background();
    done
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut bench = prepare(args).await?;
    bench.report.show_ceilings()?;
    if args.wants(Part::Idle) {
        idle::run(&mut bench).await.context("idle")?;
    }
    if args.wants(Part::Large) {
        large::in_memory(&mut bench).await.context("large")?;
    }
    if args.wants(Part::Many) {
        many::run(&mut bench).await.context("many")?;
    }
    if args.wants(Part::Disk) {
        large::on_disk(&mut bench).await.context("disk")?;
    }
    if args.wants(Part::Small) {
        small::run(&mut bench).await.context("small")?;
    }
    if args.wants(Part::List) {
        list::run(&mut bench).await.context("list")?;
    }
    let report = &mut bench.report;
    report.seconds = began.elapsed().as_secs_f64();
    report.goals = goals(&report.figures, &report.floors, report.round_trip);
    report.show_goals()?;
    report.check(args.only.is_empty())?;
    write(args, report)
}

/// Finds out where everything is, and what the machine allows.
async fn prepare(args: &Args) -> anyhow::Result<Bench> {
    let own = std::env::current_exe().context("can't find this program")?;
    let mut amounts = if args.quick { Amounts::quick() } else { Amounts::whole() };
    amounts.large = args.size.map_or(amounts.large, |mib| mib << 20);
    amounts.keys = args.keys.unwrap_or(amounts.keys);
    let disk = match &args.dir {
        Some(dir) => dir.clone(),
        None => own.parent().context("this program is nowhere")?.to_owned(),
    };
    check_room(&args.memory, COPIES * amounts.large, true)?;
    check_room(&disk, COPIES * amounts.large, false)?;
    let machine = Machine::here();
    if !machine.optimised && !args.quick {
        let _ = writeln!(io::stderr(), "pando-bench: built without --release: the numbers mean nothing");
    }
    let noise = Noise::new();
    // Enough for a round of some hundred milliseconds.
    let amount = Amount { bytes: amounts.large.min(1 << 29), file: amounts.large };
    let folder = tempfile::Builder::new().prefix("pando-bench-").tempdir_in(&args.memory);
    let folder = folder.with_context(|| format!("can't make a folder in {}", args.memory.display()))?;
    let measuring = {
        let (noise, folder) = (noise.clone(), folder.path().to_owned());
        tokio::task::spawn_blocking(move || Ceilings::measure(&noise, &folder, amount))
    };
    let ceilings = measuring.await.context("measuring died")?.context("the machine's ceilings")?;
    let round_trip = ceilings::round_trip(amounts.samples * 100).await.context("the RPC lane")?;
    let floors = Floors::of(&ceilings);
    let report = Report {
        machine,
        command: command(),
        seconds: 0.0,
        ceilings,
        round_trip,
        floors,
        disk_write: None,
        disk_sync: None,
        lines: Vec::new(),
        goals: Vec::new(),
        figures: Figures::default(),
        shown: if args.json.as_deref() == Some(Path::new("-")) { Shown::Stderr } else { Shown::Stdout },
    };
    let pando = args.pando.clone().unwrap_or(own);
    Ok(Bench { pando, memory: args.memory.clone(), disk, amounts, noise, report })
}

/// What was typed, as anyone can repeat it.
fn command() -> String {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let mut command = "cargo run --release -p pando-bench".to_owned();
    if !arguments.is_empty() {
        command += &format!(" -- {}", arguments.join(" "));
    }
    command
}

fn write(args: &Args, report: &Report) -> anyhow::Result<()> {
    if let Some(path) = &args.json {
        let mut text = serde_json::to_string_pretty(report).context("the report as JSON")?;
        text.push('\n');
        if path == Path::new("-") {
            io::stdout().lock().write_all(text.as_bytes())?;
        } else {
            std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
        }
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::draw(report)).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}
