//! `pando up`: runs a node until a signal ends it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use pando_core::access::Grants;
use pando_gateway::{DEFAULT_S3, Gateway, Options, StartError};
use pando_node::{AccessKey, Config, DEFAULT_GRACE, Ended, FIRST_BUCKET, Node, Started};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    args,
    control::{server::Server, share::S3At},
    exit::Failure,
    output::{self, Output},
    signals::Signals,
};

/// How long the ticket is good that is printed at the start.
const FIRST_TICKET: Duration = Duration::from_secs(3600);
/// How long the start may wait for that ticket: a node without a majority of the others can't make one.
const TICKET_PATIENCE: Duration = Duration::from_secs(3);
/// How long a node that has left still answers its control socket: twice as long as counting objects takes
/// a status at most.
const LINGER: Duration = Duration::from_secs(4);
/// How long stopping may take.
const STOP: Duration = Duration::from_secs(30);

pub(crate) async fn run(up: args::Up, data: PathBuf, out: &mut Output) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    raise_file_limit();
    let faces = up.faces;
    let config = Config {
        data: data.clone(),
        listen: up.listen,
        advertise: up.advertise,
        zone: up.zone,
        capacity: up.capacity,
        replicas: up.replicas,
        join: up.join,
        grace: up.grace.unwrap_or(DEFAULT_GRACE),
        dead_after: up.dead_after.0,
        heal_rate: up.heal_rate.0,
    };
    let node = tokio::select! {
        started = Node::start(config) => started.map_err(Failure::from).context("can't start")?,
        _ = signals.next() => return Ok(()),
    };
    let outcome = serve(&node, faces, &data, &mut signals, out).await;
    tokio::select! {
        stopped = timeout(STOP, node.stop()) => match stopped {
            Ok(()) => outcome,
            Err(_) => outcome.and_then(|()| bail!("stopping took longer than {} s", STOP.as_secs())),
        },
        name = signals.next() => bail!("{name} while stopping: ended at once"),
    }
}

/// Serves until a signal or the end of a drain (well) or a failure of the node (not well).
async fn serve(
    node: &Node,
    faces: args::Faces,
    data: &Path,
    signals: &mut Signals,
    out: &mut Output,
) -> anyhow::Result<()> {
    let s3 = S3At::default();
    let server = Server::start(node.clone(), data, s3.clone()).context("can't make the control socket")?;
    let gateway = open(node, faces).await?;
    s3.set(&gateway);
    let running = async {
        announce(node, &gateway, data, server.path(), out).await?;
        end(node, out).await
    };
    let outcome = tokio::select! {
        ended = running => ended,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping");
            Ok(())
        }
    };
    let stopped = async { tokio::join!(server.stop(), gateway.stop()) };
    tokio::select! {
        _ = stopped => outcome,
        name = signals.next() => bail!("{name} while stopping: ended at once"),
    }
}

/// Opens the node's HTTP faces. Where nobody said a port, any will do.
async fn open(node: &Node, faces: args::Faces) -> anyhow::Result<Gateway> {
    let (s3, any) = match faces.s3 {
        Some(args::S3At(address)) => (address, None),
        None => {
            let usual: SocketAddr = DEFAULT_S3.parse().context("the usual address of S3")?;
            (Some(usual), Some(SocketAddr::new(usual.ip(), 0)))
        }
    };
    let options =
        Options { s3, http: faces.http, tls: faces.tls_cert.zip(faces.tls_key), domains: faces.s3_domains };
    match (Gateway::start(node.clone(), options.clone()).await, any) {
        (Err(StartError::Listen { address, .. }), Some(any)) if Some(address) == s3 => {
            Ok(Gateway::start(node.clone(), Options { s3: Some(any), ..options }).await?)
        }
        (started, _) => Ok(started?),
    }
}

