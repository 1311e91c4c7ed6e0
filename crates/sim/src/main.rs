//! The command `pando-sim`: its flags, and what it prints. Exit code 0: nothing found; 1: something was
//! found; 2: it could not run.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use pando_sim::{
    mutants,
    report::{Finding, Options, Report, Summary, repeat_command},
    runner::{Progress, Runner, done_seeds},
    schedule::Profile,
    worker::{self, Rehearsal},
    world,
};

/// Runs simulated Pando networks, each drawn from a seed, and checks what their clients saw.
#[derive(Debug, Parser)]
#[command(name = "pando-sim")]
struct Args {
    /// How many seeds to run; with --minutes, as many as the time allows unless given.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Processes at once [default: as many as cores].
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Begin no more seeds after so many minutes.
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// Skip seeds that passed before according to this file, and add those that pass now.
    #[arg(long, value_name = "FILE", conflicts_with = "mutant")]
    resume: Option<PathBuf>,
    /// Run just this seed, in this process.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "minutes", "resume"])]
    seed: Option<u64>,
    /// Print every step of the world (with --seed).
    #[arg(long)]
    trace: bool,
    /// Make this mistake on purpose and stop when it is found; "all": hunt every one.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Only worlds of this profile, like membership or hot-key.
    #[arg(long, value_name = "NAME")]
    profile: Option<Profile>,
    /// List the mistakes that can be made on purpose.
    #[arg(long)]
    list_mutants: bool,
    /// Run each seed twice, in two processes, and compare the traces.
    #[arg(long)]
    twice: bool,
    /// The most seconds of real time that a seed may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    limit: u64,
    /// Print JSON: a line for each finding and one for the sums; with --seed, the report.
    #[arg(long)]
    json: bool,
    /// Answer seeds from the standard input.
    #[arg(long, hide = true)]
    worker: bool,
    /// Empty worlds, and a failure on purpose: nothing@SEED, panic@SEED, hang@SEED, die@SEED.
    #[arg(long, hide = true)]
    rehearse: Option<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse(), &mut io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // Whoever read the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(2),
        Err(error) => {
            _ = writeln!(io::stderr(), "pando-sim: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was found.
fn run(args: &Args, out: &mut impl Write) -> io::Result<bool> {
    if args.list_mutants {
        for mutant in mutants::MUTANTS {
            let (profile, within) = (mutant.profile.name(), mutant.within);
            writeln!(out, "{:<28} {within:>4} seeds of {profile:<11}  {}", mutant.name, mutant.what)?;
        }
        return Ok(true);
    }
    if args.mutant.as_deref() == Some("all") {
        return hunt_all(args, out);
    }
    if let Some(name) = &args.mutant
        && mutants::find(name).is_none()
    {
        return Err(io::Error::other(format!("no mutant {name:?}; --list-mutants names them")));
    }
    let options = Options { trace: args.trace, mutant: args.mutant.clone(), profile: args.profile };
    if args.worker {
        let rehearsal: Option<Rehearsal> =
            args.rehearse.as_deref().map(str::parse).transpose().map_err(io::Error::other)?;
        worker::serve(world::run, &options, rehearsal, io::stdin().lock(), out)?;
        return Ok(true);
    }
    match args.seed {
        Some(seed) => run_one(seed, &options, args.json, out),
        None => run_many(args, options, out),
    }
}

/// One seed, here, so that a debugger and `--trace` see all of it.
fn run_one(seed: u64, options: &Options, json: bool, out: &mut impl Write) -> io::Result<bool> {
    let report = worker::caught(|| world::run(seed, options));
    if json {
        let answer = worker::Answer { seed, result: report.clone() };
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        return Ok(report.is_ok_and(|report| report.violation.is_none()));
    }
    let Report { trace_hash, operations, virtual_ms, events, violation, lines } = match report {
        Ok(report) => report,
        Err(panic) => {
            writeln!(out, "seed {seed}: panic\n{panic}")?;
            return Ok(false);
        }
    };
    for line in lines {
        writeln!(out, "{line}")?;
    }
    let hash: String = trace_hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(out, "seed {seed}: {operations} operations in {virtual_ms} virtual ms, trace {hash}")?;
    let events: Vec<String> = events.iter().map(|(event, times)| format!("{event} {times}")).collect();
    writeln!(out, "events: {}", events.join(", "))?;
    match &violation {
        Some(violation) => writeln!(out, "violation: {violation}")?,
        None => writeln!(out, "nothing found")?,
    }
    Ok(violation.is_none())
}

fn runner(args: &Args) -> io::Result<Runner> {
    let runner = Runner::new(std::env::current_exe()?);
    let jobs = args.jobs.map_or(runner.jobs, |jobs| jobs as usize);
    let (limit, rehearse) = (Duration::from_secs(args.limit), args.rehearse.clone());
    Ok(Runner { jobs, limit, rehearse, twice: args.twice, ..runner })
}

fn run_many(args: &Args, options: Options, out: &mut impl Write) -> io::Result<bool> {
    let stop_at_first = options.mutant.is_some();
    let runner = Runner { options, stop_at_first, ..runner(args)? };
    let count = args.seeds.unwrap_or(if args.minutes.is_some() { u64::MAX } else { 300 });
    let until = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let seeds = args.from..args.from.saturating_add(count);
    let (done, mut file) = match &args.resume {
        Some(path) => resume(path)?,
        None => (BTreeSet::new(), None),
    };
    let skipped = done.range(seeds.clone()).count() as u64;
    let total = (count != u64::MAX).then(|| count - skipped);
    let options = runner.options.clone();
    let show = io::stderr().is_terminal() && !args.json;
    let left = seeds.filter(|seed| !done.contains(seed));
    let mut summary = runner.run(left, until, |progress| match progress {
        Progress::Passed(seed) => match &mut file {
            Some(file) => writeln!(file, "{seed}"),
            None => Ok(()),
        },
        Progress::Found(finding) => {
            if show {
                write!(io::stderr(), "\r\x1b[K")?;
            }
            print_finding(finding, &options, args.json, out)
        }
        Progress::Tick(summary) if show => tick(summary, total),
        Progress::Tick(_) => Ok(()),
    })?;
    if show {
        write!(io::stderr(), "\r\x1b[K")?;
    }
    summary.skipped = skipped;
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string(&summary)?)?,
        false => writeln!(out, "{summary}")?,
    }
    Ok(summary.findings.is_empty())
}

fn tick(summary: &Summary, total: Option<u64>) -> io::Result<()> {
    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
    let (seeds, failed, rate) = (summary.seeds, summary.findings.len(), summary.rate());
    write!(io::stderr(), "\r\x1b[K{seeds}{of} seeds, {failed} failed, {rate:.1}/s")
}

fn print_finding(finding: &Finding, options: &Options, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(finding)?);
    }
    writeln!(out, "seed {}: {}", finding.seed, finding.kind)?;
    for line in finding.what.lines().chain(finding.lines.iter().map(String::as_str)) {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "  repeat: {}\n", repeat_command(finding.seed, options))
}

