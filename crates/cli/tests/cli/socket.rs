//! The control socket under clients that break the rules, or break.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixListener,
    process::Stdio,
    thread,
};

use crate::harness::{Node, Outcome, Socket, finish, noise, pando, run, spawn, until};

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
    let silent: Vec<Socket> = (0..256).map(|_| node.connect()).collect();
    let waiting = spawn(node.command(["status", "--json"]));
    drop(silent);
    assert!(!finish(waiting).ok().is_empty());
}

#[test]
fn uploads_that_wait_for_their_sources_leave_room_for_small_requests() {
    let node = Node::first();
    let mut idle: Vec<Socket> = (0..300).map(|_| node.connect()).collect();
    idle.iter_mut().for_each(|socket| socket.put("default", "x"));
    // 64 run, 128 wait for a place, and the rest is told that the node is busy.
    until("the rest is refused", || {
        idle.retain_mut(|socket| {
            let reply = socket.reply_now();
            let text = reply.as_deref().map(String::from_utf8_lossy);
            text.is_none_or(|text| {
                assert!(text.contains("busy"), "{text}");
                false
            })
        });
        (idle.len() <= 64 + 128).then_some(())
    });
    assert_eq!(node.status()["health"], "healthy");
    drop(idle);
}

/// What a command says whose node takes the request and dies.
fn without_an_answer(command: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
    let dying = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        // The version and the length; then some of the request.
        client.read_exact(&mut [0; 5]).unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
    });
    let mut asking = pando(command);
    asking.arg("--data").arg(folder.path());
    let outcome = run(asking);
    dying.join().unwrap();
    outcome
}

#[test]
fn a_change_whose_node_dies_has_an_unknown_outcome() {
    let changes: [&[&str]; 6] = [
        &["rm", "default/x"],
        &["bucket", "create", "photos"],
        &["bucket", "rm", "photos"],
        &["drain", "27f2"],
        &["drain", "27f2", "--undo"],
        &["remove", "27f2"],
    ];
    for change in changes {
        without_an_answer(change).fails(8, "the outcome is unknown: the node stopped");
    }
    let several = without_an_answer(&["rm", "default/x", "default/y", "default/z"]);
    assert_eq!(several.code, Some(8));
    assert!(several.stderr.contains("not attempted: default/y, default/z"), "{}", several.stderr);
    without_an_answer(&["stat", "default/x"]).fails(1, "the node stopped before it answered");
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
