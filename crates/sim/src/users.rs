//! Clients at work: asking a real node, checking every byte that comes back, noting what they were told.

use std::rc::Rc;

use pando_node::{ByteRange, Condition, Consistency, Error, ListQuery, Node, ObjectInfo, PutOptions};

use crate::{
    client::{Client, Intent, What, key},
    history::{Kind, Outcome, Value},
    rng::Rng,
    schedule::Profile,
    versions,
    world::State,
};

/// Starts the clients that use this machine's node.
pub(crate) fn start(state: &Rc<State>, machine: u32, node: &Node) {
    let nodes = state.plan.nodes;
    for number in
        (0..state.plan.clients).filter(|client| client * nodes / state.plan.clients % nodes == machine)
    {
        let (state, node) = (Rc::clone(state), node.clone());
        // A client that starts anew (its machine did) goes another way than before.
        let mut rng = Rng::of(state.plan.seed ^ state.micros(), 100 + u64::from(number));
        if state.plan.profile == Profile::Versions {
            tokio::task::spawn_local(async move {
                versions::User { state, number, node }.run(&mut rng).await;
            });
            continue;
        }
        tokio::task::spawn_local(async move {
            let mut user =
                User { client: Client::new(&state.plan, number, &mut rng), state, machine, number, node };
            user.run(&mut rng).await;
        });
    }
}

struct User {
    state: Rc<State>,
    client: Client,
    number: u32,
    machine: u32,
    node: Node,
}

impl User {
    async fn run(&mut self, rng: &mut Rng) {
        loop {
            let intent = self.client.next(rng);
            tokio::time::sleep(std::time::Duration::from_millis(intent.pause_ms + 1)).await;
            if self.state.clients_ended() {
                return;
            }
            if self.state.clients_run() {
                self.perform(&intent).await;
            }
        }
    }

    async fn perform(&mut self, intent: &Intent) {
        match intent.what {
            What::Put => self.put(intent, Condition::None, Kind::Put).await,
            What::PutIfAbsent => self.put(intent, Condition::Absent, Kind::PutIfAbsent).await,
            What::PutIfMatch(expected) => {
                if let Some(etag) = self.state.etag_of(expected) {
                    let kind = |value| Kind::PutIfMatch { expected, value };
                    self.put(intent, Condition::Match(etag), kind).await;
                }
            }
            What::Remove => self.remove(&intent.key).await,
            What::Read => self.read(&intent.key, None).await,
            What::RangeRead { from, to } => self.read(&intent.key, Some((from, to))).await,
            What::List => self.list().await,
        }
    }

    async fn put(&mut self, intent: &Intent, condition: Condition, kind: impl FnOnce(Value) -> Kind) {
        let value = self.state.new_value(intent.size);
        let content = content(value, intent.size);
        let operation = self.state.begin(self.number, self.machine, &intent.key, kind(value));
        let options = PutOptions { condition, ..PutOptions::default() };
        let outcome = match self.node.put("default", &intent.key, content.as_slice(), options).await {
            Ok(stored) => {
                self.state.learn_etag(stored.etag, value);
                self.client.saw(&intent.key, Some(value));
                Outcome::Done
            }
            Err(Error::Precondition { current }) => {
                let current = current.and_then(|etag| self.state.value_of(&etag));
                if current.is_some() {
                    self.client.saw(&intent.key, current);
                }
                Outcome::Precondition(current)
            }
            Err(error) => self.failed("put", &error),
        };
        self.state.end(operation, outcome);
    }

    async fn remove(&mut self, key: &str) {
        let operation = self.state.begin(self.number, self.machine, key, Kind::Remove);
        let outcome = match self.node.remove("default", key).await {
            Ok(()) => {
                self.client.saw(key, None);
                Outcome::Done
            }
            Err(Error::NotFound { .. }) => Outcome::NotFound,
            Err(error) => self.failed("remove", &error),
        };
        self.state.end(operation, outcome);
    }

    /// What an error means for what was asked.
    fn failed(&self, what: &str, error: &Error) -> Outcome {
        self.state.event(&format!("{what} failed"));
        self.state.note(&format!("client {}: {what}: {error}", self.number));
        match error {
            Error::NotEnoughNodes { .. }
            | Error::NoSpace(_)
            | Error::Timeout(_)
            | Error::Busy(_)
            | Error::ChunkUnavailable { .. }
            | Error::NoSuchBucket(_) => Outcome::Failed,
            _ => Outcome::Unknown,
        }
    }

