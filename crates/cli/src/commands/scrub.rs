//! `pando scrub`: how far the verification of the local node's chunks is; or all of it, now.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::progress::Progress;
use crate::{
    args,
    control::{Client, message::Request, report::Scrub},
    exit::{Failure, Kind},
    output::Output,
    signals::Signals,
    units,
};

/// How often the node is asked how far it is; counting objects for the answer takes it longer than that.
const POLL: Duration = Duration::from_millis(250);
/// How long it may take until the node is seen to have begun. One without chunks may never be.
const BEGIN: Duration = Duration::from_secs(3);

pub(crate) async fn run(scrub: args::Scrub, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let before = client.status().await.context("can't get the status")?.scrub;
    if !scrub.now {
        return out.either(&scrub_json(&before), lines(&before).join("\n"));
    }
    client.command(&Request::Scrub, "pando scrub").await.context("can't scrub")?;
    let mut signals = Signals::new()?;
    let done = tokio::select! {
        done = follow(&mut client, before) => done.context("can't follow the scrub")?,
        _ = signals.next() => {
            let why = "interrupted: the node goes on; `pando scrub` shows how far it is";
            return Err(Failure::new(Kind::Failed, why).into());
        }
    };
    let verified = units::count(done.verified.max(done.total), "chunk");
    out.either(&scrub_json(&done), format!("verified {verified}, {} damaged", done.damaged))?;
    out.flush()?;
    match done.damaged {
        0 => Ok(()),
        damaged => {
            let be = if damaged == 1 { "was" } else { "were" };
            let why = format!(
                "{} {be} damaged and put aside; good copies are fetched from other nodes by themselves, \
                 `pando status` shows how far that is; look after this node's disk",
                units::count(damaged, "chunk")
            );
            Err(Failure::new(Kind::NotClean, why).into())
        }
    }
}

/// Looks how far the pass is until it has ended; the answer is the last that was seen of it.
async fn follow(client: &mut Client, before: Scrub) -> anyhow::Result<Scrub> {
    let progress = Progress::show("verifying", Some(0));
    let began = Instant::now();
    let mut seen: Option<Scrub> = None;
    loop {
        let now = client.status().await?.scrub;
        if let Some(done) = ended(before, seen, now) {
            return Ok(done);
        }
        if seen.is_none() && !now.now && began.elapsed() > BEGIN {
            ensure!(
                now.total == 0,
                "the node did not begin within {} s; its log may say why",
                BEGIN.as_secs()
            );
            return Ok(now);
        }
        if now.now {
            progress.set_total(now.total.max(1));
            let damaged = if now.damaged > 0 { format!(", {} damaged", now.damaged) } else { String::new() };
            let of = units::count(now.total, "chunk");
            progress.set(now.verified, format!("{} of {of}{damaged}", now.verified));
            seen = Some(now);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The pass that was asked for, if it has ended: `before` is how it was before that, `seen` the last that
/// was seen of the pass while it ran. What it found may no longer be told once the next pass has begun.
fn ended(before: Scrub, seen: Option<Scrub>, now: Scrub) -> Option<Scrub> {
    if now.now || (now.finished == before.finished && seen.is_none()) {
        return None;
    }
    let seen = seen.unwrap_or(now);
    Some(Scrub {
        now: false,
        verified: seen.verified.max(now.verified),
        total: seen.total.max(now.total),
        damaged: seen.damaged.max(now.damaged),
        finished: now.finished,
    })
}

/// How far it is, in words; nothing if there is nothing to say.
pub(super) fn words(scrub: &Scrub) -> Option<String> {
    let mut parts = Vec::new();
    let runs = scrub.now || (scrub.verified > 0 && scrub.verified < scrub.total);
    if runs {
        let how = if scrub.now { ", as fast as it goes" } else { "" };
        let percent = (u128::from(scrub.verified) * 100 / u128::from(scrub.total.max(1))).min(100);
        parts.push(format!("{percent}% of {} verified{how}", units::count(scrub.total, "chunk")));
    }
    if scrub.damaged > 0 {
        parts.push(format!("{} found damaged (fetched again)", scrub.damaged));
    }
    parts.extend(scrub.finished.map(|at| format!("last finished {}", units::time(at))));
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn lines(scrub: &Scrub) -> Vec<String> {
    let finished = scrub.finished.map_or("never".to_owned(), units::time);
    let how = if scrub.now { "as fast as it goes" } else { "slowly" };
    let of = units::count(scrub.total, "chunk");
    vec![
        format!("this pass      {} of {of} verified, {how}", scrub.verified),
        format!("damaged        {} in this pass", scrub.damaged),
        format!("last finished  {finished}"),
    ]
}

pub(super) fn scrub_json(scrub: &Scrub) -> Value {
    json!({
        "now": scrub.now,
        "verified": scrub.verified,
        "total": scrub.total,
        "damaged": scrub.damaged,
        "finished": scrub.finished.map(units::time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(now: bool, verified: u64, damaged: u64, finished: Option<u64>) -> Scrub {
        Scrub { now, verified, total: 100, damaged, finished }
    }

    #[test]
    fn a_pass_ends_once() {
        let before = scrub(false, 40, 0, Some(1));
        assert_eq!(ended(before, None, before), None, "it has not begun");
        let runs = scrub(true, 99, 2, Some(1));
        assert_eq!(ended(before, None, runs), None);
        assert_eq!(ended(before, Some(runs), runs), None);
        let next = scrub(false, 0, 0, Some(2));
        assert_eq!(ended(before, Some(runs), next), Some(scrub(false, 99, 2, Some(2))));
        assert_eq!(ended(before, None, scrub(false, 100, 1, Some(2))).unwrap().damaged, 1);
    }

    #[test]
    fn words_say_what_goes_on() {
        assert_eq!(words(&Scrub::default()), None);
        assert_eq!(
            words(&scrub(true, 42, 0, None)).unwrap(),
            "42% of 100 chunks verified, as fast as it goes"
        );
        assert_eq!(
            words(&scrub(false, 5, 2, Some(0))).unwrap(),
            "5% of 100 chunks verified, 2 found damaged (fetched again), last finished 1970-01-01T00:00:00Z"
        );
        assert_eq!(words(&scrub(false, 100, 0, Some(0))).unwrap(), "last finished 1970-01-01T00:00:00Z");
        assert_eq!(lines(&scrub(false, 5, 0, None))[0], "this pass      5 of 100 chunks verified, slowly");
    }
}
