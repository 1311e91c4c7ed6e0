//! TLS as nodes speak it: 1.3 only, AES-GCM, both sides proven by a raw Ed25519 public key (RFC 7250), no
//! resumption (every connection proves its key anew).
//!
//! Owns the configurations and the verifiers. Who may come in is asked of the endpoint's owner.

use std::sync::Arc;

use pando_core::id::NodeId;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError,
    PeerMisbehaved, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use crate::{
    error::Error,
    identity::{Identity, node_of_spki},
};

/// Members talk under this name.
pub(crate) const MEMBERS: &[u8] = b"pando/1";
/// Who wants to become a member asks under this one.
pub(crate) const JOIN: &[u8] = b"pando-join/1";

/// Whether a node may come in.
pub(crate) type Admits = Arc<dyn Fn(&NodeId) -> bool + Send + Sync>;

/// What both sides need for a handshake.
pub(crate) struct Tls {
    identity: Arc<Identity>,
    provider: Arc<CryptoProvider>,
    members: Arc<ServerConfig>,
    join: Arc<ServerConfig>,
}

impl Tls {
    pub(crate) fn new(identity: Arc<Identity>, admits: Admits) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let members = server(&identity, &provider, MEMBERS, Some(admits))?;
        let join = server(&identity, &provider, JOIN, None)?;
        Ok(Self { identity, provider, members, join })
    }

    pub(crate) fn node_id(&self) -> NodeId {
        self.identity.node_id()
    }

    /// The configuration that answers a ClientHello with these protocol names.
    pub(crate) fn server<'a>(
        &self,
        mut offered: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Arc<ServerConfig>> {
        offered.find_map(|name| match name {
            MEMBERS => Some(Arc::clone(&self.members)),
            JOIN => Some(Arc::clone(&self.join)),
            _ => None,
        })
    }

    /// The configuration that dials `peer` and nobody else.
    pub(crate) fn client(&self, peer: NodeId, protocol: &[u8]) -> Result<Arc<ClientConfig>, Error> {
        let verifier = Arc::new(Verifier { algorithms: ed25519_only(), accept: Accept::Only(peer) });
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                self.identity.certified(),
            )));
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}

/// A name is asked for and never sent: the key is what is checked.
pub(crate) fn no_name() -> ServerName<'static> {
    ServerName::try_from("node.pando.invalid").expect("a valid DNS name")
}

/// The node at the other end of a handshake that is done.
pub(crate) fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<NodeId> {
    node_of_spki(certificates?.first()?)
}

fn server(
    identity: &Identity,
    provider: &Arc<CryptoProvider>,
    protocol: &[u8],
    admits: Option<Admits>,
) -> Result<Arc<ServerConfig>, Error> {
    let accept = admits.map_or(Accept::Anyone, Accept::Admitted);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(Verifier { algorithms: ed25519_only(), accept }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.certified())));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn unusable(why: TlsError) -> Error {
    Error::Identity(format!("TLS can't use it: {why}"))
}

/// Of the algorithms that the provider can verify, Ed25519.
fn ed25519_only() -> WebPkiSupportedAlgorithms {
    let all = aws_lc_rs::default_provider().signature_verification_algorithms.mapping;
    let at = all.iter().position(|(scheme, _)| *scheme == SignatureScheme::ED25519);
    let at = at.expect("aws-lc-rs verifies Ed25519");
    WebPkiSupportedAlgorithms { all: all[at].1, mapping: &all[at..=at] }
}

/// AES first: every machine that runs a node has it in hardware. The post-quantum hybrid exchange first:
/// traffic recorded today is ciphertext that must stay so, and it costs a tenth of a millisecond per dial.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

enum Accept {
    Only(NodeId),
    Admitted(Admits),
    Anyone,
}

/// Checks that the other side holds the key it shows, and that this key may be here.
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    accept: Accept,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.accept {
            Accept::Only(_) => "Verifier(pinned)",
            Accept::Admitted(_) => "Verifier(members)",
            Accept::Anyone => "Verifier(anyone)",
        })
    }
}

impl Verifier {
    fn check_key(&self, key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<NodeId, TlsError> {
        match node_of_spki(key) {
            Some(node) if more.is_empty() => Ok(node),
            _ => Err(TlsError::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    /// The signature first, then whether the key may be here: who does not hold a key is not told whether
    /// it is a member's.
    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let node = self.check_key(key, &[])?;
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        let valid = verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)?;
        let accepted = match &self.accept {
            Accept::Only(peer) => *peer == node,
            Accept::Admitted(admits) => admits(&node),
            Accept::Anyone => true,
        };
        // The alert for this is `access_denied`: the other side learns that it was understood and refused.
        let refused = TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        if accepted { Ok(valid) } else { Err(refused) }
    }
}

/// TLS 1.2 is never negotiated.
fn no_tls12() -> Result<HandshakeSignatureValid, TlsError> {
    Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.check_key(end_entity, intermediates).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.check_key(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
