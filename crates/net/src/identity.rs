//! A node's key. Owns making it, reading it, and proving it in a handshake; keeping it in a file is the
//! caller's, with mode 0600.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    encoding::{AsBigEndian, Curve25519SeedBin},
    signature::{Ed25519KeyPair, KeyPair},
};
use pando_core::id::NodeId;
use rustls::{
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use crate::{error::Error, sys};

const SEED: usize = 32;

/// What stands before the seed in a PKCS#8 (RFC 8410) private key without a public key.
const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// What stands before the public key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// An Ed25519 key: who a node is. Its public half is the [`NodeId`].
///
/// `Debug` shows the id and never the secret.
pub struct Identity {
    seed: [u8; SEED],
    id: NodeId,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// A new identity from the system's random source.
    pub fn generate() -> Self {
        let seed: [u8; SEED] = sys::random();
        Self::from_bytes(&seed).expect("any 32 bytes are an Ed25519 seed")
    }

    /// The identity with this 32-byte seed, as [`Identity::to_bytes`] gives it, or in this PKCS#8 document
    /// (version 1 or 2).
    ///
    /// # Errors
    /// [`Error::Identity`] if the bytes are neither.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let bad = |why: &dyn fmt::Display| Error::Identity(why.to_string());
        let seed = match <[u8; SEED]>::try_from(bytes) {
            Ok(seed) => seed,
            Err(_) => seed_of_pkcs8(bytes)?,
        };
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|why| bad(&why))?;
        let public = pair.public_key().as_ref();
        let id = NodeId(public.try_into().map_err(|_| bad(&"a public key of another length"))?);
        let pkcs8 = [&PKCS8[..], &seed].concat();
        let signer = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))
            .map_err(|why| bad(&why))?;
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki(&id))], signer));
        Ok(Self { seed, id, certified })
    }

    /// The 32-byte seed: the secret itself.
    pub fn to_bytes(&self) -> [u8; SEED] {
        self.seed
    }

    /// The public half.
    pub fn node_id(&self) -> NodeId {
        self.id
    }

    /// What TLS signs with; its "certificate" is the public key (RFC 7250).
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

fn seed_of_pkcs8(bytes: &[u8]) -> Result<[u8; SEED], Error> {
    let bad = |why: &dyn fmt::Display| Error::Identity(why.to_string());
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map_err(|why| bad(&why))?;
    let seed = pair.seed().map_err(|why| bad(&why))?;
    let raw: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|why| bad(&why))?;
    raw.as_ref().try_into().map_err(|_| bad(&"a seed of another length"))
}

/// The SubjectPublicKeyInfo of a node's key.
fn spki(id: &NodeId) -> Vec<u8> {
    [&SPKI[..], id.as_bytes()].concat()
}

/// The node whose key this SubjectPublicKeyInfo holds; `None` for any other kind of key.
pub(crate) fn node_of_spki(spki: &[u8]) -> Option<NodeId> {
    Some(NodeId(spki.strip_prefix(&SPKI)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_bytes() {
        let identity = Identity::generate();
        let again = Identity::from_bytes(&identity.to_bytes()).unwrap();
        assert_eq!(identity.node_id(), again.node_id());
        assert_ne!(identity.node_id(), Identity::generate().node_id());
        assert!(matches!(Identity::from_bytes(b"short"), Err(Error::Identity(_))));
    }

    #[test]
    fn pkcs8_is_read_too() {
        let identity = Identity::generate();
        let version_1 = [&PKCS8[..], &identity.to_bytes()].concat();
        assert_eq!(Identity::from_bytes(&version_1).unwrap().node_id(), identity.node_id());
        let version_2 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(version_2.as_ref()).unwrap();
        let identity = Identity::from_bytes(version_2.as_ref()).unwrap();
        assert_eq!(identity.node_id().as_bytes(), pair.public_key().as_ref());
    }

    #[test]
    fn the_known_key_of_rfc_8032() {
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let id = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(Identity::from_bytes(&seed).unwrap().node_id().to_string(), id);
    }

    #[test]
    fn debug_keeps_the_secret() {
        let identity = Identity::generate();
        let shown = format!("{identity:?} {:?}", identity.certified());
        assert!(shown.contains(&identity.node_id().short()));
        let secret: String = identity.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(&secret) && !shown.contains(&format!("{:?}", identity.to_bytes())));
    }

    #[test]
    fn only_an_ed25519_key_is_a_node() {
        let id = Identity::generate().node_id();
        assert_eq!(node_of_spki(&spki(&id)), Some(id));
        assert_eq!(node_of_spki(&spki(&id)[..43]), None);
        assert_eq!(node_of_spki(&[0; 44]), None);
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }
}