    async fn read(&mut self, key: &str, part: Option<(u32, u32)>) {
        let operation = self.state.begin(self.number, self.machine, key, Kind::Read);
        let outcome = match read(&self.state, &self.node, key, part).await {
            Ok(Seen::Value(value)) => {
                self.client.saw(key, value);
                Outcome::Read(value)
            }
            Ok(Seen::Unknown) => Outcome::Failed,
            Err(error) => {
                self.state.event("read failed");
                self.state.note(&format!("client {}: read: {error}", self.number));
                Outcome::Failed
            }
        };
        self.state.end(operation, outcome);
    }

    /// A list is right for each key: as if each had been read.
    async fn list(&mut self) {
        let keys: Vec<String> = (0..self.state.plan.all_keys()).map(key).collect();
        // Told apart from reads in a trace by the client's number.
        let begin = |key: &String| self.state.begin(500 + self.number, self.machine, key, Kind::Read);
        let operations: Vec<usize> = keys.iter().map(begin).collect();
        match self.node.list("default", ListQuery::default()).await {
            Ok(page) => {
                for (key, operation) in keys.iter().zip(operations) {
                    let shown = page.objects.iter().find(|object| object.key == *key);
                    let outcome = match shown.map(|object| self.state.value_of(&object.etag)) {
                        None => Outcome::Read(None),
                        Some(Some(value)) => Outcome::Read(Some(value)),
                        // Whoever wrote it never heard that it took effect, and nobody has read it yet.
                        Some(None) => Outcome::Failed,
                    };
                    self.state.end(operation, outcome);
                }
            }
            Err(error) => {
                self.state.event("list failed");
                self.state.note(&format!("client {}: list: {error}", self.number));
                operations.into_iter().for_each(|operation| self.state.end(operation, Outcome::Failed));
            }
        }
    }
}

/// What a read saw.
pub(crate) enum Seen {
    /// This value, or nothing.
    Value(Option<Value>),
    /// Part of a value that can't be told from it: whoever wrote it never heard that it took effect, and nobody
    /// has read its beginning yet.
    Unknown,
}

/// Reads an object, or a part of it (in thousandths), and checks every byte.
pub(crate) async fn read(
    state: &State,
    node: &Node,
    key: &str,
    part: Option<(u32, u32)>,
) -> Result<Seen, Error> {
    let range = match part {
        None => None,
        Some((from, to)) => match node.stat("default", key, Consistency::Linearizable).await {
            Ok(info) => Some(ByteRange::Inclusive(
                info.size * u64::from(from) / 1000,
                (info.size * u64::from(to) / 1000).saturating_sub(1).max(info.size * u64::from(from) / 1000),
            )),
            Err(Error::NotFound { .. }) => return Ok(Seen::Value(None)),
            Err(error) => return Err(error),
        },
    };
    let mut object = match node.get("default", key, range, Consistency::Linearizable).await {
        Ok(object) => object,
        Err(Error::NotFound { .. }) => return Ok(Seen::Value(None)),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let failed = loop {
        match object.next().await {
            None => break None,
            Some(Ok(piece)) => bytes.extend_from_slice(&piece),
            Some(Err(error)) => break Some(error),
        }
    };
    let value = check_bytes(state, key, &object.info, &bytes, object.range.start, failed.is_none());
    match failed {
        Some(error) => Err(error),
        None => Ok(value.map_or(Seen::Unknown, |value| Seen::Value(Some(value)))),
    }
}

/// Whose value these bytes are; what was delivered before a failure must be right, too.
fn check_bytes(
    state: &State,
    key: &str,
    info: &ObjectInfo,
    bytes: &[u8],
    start: u64,
    whole: bool,
) -> Option<Value> {
    let told = bytes.get(..8).filter(|_| start == 0);
    let told = told.map(|head| Value(u64::from_le_bytes(head.try_into().expect("eight bytes"))));
    let value = state.value_of(&info.etag).or(told)?;
    let is_right = state.size_of(value) == Some(info.size)
        && told.is_none_or(|told| told == value)
        && content(value, info.size).get(start as usize..start as usize + bytes.len()) == Some(bytes);
    if !is_right {
        state.breaks(format!("wrong bytes of {key}: {} from {start} are not those of {value}", bytes.len()));
    }
    if whole {
        state.learn_etag(info.etag, value);
    }
    Some(value)
}

/// The bytes of a value: its number, then what looks random.
pub(crate) fn content(value: Value, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    blake3::Hasher::new().update(&value.0.to_le_bytes()).finalize_xof().fill(&mut bytes);
    let head = value.0.to_le_bytes();
    let most = head.len().min(bytes.len());
    bytes[..most].copy_from_slice(&head[..most]);
    bytes
}
