//! `pando check`: whether every copy of every object is where it should be.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{progress, progress::Progress, table::table};
use crate::{
    args,
    control::{
        Client,
        report::{Check, CheckProgress, Problem},
    },
    exit::{Failure, Kind},
    output::Output,
    units,
};

pub(crate) async fn run(check: args::Check, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let what = || "can't check".to_owned();
    // How many there are is only for the display.
    let total = match progress::is_watched() {
        true => client.status().await.with_context(what)?.objects.map(|(count, _)| count),
        false => None,
    };
    let bar = Progress::show("checking", total);
    let checked = client.check(check.deep, |progress| bar.set(progress.objects, words(progress))).await;
    drop(bar);
    let (report, problems) = checked.with_context(what)?;
    if out.json {
        out.value(&report_json(&report, &problems))?;
    } else {
        lines(&report, &problems, check.deep).iter().try_for_each(|line| out.line(line))?;
    }
    // Before the summary, which goes to stderr.
    out.flush()?;
    match report.clean {
        true => Ok(()),
        false => Err(Failure::new(Kind::NotClean, summary(&report)).into()),
    }
}

fn words(progress: CheckProgress) -> String {
    let mut words = format!("{}, {}", units::count(progress.objects, "object"), copies(progress.copies));
    if progress.problems > 0 {
        words += &format!(", {}", units::count(progress.problems, "problem"));
    }
    words
}

fn copies(number: u64) -> String {
    units::count_irregular(number, "copy", "copies")
}

/// The problems, or that there are none.
fn lines(report: &Check, problems: &[Problem], deep: bool) -> Vec<String> {
    if report.clean {
        let what = if deep { "in place and verified" } else { "in place" };
        let (objects, chunks) =
            (units::count(report.objects, "object"), units::count(report.chunks, "chunk"));
        return vec![format!("every copy is {what}: {objects}, {chunks}, {}", units::size(report.bytes))];
    }
    if problems.is_empty() {
        return Vec::new();
    }
    let header = ["NODE", "CHUNK", "PROBLEM", "OBJECT"].map(str::to_owned).to_vec();
    let row = |problem: &Problem| {
        // As many digits as where chunks are named elsewhere.
        let chunk = problem.chunk.as_deref().map_or("(record)", |chunk| chunk.get(..10).unwrap_or(chunk));
        vec![problem.node.short.clone(), chunk.to_owned(), problem.what.clone(), problem.object.clone()]
    };
    let rows: Vec<_> = std::iter::once(header).chain(problems.iter().map(row)).collect();
    let mut lines = table(&rows);
    let more = report.problem_count.saturating_sub(problems.len() as u64);
    if more > 0 {
        lines.push(format!("and {} more", units::count(more, "problem")));
    }
    lines
}

/// What it means, and what to do.
fn summary(report: &Check) -> String {
    let mut parts = Vec::new();
    if report.problem_count > 0 {
        let (bad, objects) = (copies(report.problem_count), units::count(report.objects, "object"));
        let be = if report.problem_count == 1 { "is" } else { "are" };
        parts.push(format!(
            "{bad} (of {objects}) {be} missing, outdated or damaged; the nodes mend what has a good copy by \
             themselves, `pando status` shows how far they are"
        ));
    }
    if !report.unreachable.is_empty() {
        let nodes: Vec<&str> = report.unreachable.iter().map(|node| node.short.as_str()).collect();
        let (them, hold) = if nodes.len() == 1 { ("it", "it holds") } else { ("them", "they hold") };
        parts.push(format!(
            "no answer from {}: what {hold} is not known; start {them} and check again",
            nodes.join(", ")
        ));
    }
    if report.in_transition {
        parts
            .push("a layout change is under way: check again when `pando status` says it is done".to_owned());
    }
    format!("not in order: {}", parts.join("; "))
}

fn report_json(report: &Check, problems: &[Problem]) -> Value {
    let problem = |problem: &Problem| {
        json!({
            "object": problem.object,
            "chunk": problem.chunk,
            "node": problem.node.id,
            "what": problem.what,
        })
    };
    json!({
        "objects": report.objects,
        "chunks": report.chunks,
        "bytes": report.bytes,
        "clean": report.clean,
        "problem_count": report.problem_count,
        "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        "unreachable": report.unreachable.iter().map(|node| &node.id).collect::<Vec<_>>(),
        "in_transition": report.in_transition,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::Member;

    fn member(short: &str) -> Member {
        Member { id: format!("{short}00"), short: short.into() }
    }

    #[test]
    fn what_is_clean_takes_one_line() {
        let report = Check { objects: 1234, chunks: 1, bytes: 3 << 30, clean: true, ..Check::default() };
        assert_eq!(lines(&report, &[], false), ["every copy is in place: 1,234 objects, 1 chunk, 3.0 GiB"]);
        assert!(lines(&report, &[], true)[0].contains("verified"));
    }

    #[test]
    fn problems_are_named_and_summed_up() {
        let problem = |chunk: Option<&str>, what: &str| Problem {
            object: "photos/a b.jpg".into(),
            chunk: chunk.map(str::to_owned),
            node: member("aa"),
            what: what.into(),
        };
        let problems = [problem(None, "outdated"), problem(Some("0123456789abcdef"), "missing")];
        let mut report = Check { objects: 7, problem_count: 1002, ..Check::default() };
        assert_eq!(
            lines(&report, &problems, false),
            [
                "NODE  CHUNK       PROBLEM   OBJECT",
                "aa    (record)    outdated  photos/a b.jpg",
                "aa    0123456789  missing   photos/a b.jpg",
                "and 1,000 problems more",
            ]
        );
        assert!(summary(&report).starts_with("not in order: 1,002 copies (of 7 objects) are missing"));
        let json = report_json(&report, &problems);
        assert_eq!(
            json["problems"][1],
            json!({
                "object": "photos/a b.jpg", "chunk": "0123456789abcdef", "node": "aa00", "what": "missing",
            })
        );
        assert_eq!((&json["problems"][0]["chunk"], &json["clean"]), (&Value::Null, &Value::from(false)));

        report = Check { unreachable: vec![member("aa")], in_transition: true, ..Check::default() };
        assert!(lines(&report, &[], false).is_empty());
        assert_eq!(
            summary(&report),
            "not in order: no answer from aa: what it holds is not known; start it and check again; a layout \
             change is under way: check again when `pando status` says it is done"
        );
    }
}
