//! Access keys by the command line.

use serde_json::json;

use crate::harness::Node;

#[test]
fn a_key_is_made_shown_once_listed_and_removed() {
    let node = Node::first();
    let made = node.run(["key", "create", "backup", "--read", "mail", "--owner", "photos", "--json"]).value();
    let id = made["key"].as_str().unwrap().to_owned();
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert!(id.starts_with("PNDO") && id.len() == 20 && secret.len() == 64, "{made}");
    let grants = json!([{ "bucket": "mail", "right": "read" }, { "bucket": "photos", "right": "owner" }]);
    assert_eq!((&made["name"], &made["grants"]), (&json!("backup"), &grants));

    // One was made with the network.
    let all = node.run(["key", "create"]);
    assert!(all.text().contains("all buckets"), "{}", all.text());
    let listed = node.run(["key", "ls", "--json"]).values();
    let found = listed.iter().find(|key| key["key"] == id.as_str()).unwrap();
    assert_eq!((listed.len(), &found["grants"], &found["secret"]), (3, &grants, &json!(null)));
    let shown = node.run(["key", "ls"]);
    assert!(shown.text().contains("read:mail owner:photos  backup") && !shown.text().contains(&secret));

    assert_eq!(node.run(["key", "rm", &id, "--json"]).value(), json!({ "key": id, "removed": true }));
    node.run(["key", "rm", &id]).fails(3, "pando key ls");
    assert_eq!(node.run(["key", "ls", "--json"]).values().len(), 2);
}

#[test]
fn what_can_not_be_a_key_is_a_usage_error() {
    let node = Node::first();
    node.run(["key", "rm", "AKIAIOSFODNN7EXAMPLE"]).fails(2, "PNDO");
    node.run(["key", "create", "--read", "Not-A-Bucket"]).fails(2, "bucket name");
    node.run(["key", "create", &"n".repeat(129)]).fails(2, "128");
    assert_eq!(node.run(["key", "ls", "--json"]).values().len(), 1, "the first one only");
}
