//! `pando plan`: what a change of the membership would move, before it is made.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::table::table;
use crate::{
    args,
    control::{
        Client,
        message::Request,
        report::{Plan, PlannedMember},
    },
    exit::Failure,
    output::Output,
    units,
};

/// More than anyone adds at once, and as many as a plan can tell apart.
const NEWCOMERS: usize = 255;

pub(crate) async fn run(plan: args::Plan, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    if plan.join.len() > NEWCOMERS {
        return Err(Failure::usage(format!("a plan takes at most {NEWCOMERS} nodes that join")).into());
    }
    let changes = !plan.drain.is_empty() || !plan.join.is_empty();
    let mut client = Client::connect(data).await?;
    let request = Request::Plan { without: plan.drain, with: plan.join };
    let plan = client.plan(&request).await.context("can't plan")?;
    if out.json {
        return out.value(&plan_json(&plan));
    }
    lines(&plan, changes).iter().try_for_each(|line| out.line(line))
}

/// The plan for people; with changes, or how everything is spread now.
fn lines(plan: &Plan, changes: bool) -> Vec<String> {
    let before: u64 = plan.members.iter().map(|member| member.slots_before).sum();
    let share = |slots: u64, of: u64| match of {
        0 => "-".to_owned(),
        of => format!("{:.1}%", slots as f64 * 100.0 / of as f64),
    };
    let row = |member: &PlannedMember| {
        let id = member.member.as_ref().map_or("(new)".to_owned(), |member| member.short.clone());
        let mut cells = vec![id, member.zone.clone(), units::size(member.capacity)];
        let (was, will) = (share(member.slots_before, before), share(member.slots_after, plan.slots));
        match changes {
            false => cells.push(was),
            true => cells.extend([format!("{was} → {will}"), units::size(member.bytes_in)]),
        }
        cells
    };
    let header = ["NODE", "ZONE", "CAPACITY", "SHARE", "TO FETCH"];
    let header = if changes { &header[..] } else { &header[..4] };
    let rows = std::iter::once(header.iter().map(|cell| (*cell).to_owned()).collect());
    let mut lines = table(&rows.chain(plan.members.iter().map(row)).collect::<Vec<_>>());
    let everything = match plan.copies {
        1 => "1 copy of everything".to_owned(),
        copies => format!("{copies} copies of everything"),
    };
    lines.push(match changes {
        false => format!("{everything}, {} of partitions", units::count_irregular(before, "copy", "copies")),
        true => format!(
            "moves {} of {}, about {}; {everything} then",
            units::number(plan.moved),
            units::count_irregular(plan.slots, "copy of partitions", "copies of partitions"),
            units::size(plan.bytes),
        ),
    });
    lines
}

fn plan_json(plan: &Plan) -> Value {
    let member = |member: &PlannedMember| {
        json!({
            "id": member.member.as_ref().map(|member| &member.id),
            "zone": member.zone,
            "capacity": member.capacity,
            "slots_before": member.slots_before,
            "slots_after": member.slots_after,
            "bytes_in": member.bytes_in,
        })
    };
    json!({
        "copies": plan.copies,
        "moved": plan.moved,
        "slots": plan.slots,
        "bytes": plan.bytes,
        "members": plan.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::Member;

    #[test]
    fn a_plan_is_a_table_and_a_line() {
        let member = |short: Option<&str>, slots_before, slots_after, bytes_in| PlannedMember {
            member: short.map(|short| Member { id: format!("{short}00"), short: short.into() }),
            zone: "default".into(),
            capacity: 1 << 40,
            slots_before,
            slots_after,
            bytes_in,
        };
        let mut plan = Plan {
            members: vec![
                member(Some("aa"), 256, 192, 0),
                member(Some("bb"), 256, 192, 0),
                member(None, 0, 128, 5 << 30),
            ],
            moved: 128,
            slots: 512,
            bytes: 5 << 30,
            copies: 2,
        };
        assert_eq!(
            lines(&plan, true),
            [
                "NODE   ZONE     CAPACITY  SHARE          TO FETCH",
                "aa     default  1.0 TiB   50.0% → 37.5%  0 B",
                "bb     default  1.0 TiB   50.0% → 37.5%  0 B",
                "(new)  default  1.0 TiB   0.0% → 25.0%   5.0 GiB",
                "moves 128 of 512 copies of partitions, about 5.0 GiB; 2 copies of everything then",
            ]
        );
        plan.members.pop();
        assert_eq!(
            lines(&plan, false),
            [
                "NODE  ZONE     CAPACITY  SHARE",
                "aa    default  1.0 TiB   50.0%",
                "bb    default  1.0 TiB   50.0%",
                "2 copies of everything, 512 copies of partitions",
            ]
        );
        assert_eq!(plan_json(&plan)["members"][0]["id"], "aa00");
    }
}