/// Each connection, chunk and peer takes a file descriptor, and the usual soft limit (1024) is for programs that wait
/// for them with `select`. Where it can't be raised, the limits of connections still hold.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Waits for the node's own end, and says what it means.
async fn end(node: &Node, out: &mut Output) -> anyhow::Result<()> {
    match node.ended().await {
        Ended::DiskFailed(why) => bail!("the node can't go on: {why}"),
        Ended::Removed => bail!(
            "this node was removed from its network, and what it held is copied from the others; to use this \
             machine again, join with a new data folder (`pando up --join TICKET --data DIR`), then delete \
             this one"
        ),
        Ended::Left => {
            let line = "drained: this node holds nothing any more and has left the network";
            out.either(&json!({ "id": node.id().to_string(), "ended": "left" }), line)
                .and_then(|()| out.flush())
                .or_else(unheard)?;
            // Those who follow the drain by asking this very node are to see its end.
            tokio::time::sleep(LINGER).await;
            Ok(())
        }
    }
}

/// Whoever started the node and closed its stdout still wants it to do its work.
fn unheard(error: anyhow::Error) -> anyhow::Result<()> {
    if error.is::<output::StdoutClosed>() { Ok(()) } else { Err(error) }
}

/// Says who this is, and what to type on the next machine.
async fn announce(
    node: &Node,
    gateway: &Gateway,
    data: &Path,
    control: &Path,
    out: &mut Output,
) -> anyhow::Result<()> {
    let ticket = match timeout(TICKET_PATIENCE, node.invite(FIRST_TICKET)).await {
        Ok(Ok(ticket)) => Some(ticket.to_string()),
        Ok(Err(error)) => {
            tracing::info!(%error, "no ticket now");
            None
        }
        Err(_) => None,
    };
    let started = match node.started_as() {
        Started::Made => "made",
        Started::Joined => "joined",
        Started::Resumed => "resumed",
    };
    let key = match (node.started_as(), gateway.s3_addr()) {
        (Started::Made, Some(_)) => Some(node.create_key("first", Grants::All).await?),
        _ => None,
    };
    let (s3, http) = (gateway.s3_url(), gateway.http_addr());
    let printed = if out.json {
        let s3 = s3.map(|endpoint| {
            json!({
                "endpoint": endpoint,
                "access_key": key.as_ref().map(|key| key.info.id.clone()),
                "secret_key": key.as_ref().map(|key| key.secret.reveal()),
                "bucket": key.as_ref().map(|_| FIRST_BUCKET),
            })
        });
        out.value(&json!({
            "id": node.id().to_string(),
            "network": node.network().to_string(),
            "started": started,
            "listen": node.listen_addr().to_string(),
            "advertised": node.advertised().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "data": data.to_string_lossy(),
            "control": control.to_string_lossy(),
            "ticket": ticket,
            "s3": s3,
            "http": http.map(|address| address.to_string()),
        }))
    } else {
        let faces = Announced { s3, http, key };
        announce_to_people(node, started, data, ticket.as_deref(), &faces, out)
    };
    printed.and_then(|()| out.flush()).or_else(unheard)
}

/// The HTTP faces, for people.
struct Announced {
    s3: Option<String>,
    http: Option<SocketAddr>,
    key: Option<AccessKey>,
}

fn announce_to_people(
    node: &Node,
    started: &str,
    data: &Path,
    ticket: Option<&str>,
    faces: &Announced,
    out: &mut Output,
) -> anyhow::Result<()> {
    out.line(format!("node       {} ({started} network {})", node.id().short(), node.network().short()))?;
    out.line(format!("listening  {}", node.listen_addr()))?;
    let reached: Vec<String> = node.advertised().iter().map(ToString::to_string).collect();
    out.line(format!("reached at {}", reached.join(", ")))?;
    out.line(format!("data       {}", data.display()))?;
    if let Some(s3) = &faces.s3 {
        out.line(format!("S3         {s3}"))?;
    }
    if let Some(http) = faces.http {
        out.line(format!("HTTP       {http} (/health, /metrics)"))?;
    }
    if let Some(key) = &faces.key {
        out.line("")?;
        out.line("for S3 clients (shown this once; `pando key create` makes more):")?;
        out.line(format!("  access key {}", key.info.id))?;
        out.line(format!("  secret key {}", key.secret.reveal()))?;
        out.line(format!("  bucket     {FIRST_BUCKET}"))?;
    }
    out.line("")?;
    match ticket {
        Some(ticket) => {
            out.line("on the next machine, within an hour:")?;
            out.line(format!("  pando up --join {ticket}"))
        }
        None => {
            out.line("to add a machine, once a majority of the nodes is up:")?;
            out.line("  pando invite")
        }
    }
}
