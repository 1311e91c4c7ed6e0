//! A client that signs by hand (AWS Signature Version 4), and can therefore sign wrongly.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use aws_lc_rs::{digest, hmac};
use data_encoding::HEXLOWER;
use pando_gateway::{Gateway, Options};
use pando_node::{Config, DEFAULT_GRACE, Node, core::access::Grants};
use tempfile::TempDir;
use time::{OffsetDateTime, macros::format_description};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

/// One node with its gateway, and a key that may do everything.
pub(crate) struct Site {
    pub(crate) node: Node,
    pub(crate) gateway: Gateway,
    pub(crate) client: Client,
    _data: TempDir,
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::with(None).await
    }

    /// With a certificate and its key, which speaks TLS.
    pub(crate) async fn with(tls: Option<(PathBuf, PathBuf)>) -> Self {
        let data = TempDir::new().unwrap();
        let config = Config {
            data: data.path().join("node"),
            listen: Some(([127, 0, 0, 1], 0).into()),
            advertise: None,
            zone: None,
            capacity: Some(1 << 40),
            replicas: None,
            join: None,
            grace: DEFAULT_GRACE,
            dead_after: None,
            heal_rate: None,
        };
        let node = Node::start(config).await.unwrap();
        let options = Options {
            s3: Some(([127, 0, 0, 1], 0).into()),
            domains: vec!["s3.example".to_owned()],
            tls,
            ..Options::default()
        };
        let gateway = Gateway::start(node.clone(), options).await.unwrap();
        let address = gateway.s3_addr().unwrap();
        let client = Client::new(&node, address, Grants::All).await;
        Self { node, gateway, client, _data: data }
    }

    /// A client with a key of its own.
    pub(crate) async fn client(&self, grants: Grants) -> Client {
        Client::new(&self.node, self.gateway.s3_addr().unwrap(), grants).await
    }
}

/// Who signs with one key.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) id: String,
    pub(crate) secret: String,
    /// By how many seconds its clock is ahead.
    pub(crate) ahead: i64,
    /// Whom it trusts, if it speaks TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A request in the making.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: &'static str,
    path: String,
    query: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
    unsigned: BTreeMap<String, String>,
    body: Vec<u8>,
    declared_hash: Option<String>,
    respelled: Option<(&'static str, &'static str)>,
    chunks: Option<Vec<Vec<u8>>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What stands in the first element of that name.
    pub(crate) fn element(&self, name: &str) -> String {
        let text = self.text();
        let start = text.find(&format!("<{name}>")).map(|at| at + name.len() + 2);
        start
            .and_then(|start| Some(text[start..start + text[start..].find('<')?].to_owned()))
            .unwrap_or_default()
    }

    /// All that stand in elements of that name.
    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let (open, text) = (format!("<{name}>"), self.text());
        text.split(&open).skip(1).map(|rest| rest.split('<').next().unwrap_or_default().to_owned()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Status and S3's code.
    pub(crate) fn outcome(&self) -> (u16, String) {
        (self.status, self.element("Code"))
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        self
    }
}

impl Call {
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A header that the signature does not cover.
    pub(crate) fn unsigned(mut self, name: &str, value: &str) -> Self {
        self.unsigned.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Writes a part of the query in another way on the wire, which does not change what is signed.
    pub(crate) fn respell(mut self, from: &'static str, to: &'static str) -> Self {
        self.respelled = Some((from, to));
        self
    }

    /// Sends a body in chunks that are signed one by one, and without its length. An empty one is the last.
    pub(crate) fn chunks(mut self, chunks: &[&str]) -> Self {
        self.chunks = Some(chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect());
        self.unsigned("transfer-encoding", "chunked").hash("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    }

    /// Says this in x-amz-content-sha256, whatever the body.
    pub(crate) fn hash(mut self, declared: &str) -> Self {
        self.declared_hash = Some(declared.to_owned());
        self
    }
}

/// A request; `path` is not encoded.
pub(crate) fn call(method: &'static str, path: &str) -> Call {
    Call {
        method,
        path: path.to_owned(),
        query: Vec::new(),
        headers: BTreeMap::new(),
        unsigned: BTreeMap::new(),
        body: Vec::new(),
        declared_hash: None,
        respelled: None,
        chunks: None,
    }
}

fn encode(text: &str, keep_slash: bool) -> String {
    let keep =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (keep_slash && byte == b'/');
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

impl Client {
    async fn new(node: &Node, address: SocketAddr, grants: Grants) -> Self {
        let key = node.create_key("test", grants).await.unwrap();
        Self { address, id: key.info.id, secret: key.secret.reveal(), ahead: 0, tls: None }
    }

    pub(crate) fn stamp(&self) -> String {
        let now = OffsetDateTime::from(SystemTime::now()) + time::Duration::seconds(self.ahead);
        now.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap()
    }

    fn sign(&self, stamp: &str, canonical: &str) -> String {
        let date = &stamp[..8];
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{stamp}\n{date}/us-east-1/s3/aws4_request\n{}",
            sha256(canonical.as_bytes())
        );
        self.sign_text(date, &to_sign)
    }

    /// The signature of a text under the key of a day.
    pub(crate) fn sign_text(&self, date: &str, text: &str) -> String {
        let key = ["us-east-1", "s3", "aws4_request"]
            .iter()
            .fold(hmac(format!("AWS4{}", self.secret).as_bytes(), date), |key, part| hmac(&key, part));
        HEXLOWER.encode(&hmac(&key, text))
    }

    fn query_text(query: &[(String, String)]) -> String {
        let mut pairs: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false)))
            .collect();
        pairs.sort();
        pairs.join("&")
    }

