//! One TLS stream over loopback, as `pando-net` speaks it (TLS 1.3, AES-128-GCM, raw Ed25519 keys, the same buffers),
//! with nothing around it: two threads, blocking sockets.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error as TlsError, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs as provider},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
    version::TLS13,
};

use super::{PIECE, Rate, pieces};
use crate::{content::Noise, process::thread_cpu};

/// What rustls may hold encrypted and unsent: what one write to the socket carries.
const BUFFER: usize = 256 << 10;
/// What is read from the socket at once.
const READ: usize = 128 << 10;
/// How long a peer that says nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A socket that is read in large pieces.
struct Socket(BufReader<TcpStream>);

impl Socket {
    fn new(tcp: TcpStream) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::with_capacity(READ, tcp)))
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What one stream moves, and what both ends cost.
pub(crate) fn stream(noise: &Noise, bytes: u64) -> anyhow::Result<Rate> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("can't listen")?;
    let address = listener.local_addr()?;
    let (client, server) = configs()?;
    let noise = noise.clone();
    let sending = thread::spawn(move || {
        let (tcp, _) = listener.accept()?;
        let mut connection = ServerConnection::new(server).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(BUFFER));
        let mut tls = StreamOwned::new(connection, Socket::new(tcp)?);
        // The handshake is not what is measured.
        tls.read_exact(&mut [0])?;
        let before = thread_cpu();
        let mut sent = 0;
        for piece in pieces(&noise, PIECE, bytes) {
            tls.write_all(piece)?;
            sent += piece.len() as u64;
        }
        tls.conn.send_close_notify();
        tls.flush()?;
        io::Result::Ok((sent, thread_cpu() - before))
    });
    let name = ServerName::try_from("bench.invalid")?;
    let mut connection = ClientConnection::new(client, name)?;
    connection.set_buffer_limit(Some(BUFFER));
    let mut tls = StreamOwned::new(connection, Socket::new(TcpStream::connect(address)?)?);
    tls.write_all(&[1])?;
    tls.flush()?;
    let (began, before) = (Instant::now(), thread_cpu());
    let mut buffer = vec![0; PIECE];
    while tls.read(&mut buffer).context("the TLS stream broke off")? > 0 {}
    let (wall, received) = (began.elapsed(), thread_cpu() - before);
    let (sent, sending) = sending.join().map_err(|_| anyhow::anyhow!("the sending thread died"))??;
    Ok(Rate::new(sent, wall, received + sending))
}

fn configs() -> anyhow::Result<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let suites = vec![provider::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let provider = Arc::new(CryptoProvider { cipher_suites: suites, ..provider::default_provider() });
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).context("a key")?;
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).context("a key")?;
    // SubjectPublicKeyInfo of an Ed25519 key (RFC 8410).
    let spki = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", pair.public_key().as_ref()].concat();
    let signer = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()))?;
    let key = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer));
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    Ok((Arc::new(client), Arc::new(server)))
}

/// Believes whoever answers: both ends are this program, and only what comes after the handshake is measured.
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
        Err(TlsError::General("TLS 1.2 is never spoken".into()))
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
