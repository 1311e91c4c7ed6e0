//! A trace in words: one line for each move, with what it did to whom.

use crate::{
    client::{Answer, Phase},
    judge::{ballot, name, told},
    node::{Message, Reply},
    rules::{Config, Kind, Mark},
    world::{Action, Fate, Model, World},
};

/// One move in words.
pub(crate) fn tell(model: &Model, before: &World, action: Action, after: &World) -> String {
    match action {
        Action::Begin(client) => {
            let op = model.client(before, client).op(model.config()).unwrap_or_default();
            let what = operation(model.config(), op);
            format!("client {client} begins operation {op}, {what}{}", outcome(model, before, client, after))
        }
        Action::StopWaiting(client) => {
            format!("client {client} stops waiting{}", outcome(model, before, client, after))
        }
        Action::TimeOut(client) => {
            format!("client {client} gives its attempt up{}", outcome(model, before, client, after))
        }
        Action::Conflict(client) => {
            format!("client {client} hears that a majority refuses{}", outcome(model, before, client, after))
        }
        Action::Arrive(client, owner, reply) => {
            let outcome = outcome(model, before, client, after);
            format!("client {client} hears owner {owner}: {}{outcome}", answer(reply))
        }
        Action::Read(client, owner, reply) => {
            let outcome = outcome(model, before, client, after);
            format!("client {client} reads from owner {owner}: {}{outcome}", answer(reply))
        }
        Action::Exchange(message, owner, reply, fate) => {
            let end = match fate {
                Fate::Heard => {
                    let asker = message.mark().map_or(0, Mark::client);
                    let outcome = outcome(model, before, asker, after);
                    format!("{}{outcome}", answer(reply))
                }
                Fate::Lost if reply == Reply::Silent => "done".to_string(),
                Fate::Lost => format!("{}; the reply is lost", answer(reply)),
                Fate::DiskFails => "its disk fails, nothing is written".to_string(),
            };
            format!("{} reaches owner {owner}: {end}", sent(message))
        }
        Action::Restart(owner) => {
            let (held, floor) = (model.node(after, owner).held(0), model.node(after, owner).floor());
            format!("owner {owner} dies and restarts with {}, floor {floor}", told(held))
        }
    }
}

pub(crate) fn operation(config: &Config, op: u8) -> String {
    let Some(op) = op.checked_sub(1).and_then(|index| config.ops().nth(usize::from(index))) else {
        return "nothing".to_string();
    };
    let what = match op.kind {
        Kind::Put => "put".to_string(),
        Kind::PutIfAbsent => "put if absent".to_string(),
        Kind::PutIf(other) => format!("put if the last write was {other}"),
        Kind::Delete => "delete".to_string(),
        Kind::Read => "read".to_string(),
    };
    format!("{what} (register {})", op.register)
}

pub(crate) fn sent(message: Message) -> String {
    match message {
        Message::Prepare(mark) => format!("prepare {}", ballot(mark)),
        Message::Accept(mark, chain) => format!("accept {}", told(Some((mark, chain)))),
        Message::Learn(_, mark, chain) => format!("learn {}", told(Some((mark, chain)))),
        Message::Read(_) => "a read".to_string(),
    }
}

pub(crate) fn answer(reply: Reply) -> String {
    match reply {
        Reply::Value(held, height) => format!("it holds {}, height {height}", told(held)),
        Reply::Promised(held) => format!("promised, it holds {}", told(held)),
        Reply::Accepted => "accepted".to_string(),
        Reply::Refused(above) => format!("refused, go above {above}"),
        Reply::Silent => "silence".to_string(),
    }
}

/// What a client's step led it to, if it went on.
fn outcome(model: &Model, before: &World, client: usize, after: &World) -> String {
    let (was, is) = (model.client(before, client), model.client(after, client));
    if was.phase() == is.phase() {
        return String::new();
    }
    match is.phase() {
        Phase::Idle => " => its operation is over".to_string(),
        Phase::Reading => " => it reads".to_string(),
        Phase::Preparing(mark) => format!(" => it prepares {}", ballot(*mark)),
        Phase::Accepting(mark, Answer::Saw(chain)) => {
            format!(" => it writes {} back at {}", name(*chain), ballot(*mark))
        }
        Phase::Accepting(mark, _) => format!(" => it proposes at {}", ballot(*mark)),
    }
}