    /// Sends a request with a signature in its headers.
    pub(crate) async fn send(&self, mut call: Call) -> Answer {
        let stamp = self.stamp();
        let hash = call.declared_hash.clone().unwrap_or_else(|| sha256(&call.body));
        call.headers.entry("host".to_owned()).or_insert_with(|| self.address.to_string());
        call.headers.insert("x-amz-date".to_owned(), stamp.clone());
        call.headers.insert("x-amz-content-sha256".to_owned(), hash.clone());
        let names: Vec<&str> = call.headers.keys().map(String::as_str).collect();
        let names = names.join(";");
        let headers: String =
            call.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let (path, query) = (encode(&call.path, true), Self::query_text(&call.query));
        let canonical = format!("{}\n{path}\n{query}\n{headers}\n{names}\n{hash}", call.method);
        let signature = self.sign(&stamp, &canonical);
        let scope = format!("{}/{}/us-east-1/s3/aws4_request", self.id, &stamp[..8]);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}");
        call.unsigned.insert("authorization".to_owned(), authorization);
        if let Some(chunks) = call.chunks.take() {
            call.body = self.framed(&stamp, signature, &chunks);
        }
        self.send_as_is(call).await
    }

    /// Chunks of `aws-chunked`, each signed with the signature before it, in one chunk of HTTP.
    fn framed(&self, stamp: &str, seed: String, chunks: &[Vec<u8>]) -> Vec<u8> {
        let (mut previous, mut framed, date) = (seed, Vec::new(), &stamp[..8]);
        for chunk in chunks {
            let text = format!(
                "AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{date}/us-east-1/s3/aws4_request\n{previous}\n{}\n{}",
                sha256(b""),
                sha256(chunk)
            );
            previous = self.sign_text(date, &text);
            framed.extend(format!("{:x};chunk-signature={previous}\r\n", chunk.len()).into_bytes());
            framed.extend([chunk, &b"\r\n"[..]].concat());
        }
        [format!("{:x}\r\n", framed.len()).as_bytes(), &framed, b"\r\n0\r\n\r\n"].concat()
    }

    /// A URL's path and query that anyone may use for a while.
    pub(crate) fn presign(&self, call: &Call, expires: &str) -> Call {
        let mut call = call.clone();
        let stamp = self.stamp();
        let credential = format!("{}/{}/us-east-1/s3/aws4_request", self.id, &stamp[..8]);
        for (name, value) in [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &stamp),
            ("X-Amz-Expires", expires),
            ("X-Amz-SignedHeaders", "host"),
        ] {
            call.query.push((name.to_owned(), value.to_owned()));
        }
        let (path, query) = (encode(&call.path, true), Self::query_text(&call.query));
        let headers = format!("host:{}\n", self.address);
        let canonical = format!("{}\n{path}\n{query}\n{headers}\nhost\nUNSIGNED-PAYLOAD", call.method);
        call.query.push(("X-Amz-Signature".to_owned(), self.sign(&stamp, &canonical)));
        call
    }

    /// A request as it goes over the wire: head and body.
    pub(crate) fn head_of(&self, call: &Call) -> (String, Vec<u8>) {
        let mut all = call.headers.clone();
        all.entry("host".to_owned()).or_insert_with(|| self.address.to_string());
        all.extend(call.unsigned.clone());
        if !all.contains_key("transfer-encoding") {
            all.entry("content-length".to_owned()).or_insert_with(|| call.body.len().to_string());
        }
        let mut query = Self::query_text(&call.query);
        if let Some((from, to)) = call.respelled {
            assert!(query.contains(from), "{query} has no {from}");
            query = query.replace(from, to);
        }
        let target = match query.as_str() {
            "" => encode(&call.path, true),
            query => format!("{}?{query}", encode(&call.path, true)),
        };
        let head: String = all.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{} {target} HTTP/1.1\r\n{head}connection: close\r\n\r\n", call.method);
        (head, call.body.clone())
    }

    /// Sends a request as it is.
    pub(crate) async fn send_as_is(&self, call: Call) -> Answer {
        let (head, body) = self.head_of(&call);
        let stream = TcpStream::connect(self.address).await.unwrap();
        let bytes = match &self.tls {
            None => exchange(stream, head.as_bytes(), &body).await,
            Some(config) => {
                let name = ServerName::try_from("localhost").unwrap();
                let stream = TlsConnector::from(config.clone()).connect(name, stream).await.unwrap();
                exchange(stream, head.as_bytes(), &body).await
            }
        };
        answer(&bytes)
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &[u8], body: &[u8]) -> Vec<u8> {
    stream.write_all(head).await.unwrap();
    // The server may answer and close before it has read all of it.
    let _ = stream.write_all(body).await;
    let _ = stream.flush().await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// Reads an answer of a connection that was closed after it.
pub(crate) fn answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = bytes[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        body = unchunk(&body);
    }
    Answer { status, headers, body }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if len == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + len]);
        rest = &rest[end + 2 + len + 2..];
    }
    body
}
