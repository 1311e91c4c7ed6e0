//! Changes of the membership and looking after the data: drain, remove, plan, check, scrub.

use std::io::{BufRead as _, BufReader, Read as _};

use serde_json::{Value, json};

use crate::harness::{Node, Outcome, finish, grove, noise, pando, spawn, until};

/// The member of this id, in a status.
fn member<'a>(status: &'a Value, id: &str) -> Option<&'a Value> {
    status["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id)
}

/// The shortest start of this node's id that no other node has.
fn prefix(node: &Node, all: &[Node]) -> String {
    let others: Vec<&str> = all.iter().map(Node::id).filter(|id| *id != node.id()).collect();
    let unique = |length: &usize| !others.iter().any(|id| id.starts_with(&node.id()[..*length]));
    let length = (1..64).find(unique).unwrap();
    node.id()[..length].to_owned()
}

#[test]
fn a_node_is_named_by_the_start_of_its_id() {
    let all = grove(2);
    for command in ["drain", "remove"] {
        let unknown = "0123456789abcdef".repeat(4);
        all[0].run([command, &unknown]).fails(3, "no node of this network has an id that starts with");
    }
    all[0].run(["plan", "--drain", &"f".repeat(64)]).fails(3, "pando status");
    // Ids are random: now and then two of them begin alike.
    let shared = all[0].id().chars().zip(all[1].id().chars()).take_while(|(a, b)| a == b).count();
    if shared > 0 {
        all[0].run(["drain", &all[0].id()[..shared]]).fails(2, "several");
    }
    let plan = all[0].run(["plan", "--json", "--drain", &prefix(&all[1], &all).to_uppercase()]).value();
    let left = plan["members"].as_array().unwrap().iter().find(|member| member["id"] == all[1].id()).unwrap();
    assert_eq!(left["slots_after"], 0, "{plan}");
}

#[test]
fn a_drain_that_would_cost_copies_is_refused() {
    let all = grove(3);
    let id = all[1].id();
    all[0].run(["drain", id]).fails(4, "2 nodes would remain for 3 copies");
    assert_eq!(member(&all[0].status(), id).unwrap()["state"], "active");
    all[0].run(["drain", id, "--undo"]).fails(4, "is not draining");
    let alone = Node::first();
    alone.run(["drain", alone.id()]).fails(4, "add a node first");
    alone.run(["drain", alone.id(), "--force"]).fails(4, "add another one first");
}

#[test]
fn a_drain_starts_shows_and_is_undone() {
    let all = grove(4);
    all[0].put("default/x", b"small");
    let id = all[3].id();
    let started = all[0].run(["drain", &prefix(&all[3], &all), "--no-wait", "--json"]).value();
    assert_eq!(started, json!({ "id": id, "state": "draining" }));
    // It may have left by now, if it held nothing.
    let undone = all[0].run(["drain", id, "--undo", "--json"]);
    match undone.code {
        Some(0) => {
            assert_eq!(undone.value(), json!({ "id": id, "state": "active" }));
            assert_eq!(member(&all[0].status(), id).unwrap()["state"], "active");
        }
        code => assert!(code == Some(3) || code == Some(4), "{undone:?}"),
    }
    assert_eq!(all[1].get("default/x"), b"small");
}

#[test]
fn an_interrupt_ends_the_following_and_not_the_drain() {
    let mut all = grove(4);
    // Frozen, it can't leave.
    let frozen = all.pop().unwrap();
    frozen.process.signal("STOP");
    let mut following = spawn(all[0].command(["drain", frozen.id(), "-v"]));
    let mut stderr = BufReader::new(following.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("following the drain") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it followed");
    }
    following.signal("INT");
    assert_eq!(following.wait().code(), Some(1));
    line.clear();
    stderr.read_to_string(&mut line).unwrap();
    assert!(line.contains("goes on draining") && line.contains("--undo"), "{line}");
    assert_eq!(member(&all[0].status(), frozen.id()).unwrap()["state"], "draining");
    let shown = all[0].run(["status"]);
    assert!(shown.text().contains("draining"), "{}", shown.text());
    assert!(shown.text().contains("1 node draining"), "{}", shown.text());
    frozen.process.signal("CONT");
}

#[test]
fn only_what_is_gone_is_removed() {
    let mut all = grove(4);
    all[0].put("default/x", b"small");
    let id = all[3].id().to_owned();
    all[0].run(["remove", &id]).fails(4, "drain it first");
    all[3].run(["remove", &id]).fails(4, "pando drain");
    all[3].kill();
    let removed: Outcome = until("it counts as down", || {
        let removed = all[0].run(["remove", &id, "--json"]);
        (removed.code != Some(4)).then_some(removed)
    });
    assert_eq!(removed.value(), json!({ "id": id, "removed": true }));
    assert!(member(&all[0].status(), &id).is_none());
    all[0].run(["remove", &id]).fails(3, "no node of this network");
    assert_eq!(all[1].get("default/x"), b"small");
}

