//! `pando status`: the nodes, the objects, what is being mended, and health in one line.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    scrub::{self, scrub_json},
    table::table,
};
use crate::{
    control::{
        Client,
        report::{NodeStatus, Status},
    },
    output::Output,
    units,
};

pub(crate) async fn run(data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let status = client.status().await.context("can't get the status")?;
    match out.json {
        true => out.value(&status_json(&status)),
        false => lines(&status).iter().try_for_each(|line| out.line(line)),
    }
}

fn lines(status: &Status) -> Vec<String> {
    let copies = status.replicas.map_or("a copy on every node".to_owned(), |count| format!("{count} copies"));
    let mut lines = vec![format!("network  {}, layout {}, {copies}", status.network, status.layout)];
    let header = ["NODE", "ZONE", "ADDRESS", "STATE", "USED"].map(str::to_owned).to_vec();
    lines.extend(table(&std::iter::once(header).chain(status.nodes.iter().map(row)).collect::<Vec<_>>()));
    lines.push(match status.objects {
        Some((count, true)) => format!("objects  {count}"),
        Some((count, false)) => format!("objects  {count} or more"),
        None => "objects  can't be counted now".to_owned(),
    });
    lines.extend(healing(status).map(|words| format!("healing  {words}")));
    lines.extend(scrub::words(&status.scrub).map(|words| format!("scrub    {words}")));
    let (health, summary) = health(status);
    lines.push(format!("{health}: {summary}"));
    lines
}

fn row(node: &NodeStatus) -> Vec<String> {
    let id = if node.me { format!("{} *", node.short) } else { node.short.clone() };
    let used = node.used.map_or("?".to_owned(), units::size);
    let address = node.addresses.first().map_or("-".to_owned(), ToString::to_string);
    vec![id, node.zone.clone(), address, state(node), format!("{used} / {}", units::size(node.capacity))]
}

/// What a node does: `up`, `down 5 min`, `draining`, `draining, down 5 min`.
fn state(node: &NodeStatus) -> String {
    let down = match node.down_for {
        Some(time) => format!("down {}", units::about(time)),
        None => "down".to_owned(),
    };
    match (node.draining, node.up) {
        (false, true) => "up".to_owned(),
        (true, true) => "draining".to_owned(),
        (false, false) => down,
        (true, false) => format!("draining, {down}"),
    }
}

