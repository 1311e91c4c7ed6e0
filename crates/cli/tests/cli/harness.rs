//! Starts nodes and runs commands, each with a deadline; nothing outlives its test.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

/// Longest that any step may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// Waits until a condition gives something.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(met) = condition() {
            return met;
        }
        assert!(begun.elapsed() < DEADLINE, "{what}: not so after {DEADLINE:?}");
        thread::sleep(LOOK);
    }
}

/// A process that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = &mut self.0;
        until("the process ends", || child.try_wait().unwrap())
    }

    /// Sends a signal: `TERM`, `INT`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Stdout, of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> &[u8] {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        &self.stdout
    }

    /// As [`Outcome::ok`], as text.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.ok()).unwrap()
    }

    /// As [`Outcome::ok`], one JSON value a line.
    #[track_caller]
    pub(crate) fn values(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The only JSON value.
    #[track_caller]
    pub(crate) fn value(&self) -> Value {
        let mut values = self.values();
        assert_eq!(values.len(), 1, "{values:?}");
        values.remove(0)
    }

    /// Checks a failure: its exit code, one line on stderr with this in it, nothing on stdout.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, why: &str) {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        assert!(self.stderr.contains(why), "{:?} lacks {why:?}", self.stderr);
        assert!(self.stdout.is_empty());
        if code != 2 {
            let lines: Vec<&str> = self.stderr.lines().collect();
            assert!(lines.len() == 1 && lines[0].starts_with("pando: "), "{lines:?}");
        }
    }
}

/// The command, without anything from the tester's own settings.
pub(crate) fn pando<I, S>(arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(env!("CARGO_BIN_EXE_pando"));
    command.args(arguments).env_remove("PANDO_DATA").env_remove("PANDO_LOG").stdin(Stdio::null());
    command
}

/// Starts a process with its output in pipes.
pub(crate) fn spawn(mut command: Command) -> Process {
    Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits for a process and what it printed.
pub(crate) fn finish(mut process: Process) -> Outcome {
    let stdout = collect(process.0.stdout.take().unwrap());
    let stderr = collect(process.0.stderr.take().unwrap());
    let code = process.wait().code();
    let stderr = String::from_utf8(stderr.join().unwrap()).unwrap();
    Outcome { code, stdout: stdout.join().unwrap(), stderr }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Outcome {
    finish(spawn(command))
}

/// Runs a command that reads this from stdin.
pub(crate) fn run_with(mut command: Command, input: &[u8]) -> Outcome {
    command.stdin(Stdio::piped());
    let mut process = spawn(command);
    let mut stdin = process.0.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that refuses does not read to the end.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let outcome = finish(process);
    feeder.join().unwrap();
    outcome
}

/// A running node.
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) data: PathBuf,
    /// What `up --json` printed.
    pub(crate) ready: Value,
    pub(crate) folder: TempDir,
}

impl Node {
    /// A network of one.
    pub(crate) fn first() -> Self {
        Self::start(tempfile::tempdir().unwrap(), &[])
    }

    /// A node with this folder, listening on a port of its own.
    pub(crate) fn start(folder: TempDir, arguments: &[&str]) -> Self {
        let data = folder.path().join("data");
        let (process, ready) = up(&data, arguments);
        Self { process, data, ready, folder }
    }

    /// A node that joins this one's network.
    pub(crate) fn joined(&self) -> Self {
        let ticket = self.run(["invite"]).text().trim().to_owned();
        Self::start(tempfile::tempdir().unwrap(), &["--join", &ticket])
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        self.ready["id"].as_str().unwrap()
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Starts it again, after it ended.
    pub(crate) fn restart(&mut self) {
        (self.process, self.ready) = up(&self.data, &[]);
    }

    /// A command for this node.
    pub(crate) fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = pando(arguments);
        command.arg("--data").arg(&self.data);
        command
    }

    /// Runs a command for this node.
    pub(crate) fn run<I, S>(&self, arguments: I) -> Outcome
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        run(self.command(arguments))
    }

    /// Puts these bytes.
    #[track_caller]
    pub(crate) fn put(&self, place: &str, content: &[u8]) -> Value {
        run_with(self.command(["put", "-", place, "--json"]), content).value()
    }

    /// Gets all bytes.
    #[track_caller]
    pub(crate) fn get(&self, place: &str) -> Vec<u8> {
        self.run(["get", place, "-o", "-"]).ok().to_vec()
    }

    /// `status --json`.
    pub(crate) fn status(&self) -> Value {
        self.run(["status", "--json"]).value()
    }

    /// A connection to its control socket, the version byte sent.
    pub(crate) fn connect(&self) -> Socket {
        Socket::connect(&self.data, 5)
    }
}

/// The nodes in a status.
pub(crate) fn nodes(status: &Value) -> &[Value] {
    status["nodes"].as_array().unwrap()
}

/// How many of them are up.
pub(crate) fn up_count(status: &Value) -> usize {
    nodes(status).iter().filter(|node| node["up"] == true).count()
}

/// So many nodes that all know each other.
pub(crate) fn grove(size: usize) -> Vec<Node> {
    let mut all = vec![Node::first()];
    while all.len() < size {
        all.push(all[0].joined());
    }
    until("all nodes are there, and no transition", || {
        let formed = |node: &Node| {
            let status = node.status();
            up_count(&status) == size && nodes(&status).len() == size && status["in_transition"] == false
        };
        all.iter().all(formed).then_some(())
    });
    all
}

/// Starts `pando up` and waits until it is ready.
fn up(data: &Path, arguments: &[&str]) -> (Process, Value) {
    let mut command = pando(["up", "--json", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(data).args(arguments);
    if !arguments.contains(&"--s3") {
        command.args(["--s3", "127.0.0.1:0"]);
    }
    let mut process = Process(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = sender.send(line);
        // Held open until the node ends.
        let _ = stdout.read_to_end(&mut Vec::new());
    });
    let line = receiver.recv_timeout(DEADLINE).expect("the node is ready in time");
    let ready = serde_json::from_str(&line).unwrap_or_else(|why| panic!("`up` printed {line:?}: {why}"));
    (process, ready)
}

/// The control socket, spoken by hand.
pub(crate) struct Socket(pub(crate) UnixStream);

impl Socket {
    /// Connects and says which version it speaks.
    pub(crate) fn connect(data: &Path, version: u8) -> Self {
        let stream = UnixStream::connect(data.join("control.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut socket = Self(stream);
        socket.send(&[version]);
        socket
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Sends a message.
    pub(crate) fn message(&mut self, message: &impl Serialize) {
        let bytes = postcard::to_stdvec(message).unwrap();
        self.frame(&bytes);
    }

    /// Begins a put: the request, of which the content is to follow in frames.
    pub(crate) fn put(&mut self, bucket: &str, key: &str) {
        let nothing = None::<String>;
        // Variant 1: bucket, key, if_absent, if_match, content_type, meta.
        self.message(&(1u8, bucket, key, false, &nothing, &nothing, Vec::<(String, String)>::new()));
    }

    /// Sends a length and these bytes.
    pub(crate) fn frame(&mut self, bytes: &[u8]) {
        self.send(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        self.send(bytes);
    }

    /// The next message, if it is there already.
    pub(crate) fn reply_now(&mut self) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let reply = self.reply();
        self.0.set_read_timeout(Some(DEADLINE)).unwrap();
        reply
    }

    /// The next message, or `None` when the node closed.
    pub(crate) fn reply(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header).ok()?;
        let mut bytes = vec![0; u32::from_le_bytes(header) as usize];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// Bytes that do not repeat.
pub(crate) fn noise(seed: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}
