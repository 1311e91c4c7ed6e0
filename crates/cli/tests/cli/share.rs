//! Links that are shared, opened as a browser does.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::harness::{DEADLINE, Node, noise, until};

/// Opens a link: the status, the head and the body.
fn open(url: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap());
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer[end + 4..].to_vec())
}

#[test]
fn a_shared_object_is_read_by_who_has_the_link() {
    let node = Node::first();
    let content = noise(1, 300_000);
    node.put("default/talks/a b&ä.mp4", &content);
    let link = node.run(["share", "default/talks/a b&ä.mp4", "--expires", "1h", "--json"]).value();
    let url = link["url"].as_str().unwrap();
    assert_eq!((&link["public"], link["key"].as_str()), (&false.into(), Some("talks/a b&ä.mp4")));
    assert!(link["expires"].as_str().unwrap().ends_with('Z') && url.contains("X-Amz-Expires=3600"), "{link}");
    let (status, head, body) = open(url, "");
    assert!(status == 200 && body == content, "{head}");
    let (status, head, body) = open(url, "range: bytes=1000-1999\r\n");
    assert!(status == 206 && head.contains("content-range: bytes 1000-1999/300000"), "{head}");
    assert_eq!(body, &content[1000..2000]);
    // The link is for this object only, and nobody reads it without.
    assert_eq!(open(&url.replace("talks", "other"), "").0, 403);
    assert_eq!(open(url.split('?').next().unwrap(), "").0, 403);

    // One key signs all links of a bucket; without it they are dead.
    let again = node.run(["share", "default/talks/a b&ä.mp4"]);
    let again_url = again.text().trim().to_owned();
    assert!(again_url.contains("X-Amz-Expires=604800") && again.stderr.contains("this machine only"));
    let keys = node.run(["key", "ls", "--json"]).values();
    let signers: Vec<_> = keys.iter().filter(|key| key["name"] == "share links of default").collect();
    assert_eq!(signers.len(), 1, "{keys:?}");
    assert_eq!(signers[0]["grants"], serde_json::json!([{ "bucket": "default", "right": "read" }]));
    node.run(["key", "rm", signers[0]["key"].as_str().unwrap()]).ok();
    until("the links are dead", || (open(&again_url, "").0 == 403).then_some(()));
    let new = node.run(["share", "default/talks/a b&ä.mp4"]).text().trim().to_owned();
    assert_eq!(open(&new, "").0, 200);
}

#[test]
fn links_lead_where_people_reach_s3() {
    let node = Node::first();
    node.put("default/a", b"hello");
    let shared = |address: &str| {
        let shared = node.run(["share", "default/a", "--address", address]);
        assert_eq!(shared.stderr, "");
        shared.text().to_owned()
    };
    assert!(shared("files.example:9000").starts_with("http://files.example:9000/default/a?X-Amz-"));
    assert!(shared("https://files.example").starts_with("https://files.example/default/a?X-Amz-"));
    node.run(["share", "default/a", "--address", "not an address"]).fails(2, "not an address");
}

#[test]
fn what_can_not_be_shared_is_refused() {
    let node = Node::first();
    node.put("default/a", b"hello");
    node.run(["share", "default/none"]).fails(3, "default/none");
    node.run(["share", "nowhere/a"]).fails(3, "nowhere");
    for wrong in ["0s", "8d", "soon"] {
        node.run(["share", "default/a", "--expires", wrong]).fails(2, "--expires");
    }
    let off = Node::start(tempfile::tempdir().unwrap(), &["--s3", "none"]);
    off.put("default/a", b"hello");
    off.run(["share", "default/a"]).fails(4, "--s3");
}
