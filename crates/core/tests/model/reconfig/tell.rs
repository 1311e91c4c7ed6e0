//! A trace in words: one line for each move, with what it did to whom.

use super::{Action, Model, World, sync::session};
use crate::{
    client::{Answer, Phase},
    judge::{ballot, name, told},
    layouts::NODES,
    rules::{Held, REGISTERS},
    tell::{answer, operation, sent},
    world::CLIENTS,
};

/// One move in words.
pub(super) fn tell(model: &Model, before: &World, action: Action, after: &World) -> String {
    let done = match action {
        Action::Begin(client, version) => {
            let op = model.client(before, client).op(model.config()).unwrap_or_default();
            let what = operation(model.config(), op);
            format!("client {client} begins operation {op}, {what}, under layout {version}")
        }
        Action::TimeOut(client, version) => {
            format!("client {client} gives its attempt up, and goes on under layout {version}")
        }
        Action::Reread(client, version) => format!("client {client} reads anew under layout {version}"),
        Action::StopWaiting(client) => format!("client {client} stops waiting"),
        Action::Conflict(session) => format!("{} hears that too many refuse", who(session)),
        Action::Chosen(session) => format!("{} hears that enough accepted", who(session)),
        Action::Exchange(message, register, session, node, reply) => {
            let (who, what) = (who(session), sent(message));
            format!("{what} of {who} (register {register}) reaches {}: {}", letter(node), answer(reply))
        }
        Action::Page(node, owner) => {
            format!("{} syncs and is shown what {} holds", letter(node), letter(owner))
        }
        Action::GiveUp(node) => format!("{} gives its attempt to settle up", letter(node)),
        Action::Restart(node) => format!("{} dies and restarts", letter(node)),
        Action::Drop(node) => format!("{} drops its rows", letter(node)),
        Action::Say(register, node) => {
            format!("{} is ready for the purge of register {register}", letter(node))
        }
        Action::Purge(register, node) => {
            format!("{} forgets the tombstone of register {register}", letter(node))
        }
    };
    let mut line = done;
    for session in model.sessions() {
        line += &outcome(model, before, session, after);
    }
    for node in 0..NODES {
        line += &change(model, before, node, after);
    }
    let (was, is) = (model.decided(before), model.decided(after));
    if was != is {
        line += &format!(" => layout {is} may be decided");
    }
    line
}

fn letter(node: usize) -> char {
    (b'a' + node as u8) as char
}

fn who(session_of: usize) -> String {
    match session_of.checked_sub(CLIENTS) {
        Some(node) => {
            debug_assert_eq!(session(node), session_of);
            format!("node {}", letter(node))
        }
        None => format!("client {session_of}"),
    }
}

/// What became of a node.
fn change(model: &Model, before: &World, node: usize, after: &World) -> String {
    let (was, is) = (model.node(before, node), model.node(after, node));
    let mut line = String::new();
    if was.known() != is.known() {
        line += &format!(" => {} knows layout {}", letter(node), is.known());
    }
    for register in 0..REGISTERS as u8 {
        let held: [Held; 2] = [was.held(register), is.held(register)];
        if held[0] != held[1] {
            line += &format!(" => {} holds {} in register {register}", letter(node), told(held[1]));
        }
    }
    line
}

/// What a session's step led it to, if it went on.
fn outcome(model: &Model, before: &World, session: usize, after: &World) -> String {
    let (was, is) = (model.client(before, session), model.client(after, session));
    if was.phase() == is.phase() {
        return String::new();
    }
    let what = match is.phase() {
        Phase::Idle => "is done".to_string(),
        Phase::Reading => "reads".to_string(),
        Phase::Preparing(mark) => format!("prepares {}", ballot(*mark)),
        Phase::Accepting(mark, Answer::Saw(chain)) => {
            format!("writes {} back at {}", name(*chain), ballot(*mark))
        }
        Phase::Accepting(mark, _) => format!("proposes at {}", ballot(*mark)),
    };
    format!(" => {} {what}", who(session))
}
