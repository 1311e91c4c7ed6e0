//! A client of S3 that costs little: one connection that is kept, one request at a time, signed.

use std::{
    convert::Infallible,
    io::Read as _,
    pin::Pin,
    task::{Context as Poller, Poll},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    content::{Content, Reader},
    sigv4::{self, Signer, UNSIGNED},
};

/// How long an answer, or the next piece of one, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a large body may take.
const TRANSFER: Duration = Duration::from_secs(300);
/// Bytes of a large body that are handed to the connection at once.
const PIECE: usize = 256 << 10;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Account(Signer);

impl Account {
    pub(crate) fn new(id: String, secret: String) -> Self {
        Self(Signer::new(id, secret))
    }
}

/// Whom to ask, HOST:PORT, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) account: Account,
}

/// A connection.
pub(crate) struct Client {
    endpoint: Endpoint,
    sender: SendRequest<Either<Full<Bytes>, Stream>>,
}

/// A condition of a put: that there is no such object.
pub(crate) const IF_ABSENT: (&str, &str) = ("if-none-match", "*");

/// What is asked for; both parts as they are signed.
#[derive(Clone, Copy)]
struct Target<'a> {
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    fn object(path: &'a str) -> Self {
        Self { path, query: "" }
    }
}

impl Client {
    pub(crate) async fn connect(endpoint: Endpoint) -> anyhow::Result<Self> {
        let connected = async {
            let tcp = TcpStream::connect(&endpoint.address).await?;
            tcp.set_nodelay(true)?;
            anyhow::Ok(handshake(TokioIo::new(tcp)).await?)
        };
        let connected = timeout(PATIENCE, connected).await.context("S3 does not answer")?;
        let (sender, connection) =
            connected.with_context(|| format!("can't connect to {}", endpoint.address))?;
        // It ends with the sender.
        tokio::spawn(connection);
        Ok(Self { endpoint, sender })
    }

    /// Puts a few bytes.
    pub(crate) async fn put(&mut self, path: &str, content: Bytes, conditional: bool) -> anyhow::Result<()> {
        let hash = sigv4::sha256(&content);
        let condition = conditional.then_some(IF_ABSENT);
        let body = Either::Left(Full::new(content));
        let response = self.send(Method::PUT, Target::object(path), condition, &hash, body, PATIENCE).await?;
        whole(response).await.map(drop)
    }

    /// Puts a large content.
    pub(crate) async fn put_content(&mut self, path: &str, content: &Content) -> anyhow::Result<()> {
        let body = Either::Right(Stream { reader: content.reader(), left: content.size });
        let response = self.send(Method::PUT, Target::object(path), None, UNSIGNED, body, TRANSFER).await?;
        whole(response).await.map(drop)
    }

    /// Gets a few bytes.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let response = self
            .send(Method::GET, Target::object(path), None, &sigv4::sha256(b""), nothing(), PATIENCE)
            .await?;
        whole(response).await
    }

    /// Gets a large content and checks it.
    pub(crate) async fn get_content(&mut self, path: &str, content: &Content) -> anyhow::Result<()> {
        let response = self
            .send(Method::GET, Target::object(path), None, &sigv4::sha256(b""), nothing(), PATIENCE)
            .await?;
        let mut body = response.into_body();
        let mut at = 0;
        while let Some(frame) = timeout(PATIENCE, body.frame()).await.context("S3 sends no more")? {
            let Ok(data) = frame.context("S3 broke off")?.into_data() else { continue };
            content.check(at, &data, false)?;
            at += data.len() as u64;
        }
        if at == content.size { Ok(()) } else { bail!("{at} bytes came, not {}", content.size) }
    }

    /// A page of the keys that begin with `prefix/`, after this one.
    pub(crate) async fn list(
        &mut self,
        bucket: &str,
        prefix: &str,
        after: &str,
    ) -> anyhow::Result<Vec<String>> {
        let after = after.replace('/', "%2F");
        let query = format!("list-type=2&max-keys=1000&prefix={prefix}%2F&start-after={after}");
        let target = Target { path: &format!("/{bucket}"), query: &query };
        let hash = sigv4::sha256(b"");
        let page = whole(self.send(Method::GET, target, None, &hash, nothing(), PATIENCE).await?).await?;
        let text = std::str::from_utf8(&page).context("S3 sent no text")?;
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next());
        Ok(keys.map(str::to_owned).collect())
    }

    /// Removes an object.
    pub(crate) async fn remove(&mut self, path: &str) -> anyhow::Result<()> {
        let hash = sigv4::sha256(b"");
        whole(self.send(Method::DELETE, Target::object(path), None, &hash, nothing(), PATIENCE).await?)
            .await
            .map(drop)
    }

    /// Sends a request; the answer's head, if it is a good one.
    async fn send(
        &mut self,
        method: Method,
        target: Target<'_>,
        condition: Option<(&str, &str)>,
        hash: &str,
        body: Either<Full<Bytes>, Stream>,
        patience: Duration,
    ) -> anyhow::Result<Response<Incoming>> {
        let stamp = sigv4::stamp(SystemTime::now());
        let Target { path, query } = target;
        let Endpoint { address, account } = &self.endpoint;
        let mut headers: Vec<(&str, &str)> = vec![("host", address)];
        headers.extend(condition);
        headers.extend([("x-amz-content-sha256", hash), ("x-amz-date", &stamp)]);
        let signed = sigv4::Request { method: method.as_str(), path, query, headers: &headers, hash };
        let authorization = account.0.authorization(&signed, &stamp);
        let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.header("authorization", authorization).body(body).context("a request")?;
        let answered = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let response = timeout(patience, answered).await.context("S3 does not answer")?;
        let response = response.context("S3 did not answer")?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let why = whole(response).await.unwrap_or_default();
        bail!("S3 says {status} to {path}: {}", String::from_utf8_lossy(&why))
    }
}

fn nothing() -> Either<Full<Bytes>, Stream> {
    Either::Left(Full::new(Bytes::new()))
}

async fn whole(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let body = timeout(PATIENCE, response.into_body().collect()).await.context("S3 sends no more")?;
    Ok(body.context("S3 broke off")?.to_bytes())
}

/// A large body on its way out.
pub(crate) struct Stream {
    reader: Reader,
    left: u64,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut piece = vec![0; self.left.min(PIECE as u64) as usize];
        if piece.is_empty() {
            return Poll::Ready(None);
        }
        let read = self.reader.read(&mut piece).unwrap_or(0);
        piece.truncate(read);
        self.left -= read as u64;
        Poll::Ready((read > 0).then(|| Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