#[test]
fn a_removed_node_ends_with_what_to_do() {
    let all = grove(4);
    let mut up = pando(["up", "--data"]);
    let ticket = all[0].run(["invite"]).text().trim().to_owned();
    let folder = tempfile::tempdir().unwrap();
    up.arg(folder.path().join("data")).args(["--listen", "127.0.0.1:0", "--json", "--join", &ticket]);
    let mut process = spawn(up);
    let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    all[0].run(["remove", ready["id"].as_str().unwrap(), "--force"]).ok();
    // One line is all that it prints, so that nothing of it stayed in the buffer.
    process.0.stdout = Some(stdout.into_inner());
    let outcome = finish(process);
    outcome.fails(1, "this node was removed from its network");
    assert!(outcome.stderr.contains("--join"), "{}", outcome.stderr);
}

#[test]
fn a_plan_shows_what_would_move() {
    let all = grove(3);
    let now = all[0].run(["plan", "--json"]).value();
    assert_eq!(now["copies"], 3);
    let members = now["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    for member in members {
        assert_eq!(member["slots_before"], member["slots_after"], "{member}");
        assert_eq!(member["zone"], "default");
    }
    let shown = all[0].run(["plan"]);
    assert!(
        shown.text().contains("33.3%") && shown.text().contains("3 copies of everything"),
        "{}",
        shown.text()
    );
    assert!(!shown.text().contains("moves"), "{}", shown.text());

    let larger = all[0].run(["plan", "--join", "1T@cellar", "--join", "2T", "--json"]).value();
    let new: Vec<&Value> =
        larger["members"].as_array().unwrap().iter().filter(|member| member["id"].is_null()).collect();
    assert_eq!(new.len(), 2);
    assert_eq!((&new[0]["zone"], &new[0]["capacity"]), (&json!("cellar"), &json!(1u64 << 40)));
    assert!(larger["moved"].as_u64() > Some(0) && new[1]["slots_after"].as_u64() > Some(0), "{larger}");

    let shown = all[0].run(["plan", "--drain", all[1].id()]);
    for part in ["SHARE", "→ 0.0%", "2 copies of everything then", &all[1].id()[..10]] {
        assert!(shown.text().contains(part), "{part}: {}", shown.text());
    }
    let alone = Node::first();
    alone.run(["plan", "--drain", alone.id()]).fails(4, "add another one first");
}

#[test]
fn a_healthy_network_is_clean() {
    let all = grove(3);
    for (number, size) in [(1, 9 << 20), (2, 10), (3, 0)] {
        all[0].put(&format!("default/{number}"), &noise(number, size));
    }
    until("every copy is in place", || (all[0].status()["health"] == "healthy").then_some(()));
    for deep in [false, true] {
        let mut arguments = vec!["check"];
        arguments.extend(deep.then_some("--deep"));
        let shown = all[1].run(&arguments);
        assert!(shown.text().starts_with("every copy is in place"), "{}", shown.text());
        assert_eq!((shown.text().lines().count(), shown.stderr.as_str()), (1, ""));
        arguments.push("--json");
        let report = all[2].run(&arguments).value();
        assert_eq!((&report["clean"], &report["problem_count"]), (&json!(true), &json!(0)));
        for field in ["objects", "chunks", "bytes"] {
            assert!(report[field].is_u64(), "{field}: {report}");
        }
        assert_eq!((&report["problems"], &report["unreachable"]), (&json!([]), &json!([])));
        assert_eq!(report["in_transition"], false);
    }
}

#[test]
fn a_scrub_is_shown_and_followed() {
    let node = Node::first();
    node.put("default/x", &noise(1, 9 << 20));
    let state = node.run(["scrub", "--json"]).value();
    for field in ["now", "verified", "total", "damaged", "finished"] {
        assert!(state.get(field).is_some(), "{field}: {state}");
    }
    assert!(node.run(["scrub"]).text().contains("last finished"));
    let done = node.run(["scrub", "--now", "--json"]).value();
    assert_eq!((&done["now"], &done["damaged"]), (&json!(false), &json!(0)));
    let shown = node.run(["scrub", "--now"]);
    assert!(shown.text().contains("0 damaged") && shown.stderr.is_empty(), "{}", shown.text());
}

#[test]
fn the_status_says_what_is_mended() {
    let status = Node::first().status();
    let node = &status["nodes"][0];
    assert_eq!((&node["state"], &node["down_for"]), (&json!("active"), &Value::Null));
    for field in ["lacking", "owing", "misplaced", "rate"] {
        assert!(status["healing"][field].is_u64(), "{status}");
    }
    assert!(status["healing"].get("done_in").is_some() && status["scrub"]["now"].is_boolean(), "{status}");
}