/// What the asked node still has to do, if anything.
fn healing(status: &Status) -> Option<String> {
    let healing = &status.healing;
    let mut parts = Vec::new();
    let work = [
        (healing.lacking, "to fetch"),
        (healing.owing, "to hand over"),
        (healing.misplaced, "to drop once others have them"),
    ];
    for (number, what) in work.into_iter().filter(|(number, _)| *number > 0) {
        // The first one says what is counted.
        let number = if parts.is_empty() { units::count(number, "chunk") } else { units::number(number) };
        parts.push(format!("{number} {what}"));
    }
    let has_work = !parts.is_empty();
    if has_work && healing.rate > 0 {
        parts.push(format!("{}/s", units::size(healing.rate)));
        parts.extend(healing.done_in.map(|time| format!("about {}", units::about(time))));
    } else if has_work {
        parts.push("nothing moves now".to_owned());
    }
    if status.in_transition {
        parts.push("the layout changes".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// How the network is, in one word and one line.
pub(crate) fn health(status: &Status) -> (&'static str, String) {
    let total = status.nodes.len();
    let names = |which: fn(&&NodeStatus) -> bool| -> Vec<&str> {
        status.nodes.iter().filter(which).map(|node| node.short.as_str()).collect()
    };
    let (down, draining) = (names(|node| !node.up), names(|node| node.draining));
    let owed: u64 = status.nodes.iter().filter_map(|node| node.owed).fold(0, u64::saturating_add);
    let silent = status.nodes.iter().any(|node| node.up && node.owed.is_none());
    let copies = status.replicas.map_or(total, |count| usize::from(count).min(total));
    let mut parts = Vec::new();
    match down.len() {
        0 => parts.push(format!("{total} of {total} nodes up")),
        many => parts.push(format!("{many} of {total} nodes down ({})", shortened(&down))),
    }
    let mends = status.healing.lacking > 0 || status.healing.owing > 0;
    match owed {
        0 if silent => parts.push("not every node has said yet what it owes".to_owned()),
        0 if mends => parts.push("copies are being mended".to_owned()),
        0 if down.is_empty() => parts.push("every copy in place".to_owned()),
        0 => {}
        many => parts.push(format!("{} owed", units::count(many, "chunk"))),
    }
    if !draining.is_empty() {
        parts.push(format!(
            "{} draining ({})",
            units::count(draining.len() as u64, "node"),
            shortened(&draining)
        ));
    }
    if status.in_transition {
        parts.push("a layout change is under way".to_owned());
    }
    let active = total - draining.len();
    if let Some(wanted) = status.replicas.map(usize::from).filter(|wanted| *wanted > active) {
        parts.push(format!("{active} of {wanted} copies until more nodes join"));
    }
    // With so many nodes gone there are keys of which too few owners are left.
    let lost = !down.is_empty() && down.len() * 2 >= copies;
    if lost {
        parts.push("some or all objects can't be read or written".to_owned());
    }
    let word = match (lost, down.len()) {
        (true, _) => "unavailable",
        (false, 0) if owed == 0 && !silent && !mends => "healthy",
        (false, _) => "degraded",
    };
    (word, parts.join(", "))
}

/// The first few of many names.
fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    match names.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

fn status_json(status: &Status) -> Value {
    let (health, summary) = health(status);
    let node = |node: &NodeStatus| {
        json!({
            "id": node.id,
            "zone": node.zone,
            "addresses": node.addresses,
            "state": if node.draining { "draining" } else { "active" },
            "up": node.up,
            "down_for": node.down_for.map(|time| time.as_secs()),
            "me": node.me,
            "used": node.used,
            "capacity": node.capacity,
            "owed": node.owed,
        })
    };
    json!({
        "network": status.network,
        "layout": status.layout,
        "in_transition": status.in_transition,
        "replicas": status.replicas.map_or(Value::from("all"), Value::from),
        "health": health,
        "summary": summary,
        "objects": status.objects.map(|(at_least, exact)| json!({ "at_least": at_least, "exact": exact })),
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
        "healing": {
            "lacking": status.healing.lacking,
            "owing": status.healing.owing,
            "misplaced": status.healing.misplaced,
            "rate": status.healing.rate,
            "done_in": status.healing.done_in.map(|time| time.as_secs()),
        },
        "scrub": scrub_json(&status.scrub),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::report::{Healing, Scrub};

    pub(in crate::commands) fn status(nodes: &[(bool, Option<u64>)], replicas: Option<u8>) -> Status {
        let node = |(number, (up, owed)): (usize, &(bool, Option<u64>))| NodeStatus {
            id: format!("{number:064}"),
            short: format!("n{number}"),
            zone: "default".into(),
            addresses: Vec::new(),
            up: *up,
            me: number == 0,
            used: None,
            capacity: 1 << 30,
            owed: *owed,
            draining: false,
            down_for: None,
        };
        Status {
            network: "aa".into(),
            layout: 1,
            in_transition: false,
            replicas,
            nodes: nodes.iter().enumerate().map(node).collect(),
            objects: None,
            healing: Healing::default(),
            scrub: Scrub::default(),
        }
    }

    #[test]
    fn health_says_what_matters() {
        let say = |nodes: &[(bool, Option<u64>)], replicas| {
            let (word, summary) = health(&status(nodes, replicas));
            format!("{word}: {summary}")
        };
        let (up, down) = ((true, Some(0)), (false, None));
        assert_eq!(say(&[up, up, up], Some(3)), "healthy: 3 of 3 nodes up, every copy in place");
        assert_eq!(
            say(&[up, (true, Some(12)), down], Some(3)),
            "degraded: 1 of 3 nodes down (n2), 12 chunks owed"
        );
        assert_eq!(
            say(&[up, up, (true, None)], Some(3)),
            "degraded: 3 of 3 nodes up, not every node has said yet what it owes"
        );
        assert!(say(&[up, down, down], Some(3)).starts_with("unavailable: 2 of 3 nodes down (n1, n2)"));
        assert!(say(&[up, down], Some(3)).starts_with("unavailable"));
        assert!(say(&[up, up, up, down, down], None).starts_with("degraded"));
        assert_eq!(
            say(&[up], Some(3)),
            "healthy: 1 of 1 nodes up, every copy in place, 1 of 3 copies until more nodes join"
        );
    }

    #[test]
    fn one_glance_explains() {
        let mut now = status(&[(true, Some(0)), (true, Some(0)), (false, None), (true, Some(9))], Some(3));
        now.nodes[2].down_for = Some(Duration::from_secs(300));
        now.nodes[3].draining = true;
        now.nodes[3].used = Some(3 << 20);
        now.objects = Some((7, true));
        now.in_transition = true;
        let minutes = Some(Duration::from_secs(240));
        now.healing = Healing { lacking: 1234, owing: 56, misplaced: 1, rate: 12_900_000, done_in: minutes };
        now.scrub = Scrub { total: 200, verified: 50, ..Scrub::default() };
        assert_eq!(
            lines(&now),
            [
                "network  aa, layout 1, 3 copies",
                "NODE  ZONE     ADDRESS  STATE       USED",
                "n0 *  default  -        up          ? / 1.0 GiB",
                "n1    default  -        up          ? / 1.0 GiB",
                "n2    default  -        down 5 min  ? / 1.0 GiB",
                "n3    default  -        draining    3.0 MiB / 1.0 GiB",
                "objects  7",
                "healing  1,234 chunks to fetch, 56 to hand over, 1 to drop once others have them, 12.3 MiB/s, \
                 about 4 min, the layout changes",
                "scrub    25% of 200 chunks verified",
                "degraded: 1 of 4 nodes down (n2), 9 chunks owed, 1 node draining (n3), a layout change is \
                 under way",
            ]
        );
        let json = status_json(&now);
        assert_eq!(
            (&json["nodes"][3]["state"], &json["nodes"][2]["down_for"]),
            (&"draining".into(), &300.into())
        );
        assert_eq!((&json["healing"]["done_in"], &json["scrub"]["total"]), (&240.into(), &200.into()));

        let calm = status(&[(true, Some(0))], Some(1));
        assert_eq!(lines(&calm).len(), 5, "nothing about healing and scrub when nothing goes on");
        now.healing = Healing { owing: 1, ..Healing::default() };
        now.in_transition = false;
        assert_eq!(healing(&now).unwrap(), "1 chunk to hand over, nothing moves now");
        now.nodes[2].draining = true;
        assert_eq!(state(&now.nodes[2]), "draining, down 5 min");
        assert!(health(&now).1.contains("2 of 3 copies until more nodes join"));
    }
}
