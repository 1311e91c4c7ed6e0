//! Peers made by hand: TLS with any key, any protocol name and any bytes.

use std::{net::SocketAddr, sync::Arc};

use pando_net::Identity;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs::{default_provider, sign::any_eddsa_type},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::world::anywhere;

/// The key as a "certificate" and a signer.
fn certified(identity: &Identity) -> Arc<CertifiedKey> {
    let pkcs8 =
        [b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20", &identity.to_bytes()[..]];
    let id = identity.node_id();
    let spki = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", &id.as_bytes()[..]];
    let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.concat())).unwrap();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki.concat())], signer))
}

/// Dials, with this key and protocol name.
pub(crate) async fn dial(
    identity: &Identity,
    address: SocketAddr,
    protocol: Option<&[u8]>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(identity))));
    config.alpn_protocols = protocol.into_iter().map(<[u8]>::to_vec).collect();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("raw.invalid").unwrap();
    Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?.into())
}

/// A member's connection on which a lane was taken.
pub(crate) async fn lane(identity: &Identity, address: SocketAddr, lane: u8) -> TlsStream<TcpStream> {
    let mut tls = dial(identity, address, Some(b"pando/1")).await.unwrap();
    tls.write_all(&[lane]).await.unwrap();
    assert_eq!(tls.read_u8().await.unwrap(), lane);
    tls
}

/// Whatever comes until the connection ends.
pub(crate) async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// A node that takes each lane it is asked for and then says `says`, and nothing else.
pub(crate) async fn server(identity: Identity, says: Vec<u8>) -> SocketAddr {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anyone))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(&identity))));
    config.alpn_protocols = vec![b"pando/1".to_vec()];
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, says) = (acceptor.clone(), says.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let lane = tls.read_u8().await.unwrap();
                tls.write_all(&[lane]).await.unwrap();
                // The request first, so that what is said answers it.
                let _ = tls.read_u8().await;
                let _ = tls.write_all(&says).await;
                rest(&mut tls).await;
            });
        }
    });
    address
}

/// Checks nothing.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
