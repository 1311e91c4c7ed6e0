//! A server that does nothing but answer: `hyper`, 4 KiB, whatever is asked. What a node's HTTP is compared with. It
//! runs as a process of its own, so that what it costs is its own, too.

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{
    cluster::Process,
    content::Noise,
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
        let own = std::env::current_exe().context("can't find this program")?;
        let child = Command::new(own).arg0(BARE).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = Process(child.context("can't start the bare server")?);
        let stdout = process.0.stdout.take().context("stdout is no pipe")?;
        // It says one line or ends.
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("the bare server says nothing")?;
        ensure!(line.ends_with('\n'), "the bare server did not start");
        Ok(Self { process, address: line.trim().to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Where it is. It does not look at signatures; they are there so that the client's work is the same.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let account = Account::new("nobody".to_owned(), "nothing".to_owned());
        Endpoint { address: self.address.clone(), account }
    }
}

/// The server itself.
pub(crate) fn main() -> ExitCode {
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")
        .and_then(|runtime| runtime.block_on(serve()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
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
