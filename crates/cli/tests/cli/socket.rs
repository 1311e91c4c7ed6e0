//! The control socket under clients that break the rules, or break.

use std::{io::Write as _, net::Shutdown, process::Stdio};

use crate::harness::{Node, Socket, noise, spawn};

#[test]
fn half_an_upload_is_never_stored() {
    let node = Node::first();
    node.put("default/x", b"old");
    let half = noise(1, 1 << 20);
    let endings: [&dyn Fn(&mut Socket); 4] = [
        &|_| {},
        &|socket| socket.send(&[9]),
        &|socket| {
            socket.send(&100u32.to_le_bytes());
            socket.send(b"not a hundred");
        },
        &|socket| socket.send(&(u32::MAX - 7).to_le_bytes()),
    ];
    for ending in endings {
        let mut socket = node.connect();
        socket.put("default", "x");
        for _ in 0..6 {
            socket.frame(&half);
        }
        ending(&mut socket);
        socket.0.shutdown(Shutdown::Write).unwrap();
        let reply = socket.reply().expect("the node says why");
        assert_eq!(reply[0], 0, "variant 0 is a failure");
        assert!(String::from_utf8_lossy(&reply).contains("reading the data to put failed"));
        assert!(socket.reply().is_none());
        assert_eq!(node.get("default/x"), b"old");
    }
}

#[test]
fn a_killed_client_leaves_the_old_object() {
    let node = Node::first();
    node.put("default/x", b"old");
    let mut command = node.command(["put", "-", "default/x"]);
    command.stdin(Stdio::piped());
    let mut upload = spawn(command);
    let mut stdin = upload.0.stdin.take().unwrap();
    stdin.write_all(&noise(2, 12 << 20)).unwrap();
    upload.0.kill().unwrap();
    upload.0.wait().unwrap();
    assert_eq!(node.get("default/x"), b"old");
    node.put("default/x", b"new");
    assert_eq!(node.get("default/x"), b"new");
}

#[test]
fn nonsense_is_dropped_and_disturbs_nobody() {
    let node = Node::first();
    let mut other = Socket::connect(&node.data, 9);
    let refusal = other.reply().unwrap();
    assert!(String::from_utf8_lossy(&refusal).contains("control version"));
    assert!(other.reply().is_none());

    let sent: [&[u8]; 4] = [
        &u32::MAX.to_le_bytes(),
        &((1u32 << 20) + 1).to_le_bytes(),
        &[1, 0, 0, 0, 0xff],
        &[3, 0, 0, 0, 1, 0xff, 0xff],
    ];
    for bytes in sent {
        let mut socket = node.connect();
        socket.send(bytes);
        assert!(socket.reply().is_none(), "{bytes:?}");
    }
    drop(node.connect());
    node.put("default/x", b"fine");
    assert_eq!(node.get("default/x"), b"fine");
}

#[test]
fn more_clients_than_there_is_room_for_wait_their_turn() {
    let node = Node::first();
    let silent: Vec<Socket> = (0..64).map(|_| node.connect()).collect();
    let waiting = spawn(node.command(["status", "--json"]));
    drop(silent);
    assert!(!crate::harness::finish(waiting).ok().is_empty());
}

#[test]
fn listings_go_through_every_page() {
    let node = Node::first();
    let mut socket = node.connect();
    let mut expected = Vec::new();
    for number in 0..1100 {
        let key = if number % 2 == 0 { format!("{number:04}/x") } else { format!("{number:04}") };
        socket.put("default", &key);
        socket.send(&0u32.to_le_bytes());
        assert_eq!(socket.reply().unwrap()[0], 3, "variant 3 is what was stored");
        expected.push(key);
    }
    let all = node.run(["ls", "default", "-r"]);
    assert!(all.text().lines().eq(expected.iter().map(String::as_str)));
    let folded = node.run(["ls", "default"]);
    assert!(folded.text().lines().eq(expected.iter().map(|key| key.trim_end_matches('x'))));
    assert_eq!(node.run(["ls", "default", "-r", "--json"]).values().len(), expected.len());
}
