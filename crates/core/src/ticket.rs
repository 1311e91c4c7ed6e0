//! Tickets: one string that lets one machine join. Whoever holds it may use it, once, until it expires.
//!
//! Owns the text form: `pando1` and the base32 (RFC 4648, lower case) of postcard and a four-byte
//! BLAKE3 checksum, so that a typing error is told from a wrong ticket.

use std::{fmt, net::SocketAddr, str::FromStr};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use crate::{
    id::{NetworkId, NodeId, WriteId},
    layout::MAX_ADDRESSES,
};

const PREFIX: &str = "pando1";
/// Longest ticket text that is looked at.
const MAX_TEXT: usize = 1024;

/// An invitation to one network.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The network.
    pub network: NetworkId,
    /// Who invites: the connection is pinned to this key.
    pub inviter: NodeId,
    /// Where the inviter is.
    pub addresses: Vec<SocketAddr>,
    /// What proves the invitation.
    pub secret: [u8; 32],
    /// Unix milliseconds after which it is worthless.
    pub expires: u64,
}

/// A text that is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not look like one at all.
    #[error("this is not a ticket: a ticket starts with \"{PREFIX}\" and comes from `pando invite`")]
    NotATicket,
    /// It looks like one, but something was lost or changed.
    #[error("the ticket is damaged: copy it whole, from \"{PREFIX}\" to its end")]
    Damaged,
}

impl Ticket {
    /// The name of the invite's register: a hash, so that the register does not tell the secret.
    pub fn invite_id(secret: &[u8; 32]) -> WriteId {
        let hash = blake3::derive_key("pando 1 invite id", secret);
        WriteId(hash[..16].try_into().expect("16 of 32 bytes"))
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    blake3::hash(bytes).as_bytes()[..4].try_into().expect("4 of 32 bytes")
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_stdvec(self).expect("a ticket is plain data");
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("inviter", &self.inviter).finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let code = text.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        if code.len() > MAX_TEXT {
            return Err(TicketError::NotATicket);
        }
        let bytes =
            BASE32_NOPAD.decode(code.to_ascii_uppercase().as_bytes()).map_err(|_| TicketError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(TicketError::Damaged)?;
        if checksum(body) != *sum {
            return Err(TicketError::Damaged);
        }
        let ticket: Ticket = postcard::from_bytes(body).map_err(|_| TicketError::Damaged)?;
        if ticket.addresses.is_empty() || ticket.addresses.len() > MAX_ADDRESSES {
            return Err(TicketError::Damaged);
        }
        Ok(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_print_and_parse_and_notice_damage() {
        let ticket = Ticket {
            network: NetworkId([1; 16]),
            inviter: NodeId([2; 32]),
            addresses: vec!["192.0.2.7:7433".parse().unwrap(), "[2001:db8::1]:7433".parse().unwrap()],
            secret: [3; 32],
            expires: 1_800_000_000_000,
        };
        let text = ticket.to_string();
        assert!(text.len() < 256 && text.chars().all(|c| c.is_ascii_alphanumeric()), "{text}");
        assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
        assert_eq!("hello".parse::<Ticket>(), Err(TicketError::NotATicket));
        assert_eq!(text[..text.len() - 3].parse::<Ticket>(), Err(TicketError::Damaged));
        let other = if &text[20..21] == "a" { "b" } else { "a" };
        let swapped = format!("{}{other}{}", &text[..20], &text[21..]);
        assert_eq!(swapped.parse::<Ticket>(), Err(TicketError::Damaged));
        assert!(!format!("{ticket:?}").contains("secret"));
    }
}
