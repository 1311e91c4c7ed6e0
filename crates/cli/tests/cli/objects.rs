//! Objects on a network of one: put, get, list, stat, remove, and how each fails.

use std::{fs, io::Read as _, process::Stdio};

use serde_json::json;

use crate::harness::{DEADLINE, Node, finish, noise, run_with, spawn};

#[test]
fn the_life_of_an_object() {
    let node = Node::first();
    let content = noise(1, 9_000_001);
    let file = node.folder.path().join("photo.JPG");
    fs::write(&file, &content).unwrap();
    let hash = blake3::hash(&content).to_hex();
    let file = file.to_str().unwrap();

    let put = node.run(["put", file, "default/a/", "--meta", "who=me", "--meta", "note=a=b"]);
    assert!(put.text().contains(hash.as_str()) && put.text().contains("8.6 MiB"), "{}", put.text());
    assert!(put.text().contains("copies"), "{}", put.text());
    assert!(put.stderr.is_empty(), "no progress without a terminal: {}", put.stderr);

    let stat = node.run(["stat", "default/a/photo.JPG", "--json"]).value();
    assert_eq!(stat["size"], 9_000_001);
    assert_eq!(stat["blake3"], hash.as_str());
    assert_eq!(stat["content_type"], "image/jpeg");
    assert_eq!(stat["meta"], json!({ "who": "me", "note": "a=b" }));
    assert!(stat["modified"].as_str().unwrap().ends_with('Z'));
    let shown = node.run(["stat", "default/a/photo.JPG"]);
    for part in [hash.as_str(), "image/jpeg", "who=me", stat["etag"].as_str().unwrap(), "9000001"] {
        assert!(shown.text().contains(part), "{}", shown.text());
    }

    assert_eq!(node.get("default/a/photo.JPG"), content);
    assert_eq!(node.run(["ls", "default"]).text(), "a/\n");
    assert_eq!(node.run(["ls", "default/a/"]).text(), "a/photo.JPG\n");
    assert_eq!(node.run(["ls", "default", "-r"]).text(), "a/photo.JPG\n");
    let long = node.run(["ls", "default/a/p", "-l"]);
    assert!(long.text().contains("8.6 MiB") && long.text().contains(stat["etag"].as_str().unwrap()));

    let removed = node.run(["rm", "default/a/photo.JPG"]);
    assert_eq!(removed.text(), "removed default/a/photo.JPG\n");
    for command in ["get", "stat", "rm"] {
        node.run([command, "default/a/photo.JPG"]).fails(3, "there is no object default/a/photo.JPG");
    }
    assert_eq!(node.run(["ls", "default", "-r"]).text(), "");
}

#[test]
fn sizes_around_every_boundary_come_back() {
    let node = Node::first();
    for size in [0, 1, 16 << 10, (16 << 10) + 1, 64 << 10, (4 << 20) - 1, 4 << 20, (4 << 20) + 1] {
        let content = noise(2, size);
        let put = node.put("default/x", &content);
        assert_eq!(put["size"], size);
        assert_eq!(put["blake3"], blake3::hash(&content).to_hex().as_str());
        assert!(node.get("default/x") == content, "{size} bytes");
    }
}

#[test]
fn ranges_are_what_was_asked_for() {
    let node = Node::first();
    let content = noise(3, 5 << 20);
    node.put("default/x", &content);
    let last = content.len() - 1;
    for (range, expected) in [
        ("0-0", &content[..1]),
        ("65535-65536", &content[65_535..65_537]),
        ("4194303-4194304", &content[4_194_303..4_194_305]),
        ("100-99999999999", &content[100..]),
        ("5242879-", &content[last..]),
        ("-7", &content[content.len() - 7..]),
    ] {
        let got = node.run(["get", "default/x", "--range", range]);
        assert!(got.ok() == expected, "{range}");
    }
    node.run(["get", "default/x", "--range", "5242880-"]).fails(2, "outside an object of 5242880 bytes");
}

#[test]
fn files_appear_whole_under_their_names() {
    let node = Node::first();
    let content = noise(4, 1 << 20);
    node.put("default/a/b.bin", &content);
    let folder = node.folder.path().join("out");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("c.bin");
    fs::write(&file, "old").unwrap();

    let got = node.run(["get", "default/a/b.bin", "--json", "-o", file.to_str().unwrap()]).value();
    assert_eq!((got["start"].as_u64(), got["end"].as_u64()), (Some(0), Some(1 << 20)));
    assert!(fs::read(&file).unwrap() == content);
    assert!(node.run(["get", "default/a/b.bin", "-o", folder.to_str().unwrap()]).ok().is_empty());
    assert!(fs::read(folder.join("b.bin")).unwrap() == content);
    assert!(node.run(["get", "default/a/b.bin", "-o", "/dev/null"]).ok().is_empty());
    node.run(["get", "default/nothing", "-o", folder.join("d").to_str().unwrap()]).fails(3, "no object");
    node.run(["get", "default/a/b.bin", "--json"]).fails(2, "-o FILE");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["b.bin", "c.bin"], "nothing temporary is left");
}

