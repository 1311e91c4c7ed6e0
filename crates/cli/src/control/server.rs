//! The listening end of the control socket: makes the socket, accepts, bounds how many clients there are.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pando_node::Node;
use tokio::{
    net::UnixListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    path::{ShortPath, socket_path},
    places::Places,
    serve::{self, Service},
    share::S3At,
};

/// How long clients in mid-request may finish when the node stops.
const FINISH: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The control socket of a running node.
pub(crate) struct Server {
    path: PathBuf,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Makes the socket and serves it. The caller holds the data folder's lock, so a socket that is there
    /// is a dead node's and is replaced.
    pub(crate) fn start(node: Node, data: &Path, s3: S3At) -> io::Result<Self> {
        let path = socket_path(data);
        let listener = bind(&path)?;
        let (stop, stopping) = watch::channel(false);
        let service = Service { node, places: Arc::default(), s3, stopping };
        let accepting = tokio::spawn(accept(service, listener));
        Ok(Self { path, stop, accepting })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes no more clients, lets those in mid-request finish for a moment, and ends the others at once.
    pub(crate) async fn stop(self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.stop.send(true);
        let _ = self.accepting.await;
    }
}

/// Binds in a private folder first, so that the socket is never there with another mode than 0600, and
/// moves it over whatever is in its place.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let folder = path.with_extension("new");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::DirBuilder::new().mode(0o700).create(&folder)?,
    }
    let new = folder.join("s");
    let bound = (|| {
        let listener = UnixListener::bind(ShortPath::new(&new)?.as_path())?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        fs::rename(&new, path)?;
        Ok(listener)
    })();
    let _ = fs::remove_dir_all(&folder);
    bound
}

async fn accept(service: Service, listener: UnixListener) {
    let places: Arc<Places> = Arc::clone(&service.places);
    let mut stopping = service.stopping.clone();
    let mut clients = JoinSet::new();
    loop {
        let next = async {
            let place = places.client().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => break,
            Some(_) = clients.join_next() => {}
            (place, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let serving = serve::connection(service.clone(), stream);
                    clients.spawn(async move {
                        if let Err(error) = serving.await {
                            tracing::debug!(%error, "control connection ended");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket can't accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let all = async { while clients.join_next().await.is_some() {} };
    let _ = timeout(FINISH, all).await;
    clients.shutdown().await;
}
