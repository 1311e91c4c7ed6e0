//! `pando status`: the nodes, the objects, and health in one line.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    control::{
        Client,
        message::{NodeStatus, Status},
    },
    output::Output,
    units,
};

pub(crate) async fn run(data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let status = client.status().await.context("can't get the status")?;
    let (health, summary) = health(&status);
    if out.json {
        return out.value(&status_json(&status, health, &summary));
    }
    let copies = status.replicas.map_or("a copy on every node".to_owned(), |count| format!("{count} copies"));
    out.line(format!("network  {}, layout {}, {copies}", status.network, status.layout))?;
    let rows: Vec<[String; 5]> =
        std::iter::once(["NODE", "ZONE", "ADDRESS", "STATE", "USED"].map(str::to_owned))
            .chain(status.nodes.iter().map(row))
            .collect();
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        out.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    match status.objects {
        Some((count, true)) => out.line(format!("objects  {count}"))?,
        Some((count, false)) => out.line(format!("objects  {count} or more"))?,
        None => out.line("objects  can't be counted now")?,
    }
    out.line(format!("{health}: {summary}"))
}

fn row(node: &NodeStatus) -> [String; 5] {
    let id = if node.me { format!("{} *", node.short) } else { node.short.clone() };
    let used = node.used.map_or("?".to_owned(), units::size);
    let address = node.addresses.first().map_or("-".to_owned(), ToString::to_string);
    let state = if node.up { "up" } else { "down" };
    [id, node.zone.clone(), address, state.to_owned(), format!("{used} / {}", units::size(node.capacity))]
}

/// How the network is, in one word and one line.
pub(crate) fn health(status: &Status) -> (&'static str, String) {
    let total = status.nodes.len();
    let down: Vec<&str> =
        status.nodes.iter().filter(|node| !node.up).map(|node| node.short.as_str()).collect();
    let owed: u64 = status.nodes.iter().filter_map(|node| node.owed).fold(0, u64::saturating_add);
    let silent = status.nodes.iter().any(|node| node.up && node.owed.is_none());
    let copies = status.replicas.map_or(total, |count| usize::from(count).min(total));
    let mut parts = Vec::new();
    match down.len() {
        0 => parts.push(format!("{total} of {total} nodes up")),
        many => parts.push(format!("{many} of {total} nodes down ({})", shortened(&down))),
    }
    match owed {
        0 if silent => parts.push("not every node has said yet what it owes".to_owned()),
        0 if down.is_empty() => parts.push("every copy in place".to_owned()),
        0 => {}
        1 => parts.push("1 chunk owed".to_owned()),
        many => parts.push(format!("{many} chunks owed")),
    }
    if status.in_transition {
        parts.push("a layout change is under way".to_owned());
    }
    if let Some(wanted) = status.replicas.map(usize::from).filter(|wanted| *wanted > total) {
        parts.push(format!("{copies} of {wanted} copies until more nodes join"));
    }
    // With so many nodes gone there are keys of which too few owners are left.
    let lost = !down.is_empty() && down.len() * 2 >= copies;
    if lost {
        parts.push("some or all objects can't be read or written".to_owned());
    }
    let word = match (lost, down.len()) {
        (true, _) => "unavailable",
        (false, 0) if owed == 0 && !silent => "healthy",
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

fn status_json(status: &Status, health: &str, summary: &str) -> Value {
    let node = |node: &NodeStatus| {
        json!({
            "id": node.id,
            "zone": node.zone,
            "addresses": node.addresses,
            "up": node.up,
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(nodes: &[(bool, Option<u64>)], replicas: Option<u8>) -> Status {
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
        };
        Status {
            network: "aa".into(),
            layout: 1,
            in_transition: false,
            replicas,
            nodes: nodes.iter().enumerate().map(node).collect(),
            objects: None,
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
}