/// The seeds in the file, and the file to add to.
fn resume(path: &Path) -> io::Result<(BTreeSet<u64>, Option<File>)> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(named(error)),
    };
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(named)?;
    // What was torn is ended, as the digits of no seed: "12" of "123" must not become a seed done.
    if !text.is_empty() && !text.ends_with('\n') {
        writeln!(file, " torn")?;
    }
    Ok((done_seeds(&text), Some(file)))
}

/// Every mutant, one after the other.
fn hunt_all(args: &Args, out: &mut impl Write) -> io::Result<bool> {
    let runner = runner(args)?;
    let mut survived = 0;
    for mutant in mutants::MUTANTS {
        let hunt = mutants::hunt(&runner.program, mutant, runner.jobs)?;
        let (seeds, seconds) = (hunt.summary.seeds, hunt.summary.elapsed.as_secs_f64());
        let what = match &hunt.finding {
            Some(finding) => format!("found by seed {} ({})", finding.seed, finding.kind),
            None => format!("SURVIVED: {}", mutant.what),
        };
        survived += u32::from(hunt.finding.is_none());
        writeln!(out, "{:<28} {seeds:>4} seeds {seconds:>6.1}s  {what}", mutant.name)?;
    }
    writeln!(out, "{} mutants, {survived} survived", mutants::MUTANTS.len())?;
    Ok(survived == 0)
}
