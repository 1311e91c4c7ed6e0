//! Processes: no node, bad usage, starting, stopping, two on one folder.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::harness::{Node, finish, noise, pando, run, spawn, until};

/// The variant of the request for the status.
const STATUS: u8 = 9;

#[test]
fn without_a_node_one_line_says_what_to_type() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let commands: [&[&str]; 13] = [
        &["status"],
        &["invite"],
        &["ls"],
        &["bucket", "create", "photos"],
        &["put", "/dev/null", "default/x"],
        &["get", "default/x"],
        &["stat", "default/x"],
        &["rm", "default/x"],
        &["drain", "27f2"],
        &["remove", "27f2"],
        &["plan"],
        &["check"],
        &["scrub"],
    ];
    for command in commands {
        let mut with_folder = command.to_vec();
        with_folder.extend(["--data", data]);
        let expected = format!("no node is running for {data}: start one with `pando up`");
        run(pando(with_folder)).fails(1, &expected);
    }
    let mut by_environment = pando(["status"]);
    by_environment.env("PANDO_DATA", data);
    run(by_environment).fails(1, data);
}

#[test]
fn bad_usage_ends_with_2() {
    let commands: [&[&str]; 24] = [
        &[],
        &["plant"],
        &["get", "default"],
        &["get", "Default/x"],
        &["get", "default/x", "--range", "9-1"],
        &["put", "x"],
        &["put", "-", "default/x", "--if-absent", "--if-match", &"0".repeat(32)],
        &["put", "-", "default/x", "--if-match", "xyz"],
        &["put", "-", "default/"],
        &["rm"],
        &["invite", "--expires", "soon"],
        &["up", "--join", "hello"],
        &["up", "--capacity", "much"],
        &["up", "--zone", ""],
        &["up", "--dead-after", "soon"],
        &["up", "--heal-rate", "0"],
        &["drain"],
        &["drain", "27f2", "--force", "--undo"],
        &["drain", "not-an-id"],
        &["remove", ""],
        &["plan", "--join", "1T@"],
        &["check", "27f2"],
        &["scrub", "--later"],
        &["completions", "abacus"],
    ];
    for command in commands {
        run(pando(command)).fails(2, "");
    }
    run(pando(["up", "--join", "hello"])).fails(2, "pando invite");
    run(pando(["up", "--join", "pando1aaaa"])).fails(2, "damaged");
}

#[test]
fn help_lists_the_exit_codes_and_completions_are_made() {
    let help = run(pando(["--help"]));
    for code in 0..=9 {
        assert!(help.text().contains(&format!("\n  {code}  ")), "{}", help.text());
    }
    assert!(run(pando(["completions", "bash"])).text().contains("_pando()"));
}

#[test]
fn a_node_says_who_it_is_and_stops_on_a_signal() {
    for signal in ["TERM", "INT"] {
        let mut node = Node::first();
        for field in ["id", "network", "listen", "data", "control", "ticket"] {
            assert!(node.ready[field].is_string(), "{field} in {}", node.ready);
        }
        let socket = node.data.join("control.sock");
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        node.put("default/x", b"kept");
        node.process.signal(signal);
        assert_eq!(node.process.wait().code(), Some(0));
        assert!(!socket.exists());
        node.restart();
        assert_eq!(node.ready["started"], "resumed");
        assert_eq!(node.get("default/x"), b"kept");
    }
}

#[test]
fn people_are_told_what_to_type_next() {
    use std::io::{BufRead as _, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let mut up = pando(["up", "--listen", "127.0.0.1:0", "--data"]);
    up.arg(folder.path().join("data"));
    let mut process = spawn(up);
    let stdout = BufReader::new(process.0.stdout.take().unwrap());
    let line = stdout.lines().map(Result::unwrap).find(|line| line.contains("--join")).unwrap();
    let ticket = line.trim().strip_prefix("pando up --join ").unwrap();
    let joined = Node::start(tempfile::tempdir().unwrap(), &["--join", ticket]);
    assert_eq!(joined.ready["started"], "joined");
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let node = Node::first();
    let mut second = pando(["up", "--listen", "127.0.0.1:0", "--data"]);
    second.arg(&node.data);
    run(second).fails(1, node.data.to_str().unwrap());
    node.put("default/x", b"undisturbed");
    assert_eq!(node.get("default/x"), b"undisturbed");
}

#[test]
fn a_killed_nodes_socket_is_replaced() {
    let mut node = Node::first();
    node.put("default/x", b"kept");
    node.kill();
    assert!(node.data.join("control.sock").exists());
    node.run(["status"]).fails(1, "no node is running");
    node.restart();
    assert_eq!(node.get("default/x"), b"kept");
}

#[test]
fn stopping_does_not_wait_for_clients_that_do_nothing() {
    let mut node = Node::first();
    let _silent = node.connect();
    let mut command = node.command(["put", "-", "default/x"]);
    command.stdin(Stdio::piped());
    let mut upload = spawn(command);
    let mut open = upload.0.stdin.take().unwrap();
    // More than the client can hold: once it is written, the upload has begun.
    open.write_all(&noise(1, 8 << 20)).unwrap();
    let begun = Instant::now();
    node.process.signal("TERM");
    assert_eq!(node.process.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(30));
    finish(upload).fails(1, "nothing was changed");
}

#[test]
fn stopping_does_not_wait_for_clients_that_ask_nothing() {
    let mut node = Node::first();
    let mut idle: Vec<_> = (0..3).map(|_| node.connect()).collect();
    // Accepted, and all of them between two requests.
    for socket in &mut idle {
        socket.message(&STATUS);
        assert!(socket.reply().is_some());
    }
    let begun = Instant::now();
    node.process.signal("TERM");
    assert_eq!(node.process.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(idle);
}

#[test]
fn an_option_that_does_not_fit_is_bad_usage() {
    let node = Node::first();
    let ticket = node.run(["invite"]).text().trim().to_owned();
    let mut both = pando(["up", "--join", &ticket, "--replicas", "2", "--data"]);
    both.arg(node.folder.path().join("new"));
    run(both).fails(2, "--replicas");
    let other = Node::first();
    let Node { mut process, data, folder, .. } = other;
    process.signal("TERM");
    process.wait();
    let up = |more: [&str; 2]| {
        let mut up = pando(["up", "--listen", "127.0.0.1:0", "--data"]);
        up.arg(&data).args(more);
        run(up)
    };
    up(["--replicas", "2"]).fails(2, "--replicas is chosen when a network is made");
    up(["--join", &ticket]).fails(2, "another network");
    drop(folder);
}

#[test]
fn a_folder_with_a_long_name_has_a_socket_too() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&data).unwrap();
    let mut up = pando(["up", "--listen", "127.0.0.1:0", "--data"]);
    up.arg(&data);
    let _process = spawn(up);
    let status = || {
        let mut status = pando(["status", "--data"]);
        status.arg(&data);
        (run(status).code == Some(0)).then_some(())
    };
    if cfg!(target_os = "linux") {
        until("the node answers", status);
    }
}
