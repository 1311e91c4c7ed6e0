//! The command as users run it: what it prints, how it exits, and what it makes of worlds that fail.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use pando_sim::{
    report::{FindingKind, Options, Summary},
    runner::Runner,
    worker::{Answer, MARK},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pando-sim");

fn sim(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(PROGRAM).args(args).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    (status.code().expect("it exits"), text(stdout), text(stderr))
}

fn rehearse(what: &str, limit: Duration) -> Summary {
    let rehearse = Some(what.to_owned());
    let runner = Runner { jobs: 2, limit, rehearse, ..Runner::new(PathBuf::from(PROGRAM)) };
    runner.run(0..12, None, |_| Ok(())).expect("workers run")
}

#[test]
fn good_seeds_exit_with_0_and_sum_up() {
    let (code, out, _) = sim(&["--seeds", "4", "--jobs", "2"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("4 seeds in ") && out.contains(", 0 failed") && out.contains("crash "), "{out}");
}

#[test]
fn a_finding_exits_with_1_and_says_how_to_repeat_it() {
    let hunt = ["--seeds", "50", "--jobs", "1", "--mutant", "accept-below", "--profile", "hot-key"];
    let (code, out, _) = sim(&hunt);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains(": violation") && out.contains("not linearizable"), "{out}");
    let (_, found) = out.split_once(": violation\n").expect("it is said what it is");
    let found = found.lines().next().expect("and what was wrong").trim();
    let (_, repeat) = out.split_once("  repeat: ").expect("a command to repeat it");
    let (_, args) = repeat.lines().next().expect("one line").split_once(" -- ").expect("arguments");
    let (code, again, _) = sim(&args.split(' ').collect::<Vec<_>>());
    assert_eq!(code, 1, "{again}");
    assert!(again.contains("violation: ") && again.contains("not linearizable"), "{again}");
    assert!(again.contains(found), "{found}\n{again}");
}

#[test]
fn a_world_does_not_depend_on_those_before_it() {
    // This one crashes machines, and has ended in three ways when tokio's task numbers went on from world to world.
    let seeds = ["166", "0", "166", "2", "166"];
    let worker = Command::new(PROGRAM).arg("--worker").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut worker = worker.expect("it runs");
    let mut input = worker.stdin.take().expect("it is piped");
    writeln!(input, "{}", seeds.join("\n")).expect("it reads");
    drop(input);
    let output = worker.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    let answers = text.lines().filter_map(|line| line.strip_prefix(MARK));
    let answers = answers.map(|answer| serde_json::from_str(answer).expect("an answer"));
    let traces: Vec<(u64, [u8; 32])> =
        answers.map(|Answer { seed, result }| (seed, result.expect("no panic").trace_hash)).collect();
    assert_eq!(traces.iter().map(|(seed, _)| seed.to_string()).collect::<Vec<_>>(), seeds);
    assert!(traces[0] == traces[2] && traces[2] == traces[4] && traces[0].1 != traces[1].1);
}

#[test]
fn mistakes_of_the_caller_exit_with_2() {
    for args in [&["--mutant", "nonsense"][..], &["--seeds", "x"], &["--seed", "1", "--seeds", "2"]] {
        let (code, _, error) = sim(args);
        assert!(code == 2 && !error.is_empty(), "{args:?}: {code} {error}");
    }
    let (code, _, error) = sim(&["--seeds", "1", "--resume", "/nowhere/file"]);
    assert!(code == 2 && error.contains("/nowhere/file"), "{error}");
}

#[test]
fn a_panic_is_a_finding_and_the_run_goes_on() {
    let summary = rehearse("panic@5", Duration::from_secs(60));
    assert_eq!((summary.seeds, summary.findings.len()), (12, 1));
    let finding = &summary.findings[0];
    assert_eq!((finding.seed, finding.kind), (5, FindingKind::Panic));
    assert!(finding.what.contains("a rehearsed panic") && finding.what.contains("worker.rs"));
}

#[test]
fn a_hang_is_a_finding_and_the_run_goes_on() {
    let summary = rehearse("hang@5", Duration::from_secs(5));
    assert_eq!((summary.seeds, summary.findings.len()), (12, 1));
    assert_eq!((summary.findings[0].seed, summary.findings[0].kind), (5, FindingKind::Hang));
}

#[test]
fn a_dead_process_is_a_finding_and_the_run_goes_on() {
    let summary = rehearse("die@5", Duration::from_secs(60));
    assert_eq!((summary.seeds, summary.findings.len()), (12, 1));
    let finding = &summary.findings[0];
    assert_eq!((finding.seed, finding.kind), (5, FindingKind::Died));
    assert!(finding.what.contains("signal"), "{}", finding.what);
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let error = Runner::new(PathBuf::from("/nowhere/sim")).run(0..3, None, |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("/nowhere/sim"), "{error}");
}

#[test]
fn the_same_seed_is_the_same_trace() {
    let (code, out, _) = sim(&["--seeds", "6", "--jobs", "2", "--twice"]);
    assert_eq!(code, 0, "{out}");
    let [one, two] = [(), ()].map(|()| sim(&["--seed", "9", "--trace"]).1);
    assert_eq!(one, two);
    assert_ne!(one, sim(&["--seed", "10", "--trace"]).1);
}

#[test]
fn a_run_resumes_where_it_was_and_failures_are_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("done");
    let path = file.to_str().expect("a path in UTF-8");
    let (code, _, _) = sim(&["--seeds", "10", "--resume", path, "--rehearse", "panic@3"]);
    assert_eq!((code, fs::read_to_string(&file).unwrap().lines().count()), (1, 9));
    let (code, out, _) = sim(&["--seeds", "15", "--resume", path, "--rehearse", "nothing@0"]);
    assert!(code == 0 && out.starts_with("6 seeds") && out.contains("9 skipped as done"), "{out}");
}

#[test]
fn json_is_a_line_for_each_finding_and_one_for_the_sums() {
    let (code, out, _) = sim(&["--seeds", "8", "--json", "--rehearse", "panic@3"]);
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((code, lines.len()), (1, 2), "{out}");
    assert_eq!((&lines[0]["seed"], &lines[0]["kind"]), (&3.into(), &"panic".into()));
    assert_eq!(lines[1]["seeds"], 8);
}

#[test]
fn seeds_end_at_the_first_finding_of_a_mutant() {
    let options = Options { trace: false, mutant: Some("accept-below".into()), profile: None };
    let runner = Runner { jobs: 1, options, stop_at_first: true, ..Runner::new(PathBuf::from(PROGRAM)) };
    let summary = runner.run(0..u64::MAX, None, |_| Ok(())).unwrap();
    assert!(summary.findings.len() <= 2 && summary.seeds < 100, "{summary}");
}
