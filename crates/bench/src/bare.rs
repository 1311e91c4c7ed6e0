//! A server that does nothing but answer: `hyper`, 4 KiB, whatever is asked. What a node's HTTP is compared with. It
//! runs as a process of its own, so that what it costs is its own, too.

use std::{convert::Infallible, io::Write as _, net::Ipv4Addr, process::ExitCode};

use anyhow::Context as _;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{
    content::Noise,
    helper::{self, Process},
    s3::{Account, Endpoint},
};

/// What this program is called by when it is to be the server.
pub(crate) const BARE: &str = "pando-bench-bare";
/// What it answers: the first of a small object's contents.
pub(crate) const ANSWER: usize = 4 << 10;

/// The server, running.
pub(crate) struct Bare {
    process: Process,
    address: String,
}

impl Bare {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (process, address) = helper::start(BARE)?;
        Ok(Self { process, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where it is. It does not look at signatures; they are there so that the client's work is the same.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let account = Account::new("nobody".to_owned(), "nothing".to_owned());
        Endpoint { address: self.address.clone(), account }
    }
}

/// The server itself.
pub(crate) fn main() -> ExitCode {
    helper::serve(serve())
}

async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("can't listen")?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let answer = Bytes::copy_from_slice(&Noise::start::<ANSWER>());
    loop {
        let (tcp, _) = listener.accept().await.context("can't accept")?;
        tcp.set_nodelay(true)?;
        let answer = answer.clone();
        let service = service_fn(move |_| {
            let answer = Full::new(answer.clone());
            async move { Ok::<_, Infallible>(Response::new(answer)) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
    }
}
