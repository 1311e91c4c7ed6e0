//! Runs many seeds in worker processes, several at once, and collects what they answer.
//!
//! A process for each job, so that a world that panics, hangs or takes its process with it is a finding with
//! its seed, and the run goes on. What the worlds are is not known here: only the worker's command is.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    report::{Finding, FindingKind, Options, Report, Summary},
    worker::{Answer, MARK},
};

/// How much of what a worker wrote to its standard error is kept, for when it dies.
const KEPT_ERROR: usize = 8 << 10;

/// How many lines of a trace a finding shows; the whole trace is one command away.
const SHOWN_LINES: usize = 30;

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The program that has the `--worker` flag; mostly this one.
    pub program: PathBuf,
    /// How to run the worlds.
    pub options: Options,
    /// Processes at once.
    pub jobs: usize,
    /// The most real time that a seed may take.
    pub limit: Duration,
    /// Run each seed in two processes, and compare the traces.
    pub twice: bool,
    /// Stop at the first finding.
    pub stop_at_first: bool,
    /// A failure to rehearse, as the worker takes it.
    pub rehearse: Option<String>,
}

/// What is told while it runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A seed ended well.
    Passed(u64),
    /// A seed ended badly.
    Found(&'a Finding),
    /// A while has passed.
    Tick(&'a Summary),
}

/// How often [`Progress::Tick`] comes.
const TICK: Duration = Duration::from_secs(2);

type Ended = (u64, Result<Report, Finding>);

impl Runner {
    /// A runner with this program and as many jobs as there are cores.
    pub fn new(program: PathBuf) -> Self {
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let limit = Duration::from_secs(120);
        let options = Options::default();
        Self { program, options, jobs, limit, twice: false, stop_at_first: false, rehearse: None }
    }

    /// Runs these seeds until they or the time are used up. An error means that workers can't be run at all, or
    /// that `progress` failed.
    pub fn run(
        &self,
        seeds: impl Iterator<Item = u64> + Send,
        until: Option<Instant>,
        mut progress: impl FnMut(Progress<'_>) -> io::Result<()>,
    ) -> io::Result<Summary> {
        let began = Instant::now();
        let mut summary = Summary::default();
        let (seeds, stop) = (Mutex::new(seeds), AtomicBool::new(false));
        let next = || {
            let late = until.is_some_and(|until| Instant::now() >= until);
            if late || stop.load(Ordering::Relaxed) {
                return None;
            }
            seeds.lock().unwrap_or_else(PoisonError::into_inner).next()
        };
        let outcome = thread::scope(|scope| {
            let (sender, ended) = mpsc::sync_channel::<io::Result<Ended>>(self.jobs);
            for _ in 0..self.jobs {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || self.job(next, &sender));
            }
            drop(sender);
            let outcome = self.collect(&ended, &stop, began, &mut summary, &mut progress);
            stop.store(true, Ordering::Relaxed);
            // Jobs that still wait to tell something find nobody there and end.
            drop(ended);
            outcome
        });
        summary.elapsed = began.elapsed();
        summary.findings.sort_by_key(|finding| finding.seed);
        outcome.map(|()| summary)
    }

    fn collect(
        &self,
        ended: &Receiver<io::Result<Ended>>,
        stop: &AtomicBool,
        began: Instant,
        summary: &mut Summary,
        progress: &mut impl FnMut(Progress<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut ticked = began;
        loop {
            if ticked.elapsed() >= TICK {
                (ticked, summary.elapsed) = (Instant::now(), began.elapsed());
                progress(Progress::Tick(summary))?;
            }
            let (seed, result) = match ended.recv_timeout(TICK) {
                Ok(result) => result?,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let finding = match result {
                Ok(report) => {
                    summary.add(&report);
                    let Some(what) = report.violation else {
                        progress(Progress::Passed(seed))?;
                        continue;
                    };
                    let skipped = report.lines.len().saturating_sub(SHOWN_LINES);
                    let lines = report.lines.into_iter().skip(skipped).collect();
                    Finding { seed, kind: FindingKind::Violation, what, lines }
                }
                Err(finding) => {
                    summary.seeds += 1;
                    finding
                }
            };
            progress(Progress::Found(&finding))?;
            summary.findings.push(finding);
            if self.stop_at_first {
                stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// One job: a worker process, and another whenever it is lost.
    fn job(&self, next: &impl Fn() -> Option<u64>, ended: &mpsc::SyncSender<io::Result<Ended>>) {
        let mut workers = [None, None];
        let [first, second] = &mut workers;
        while let Some(seed) = next() {
            let mut result = self.one(first, seed);
            if self.twice
                && let Ok(Ok(report)) = &result
            {
                result = self.one(second, seed).map(|again| compare(seed, report, again));
            }
            let failed = result.is_err();
            if ended.send(result.map(|result| (seed, result))).is_err() || failed {
                break;
            }
        }
    }

    /// Runs one seed in the worker in `slot`, which is filled if it is empty and emptied if it is lost.
    fn one(&self, slot: &mut Option<Worker>, seed: u64) -> io::Result<Result<Report, Finding>> {
        let mut worker = match slot.take() {
            Some(worker) => worker,
            None => Worker::start(self)?,
        };
        let found = |kind, what| Ok(Err(Finding { seed, kind, what, lines: Vec::new() }));
        match worker.ask(seed, self.limit) {
            Asked::Answered(Ok(report)) => {
                *slot = Some(worker);
                Ok(Ok(report))
            }
            Asked::Answered(Err(panic)) => found(FindingKind::Panic, panic),
            Asked::Late => {
                let limit = self.limit.as_secs_f64();
                let what = format!("no end after {limit:.0}s of real time\n{}", worker.last_words());
                found(FindingKind::Hang, what.trim_end().to_owned())
            }
            Asked::Gone => found(FindingKind::Died, worker.last_words()),
        }
    }
}

/// The second run of a seed must have gone the way of the first.
fn compare(seed: u64, first: &Report, again: Result<Report, Finding>) -> Result<Report, Finding> {
    let again = again?;
    if again.trace_hash == first.trace_hash {
        return Ok(again);
    }
    let (kind, lines) = (FindingKind::NotDeterministic, Vec::new());
    let what = "two runs of this seed, in two processes, have different traces".to_owned();
    Err(Finding { seed, kind, what, lines })
}

enum Asked {
    Answered(Result<Report, String>),
    Late,
    Gone,
}

/// A worker process.
struct Worker {
    child: Child,
    seeds: ChildStdin,
    answers: Receiver<Answer>,
    errors: Option<JoinHandle<()>>,
    error: Arc<Mutex<Vec<u8>>>,
}

impl Worker {
    fn start(runner: &Runner) -> io::Result<Self> {
        let mut command = Command::new(&runner.program);
        command.arg("--worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args(runner.options.arguments());
        if let Some(rehearse) = &runner.rehearse {
            command.args(["--rehearse", rehearse]);
        }
        if runner.options.trace {
            command.arg("--trace");
        }
        let mut child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("can't start {}: {error}", runner.program.display()))
        })?;
        let (Some(seeds), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three were asked to be pipes")
        };
        // One seed is asked at a time, so one answer at most waits here.
        let (sender, answers) = mpsc::sync_channel(1);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let answer = line.strip_prefix(MARK).and_then(|line| serde_json::from_str(line).ok());
                if answer.is_some_and(|answer| sender.send(answer).is_err()) {
                    break;
                }
            }
        });
        let error = Arc::default();
        let kept = Arc::clone(&error);
        let errors = Some(thread::spawn(move || keep_end(stderr, &kept)));
        Ok(Self { child, seeds, answers, errors, error })
    }

    fn ask(&mut self, seed: u64, limit: Duration) -> Asked {
        if writeln!(self.seeds, "{seed}").and_then(|()| self.seeds.flush()).is_err() {
            return Asked::Gone;
        }
        match self.answers.recv_timeout(limit) {
            Ok(answer) if answer.seed == seed => Asked::Answered(answer.result),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => Asked::Gone,
            Err(RecvTimeoutError::Timeout) => Asked::Late,
        }
    }

    /// Ends it, and gives how it ended and the end of what it wrote to its standard error.
    fn last_words(&mut self) -> String {
        let status = match self.child.try_wait() {
            Ok(Some(status)) => status.to_string(),
            // Its answers ended, so it is about to end, unless it hangs.
            _ => {
                thread::sleep(Duration::from_millis(100));
                let ended = self.child.try_wait().ok().flatten();
                ended.map_or_else(|| "killed by the runner".into(), |status| status.to_string())
            }
        };
        self.end();
        let kept = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{status}\n{}", String::from_utf8_lossy(&kept)).trim_end().to_owned()
    }

    fn end(&mut self) {
        // Both fail only if it ended by itself meanwhile.
        _ = self.child.kill();
        _ = self.child.wait();
        if let Some(errors) = self.errors.take() {
            _ = errors.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

fn keep_end(mut from: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..read]);
        let excess = kept.len().saturating_sub(KEPT_ERROR);
        kept.drain(..excess);
    }
}

/// The seeds in a file of seeds done, one a line. A last line without its end was torn, and is not believed.
pub fn done_seeds(text: &str) -> BTreeSet<u64> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_not_believed() {
        assert_eq!(done_seeds("1\n2\n3"), BTreeSet::from([1, 2]));
        assert_eq!(done_seeds("12"), BTreeSet::new());
        assert_eq!(done_seeds("junk\n7\n"), BTreeSet::from([7]));
    }

    #[test]
    fn different_traces_are_found() {
        let report = |byte| Report { trace_hash: [byte; 32], ..Report::default() };
        assert!(compare(1, &report(1), Ok(report(1))).is_ok());
        let finding = compare(1, &report(1), Ok(report(2))).unwrap_err();
        assert_eq!(finding.kind, FindingKind::NotDeterministic);
    }
}
