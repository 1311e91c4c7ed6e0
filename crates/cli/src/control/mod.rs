//! The control socket: how every other command talks to the running node, over a Unix socket in the
//! data folder with mode 0600.
//!
//! A connection carries one version byte, then requests and replies in turn. Messages and content are
//! frames ([`frame`]); [`message`] is what the messages say, [`report`] what they say about the network, [`keys`] about access keys,
//! [`share`] about links.
//! [`server`] accepts, [`serve`] answers, [`client`] asks ([`remote`]: for other programs), [`upload`] sends a put's content,
//! [`pages`] asks for the next page of a listing in time;
//! [`places`] bounds how much goes on at once. Who may connect is the file system's matter: mode 0600, in a folder of mode 0700
//! until it has that mode.

pub(crate) mod client;
mod frame;
pub(crate) mod keys;
mod members;
pub(crate) mod message;
pub(crate) mod pages;
mod path;
mod places;
pub(crate) mod remote;
pub(crate) mod report;
mod serve;
pub(crate) mod server;
pub(crate) mod share;
mod upload;

pub(crate) use client::Client;