#[test]
fn conditions_hold_or_nothing_changes() {
    let node = Node::first();
    let put = |more: &[&str], content: &[u8]| {
        let mut arguments = vec!["put", "-", "default/x", "--json"];
        arguments.extend(more);
        run_with(node.command(arguments), content)
    };
    let none = "0".repeat(32);
    put(&["--if-match", &none], b"0").fails(4, "does not exist");
    let first = put(&["--if-absent"], b"1").value();
    let etag = first["etag"].as_str().unwrap().to_owned();
    put(&["--if-absent"], b"2").fails(4, &etag);
    put(&["--if-match", &none], b"3").fails(4, &etag);
    assert_eq!(node.get("default/x"), b"1");
    put(&["--if-match", &etag], b"4").ok();
    put(&["--if-match", &etag], b"5").fails(4, "precondition failed");
    assert_eq!(node.get("default/x"), b"4");
}

#[test]
fn buckets_come_and_go() {
    let node = Node::first();
    assert_eq!(node.run(["bucket", "ls"]).text(), "default\n");
    let created = node.run(["bucket", "create", "photos", "--json"]).value();
    assert_eq!(created, json!({ "bucket": "photos" }));
    node.run(["bucket", "create", "photos"]).fails(4, "exists already");
    assert_eq!(node.run(["ls"]).text(), "default\nphotos\n");
    let buckets = node.run(["ls", "--json"]).values();
    assert_eq!(buckets[1]["bucket"], "photos");
    node.put("photos/x", b"x");
    node.run(["bucket", "rm", "photos"]).fails(4, "not empty");
    node.run(["rm", "photos/x"]).ok();
    node.run(["bucket", "rm", "photos"]).ok();
    node.run(["ls", "photos"]).fails(3, "no bucket");
    node.run(["get", "photos/x"]).fails(3, "");
    node.run(["bucket", "rm", "photos"]).fails(3, "no bucket");
}

#[test]
fn rm_goes_on_after_a_failure() {
    let node = Node::first();
    for key in ["default/a", "default/c"] {
        node.put(key, b"x");
    }
    let removed = node.run(["rm", "default/a", "default/b", "default/c"]);
    assert_eq!(removed.code, Some(3));
    assert_eq!(String::from_utf8_lossy(&removed.stdout), "removed default/a\nremoved default/c\n");
    assert!(removed.stderr.contains("default/b"));
}

#[test]
fn stale_answers_say_so() {
    let node = Node::first();
    node.put("default/x", b"here");
    let commands: [&[&str]; 4] = [&["get", "default/x"], &["ls", "default"], &["ls"], &["stat", "default/x"]];
    for command in commands {
        let outcome = node.run(command.iter().chain(&["--stale"]));
        assert!(!outcome.ok().is_empty());
        assert!(outcome.stderr.contains("may be old"), "{}", outcome.stderr);
    }
    let file = node.folder.path().join("x");
    for command in commands {
        let mut arguments = [command, &["--json"]].concat();
        if command[0] == "get" {
            arguments.extend(["-o", file.to_str().unwrap()]);
        }
        assert!(node.run(&arguments).value().get("stale").is_none());
        arguments.push("--stale");
        assert_eq!(node.run(&arguments).value()["stale"], true, "{arguments:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let node = Node::first();
    node.put("default/x", &noise(5, 20 << 20));
    let mut reader = spawn(node.command(["get", "default/x"]));
    let mut stdout = reader.0.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let status = reader.wait();
    let mut stderr = String::new();
    reader.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_refusal_does_not_wait_for_the_end_of_the_upload() {
    let node = Node::first();
    let mut command = node.command(["put", "-", "nowhere/x"]);
    command.stdin(Stdio::piped());
    let mut upload = spawn(command);
    let _open = upload.0.stdin.take().unwrap();
    let begun = std::time::Instant::now();
    finish(upload).fails(3, "there is no bucket");
    assert!(begun.elapsed() < DEADLINE / 4);
    // And it reaches a client that sends as fast as it can.
    run_with(node.command(["put", "-", "nowhere/x"]), &noise(6, 30 << 20)).fails(3, "there is no bucket");
}

#[test]
fn a_source_that_can_not_be_read_changes_nothing() {
    let node = Node::first();
    node.put("default/x", b"old");
    node.run(["put", "/nowhere/at/all", "default/x"]).fails(1, "can't read /nowhere/at/all");
    node.run(["put", "/proc", "default/x"]).fails(2, "folder");
    node.run(["put", "/dev/null", "default/x", "--meta", &format!("k={}", "v".repeat(9000))])
        .fails(2, "metadata");
    assert_eq!(node.get("default/x"), b"old");
}
