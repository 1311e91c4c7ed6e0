//! Seeds that once found something find nothing any more.

use std::path::PathBuf;

use pando_sim::{regressions::REGRESSIONS, runner::Runner};

#[test]
fn old_findings_stay_fixed() {
    let runner = Runner::new(PathBuf::from(env!("CARGO_BIN_EXE_pando-sim")));
    let seeds = REGRESSIONS.iter().map(|&(_, seed)| seed);
    let summary = runner.run(seeds, None, |_| Ok(())).unwrap();
    assert_eq!(summary.seeds, REGRESSIONS.len() as u64);
    if let Some(finding) = summary.findings.first() {
        let named = REGRESSIONS.iter().filter(|&&(_, seed)| seed == finding.seed);
        let names: Vec<&str> = named.map(|&(name, _)| name).collect();
        panic!("{} is back: seed {}: {}: {}", names.join(", "), finding.seed, finding.kind, finding.what);
    }
}
