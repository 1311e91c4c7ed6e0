//! Networks of several processes: joining, losing a node, and the demo.

use std::time::{Duration, SystemTime};

use crate::harness::{Node, Outcome, grove, nodes, noise, pando, run, until, up_count};

#[test]
fn put_on_one_get_from_any_lose_one() {
    let mut nodes = grove(3);
    let (first, second) = (noise(1, 9 << 20), noise(2, 5 << 20));
    let put = nodes[0].put("default/first", &first);
    assert!(put["copies"].as_u64() >= Some(2) && put["wanted"] == 3, "{put}");
    for node in &nodes {
        assert!(node.get("default/first") == first);
        assert_eq!(node.run(["ls", "default"]).text(), "first\n");
    }

    nodes[1].kill();
    let put = nodes[2].put("default/second", &second);
    assert_eq!(put["copies"], 2);
    for survivor in [&nodes[0], &nodes[2]] {
        assert!(survivor.get("default/first") == first && survivor.get("default/second") == second);
    }
    let status = until("the loss is seen", || {
        let status = nodes[0].status();
        (up_count(&status) == 2).then_some(status)
    });
    assert_eq!(status["health"], "degraded");
    let shown = nodes[0].run(["status"]);
    assert!(shown.text().contains("degraded: 1 of 3 nodes down"), "{}", shown.text());

    nodes[1].restart();
    assert!(nodes[1].get("default/second") == second);
    until("all is well again", || (nodes[0].status()["health"] == "healthy").then_some(()));
}

#[test]
fn without_a_majority_it_says_so_and_stale_reads_work() {
    let mut nodes = grove(3);
    let content = noise(3, 100_000);
    assert_eq!(nodes[0].put("default/x", &content)["wanted"], 3);
    until("every copy is in place", || (nodes[0].status()["health"] == "healthy").then_some(()));
    nodes[1].kill();
    nodes[2].kill();
    nodes[0].run(["get", "default/x"]).fails(5, "");
    nodes[0].run(["put", "/dev/null", "default/y"]).fails(5, "");
    assert!(nodes[0].run(["get", "default/x", "--stale"]).ok() == content);
    nodes[1].restart();
    until("a majority is back", || (nodes[0].run(["get", "default/x"]).code == Some(0)).then_some(()));
    nodes[0].put("default/y", b"y");
    assert_eq!(nodes[1].get("default/y"), b"y");
}

fn join(ticket: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut up = pando(["up", "--listen", "127.0.0.1:0", "--join", ticket, "--data"]);
    up.arg(folder.path().join("data"));
    run(up)
}

#[test]
fn tickets_are_good_once_and_until_they_expire() {
    let first = Node::first();
    let ticket = first.run(["invite"]).text().trim().to_owned();
    let second = Node::start(tempfile::tempdir().unwrap(), &["--join", &ticket]);
    assert_eq!(second.ready["network"], first.ready["network"]);
    join(&ticket).fails(1, "used");

    let short = first.run(["invite", "--expires", "1s", "--json"]).value();
    let late = SystemTime::now() + Duration::from_millis(1500);
    until("the ticket is too old", || (SystemTime::now() > late).then_some(()));
    join(short["ticket"].as_str().unwrap()).fails(1, "expired");
    assert_eq!(nodes(&first.status()).len(), 2);
}

#[test]
fn a_member_resumes_even_with_its_ticket() {
    let first = Node::first();
    let ticket = first.run(["invite"]).text().trim().to_owned();
    let mut second = Node::start(tempfile::tempdir().unwrap(), &["--join", &ticket]);
    let id = second.ready["id"].clone();
    second.process.signal("TERM");
    assert_eq!(second.process.wait().code(), Some(0));
    let again = Node::start(second.folder, &["--join", &ticket]);
    assert_eq!((&again.ready["id"], again.ready["started"].as_str()), (&id, Some("resumed")));
}

#[test]
fn the_demo_holds() {
    let demo = run(pando(["demo", "--size", "9M", "--json"]));
    let steps = demo.values();
    assert_eq!(steps.last().unwrap()["ok"], true);
    assert_eq!(
        steps.iter().filter(|step| step["step"].as_str().unwrap_or("").starts_with("read")).count(),
        7
    );

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own");
    std::fs::write(&file, noise(4, 70_000)).unwrap();
    let mut own = pando(["demo", "--file", file.to_str().unwrap()]);
    own.env("TMPDIR", folder.path()).env("PANDO_DATA", "/nowhere").env("PANDO_LOG", "trace");
    assert!(run(own).text().contains("all of it held"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}
