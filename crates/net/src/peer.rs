//! One peer as this endpoint dials it: its addresses, its RPC lane, its unused stream connections.
//!
//! Callers that need the RPC lane at once share one dial, which is a task of its own: a caller that gives up
//! does not take it away from the others.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use pando_core::id::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    conn::{RPC, STREAM},
    context::Context,
    dial::{Purpose, dial},
    error::Error,
    rpc::client::Lane,
    stream::{
        client::{Exchange, Origin},
        pool::Pool,
    },
    sys::{Instant, timeout_at},
};

/// See the file's header.
pub(crate) struct Peer {
    id: NodeId,
    addresses: Mutex<Vec<SocketAddr>>,
    lane: Mutex<Slot>,
    pool: Arc<Pool>,
    places: Arc<Semaphore>,
}

type Dialed = Option<Result<Arc<Lane>, Error>>;

enum Slot {
    Empty,
    Dialing(watch::Receiver<Dialed>),
    Up(Arc<Lane>),
}

impl Peer {
    pub(crate) fn new(context: &Context, id: NodeId) -> Self {
        let limits = &context.limits;
        Self {
            id,
            addresses: Mutex::default(),
            lane: Mutex::new(Slot::Empty),
            pool: Arc::new(Pool::new(limits.idle, limits.idle_streams)),
            places: Arc::new(Semaphore::new(limits.streams_per_peer)),
        }
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// One exchange on the RPC lane, dialed if need be. A lane that ended before the request was sent is
    /// replaced once.
    pub(crate) async fn call(
        self: &Arc<Self>,
        context: &Arc<Context>,
        request: Bytes,
        by: Instant,
    ) -> Result<Bytes, Error> {
        let lane = self.lane(context, by).await?;
        match lane.call(request.clone(), by).await {
            Err(Error::Closed { sent: false, .. }) => self.lane(context, by).await?.call(request, by).await,
            other => other,
        }
    }

    /// Begins an exchange on the stream lane. An unused connection that turns out broken costs nothing: the
    /// header can't have reached the peer whole, so it goes out again on the next.
    pub(crate) async fn open(
        &self,
        context: &Arc<Context>,
        request: &Bytes,
        body_len: u64,
        by: Instant,
    ) -> Result<Exchange, Error> {
        let limits = &context.limits;
        let mut place = self.place(by).await?;
        loop {
            let (unused, generation) = self.pool.take();
            let fresh = unused.is_none();
            let conn = match unused {
                Some(conn) => conn,
                None => self.dial_stream(context, by).await?,
            };
            let origin = Origin { pool: Arc::clone(&self.pool), generation, place };
            match Exchange::begin(conn, origin, request, body_len, by, limits).await {
                Ok(exchange) => return Ok(exchange),
                Err((Error::Closed { .. }, origin)) if !fresh => place = origin.place,
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Closes what is open towards the peer. Exchanges under way on the stream lane run to their end.
    pub(crate) fn disconnect(&self, why: &Error) {
        self.pool.clear();
        let slot = std::mem::replace(&mut *self.slot(), Slot::Empty);
        if let Slot::Up(lane) = slot {
            lane.close(why);
        }
    }

    async fn place(&self, by: Instant) -> Result<OwnedSemaphorePermit, Error> {
        let place = timeout_at(by, Arc::clone(&self.places).acquire_owned()).await;
        let late = |_| Error::Timeout { what: "a place among the exchanges with the peer", sent: false };
        place.map_err(late)?.map_err(|_| Error::ShutDown)
    }

    async fn dial_stream(&self, context: &Arc<Context>, by: Instant) -> Result<crate::conn::Conn, Error> {
        let addresses = self.addresses();
        let dialing = dial(context, self.id, &addresses, Purpose::Lane(STREAM));
        timeout_at(by, dialing).await.unwrap_or(Err(late_dial()))
    }

    async fn lane(self: &Arc<Self>, context: &Arc<Context>, by: Instant) -> Result<Arc<Lane>, Error> {
        let mut dialed = match self.up_or_dialing(context) {
            Ok(lane) => return Ok(lane),
            Err(dialed) => dialed,
        };
        let dialed = match timeout_at(by, dialed.wait_for(Option::is_some)).await {
            Err(_) => return Err(late_dial()),
            Ok(Ok(dialed)) => dialed.clone(),
            Ok(Err(_)) => None,
        };
        // The dialing task ends without a word only when all tasks are ended.
        dialed.unwrap_or(Err(Error::ShutDown))
    }

    /// The live lane, or the dial that is to bring it: the one under way, or a new one.
    fn up_or_dialing(self: &Arc<Self>, context: &Arc<Context>) -> Result<Arc<Lane>, watch::Receiver<Dialed>> {
        let mut slot = self.slot();
        match &*slot {
            Slot::Up(lane) if !lane.is_over() => return Ok(Arc::clone(lane)),
            Slot::Dialing(dialed) => return Err(dialed.clone()),
            Slot::Up(_) | Slot::Empty => {}
        }
        let (tell, told) = watch::channel(None);
        *slot = Slot::Dialing(told.clone());
        drop(slot);
        let (peer, context) = (Arc::clone(self), Arc::clone(context));
        let tasks = context.tasks.clone();
        tasks.spawn(|_| async move {
            let addresses = peer.addresses();
            let conn = dial(&context, peer.id, &addresses, Purpose::Lane(RPC)).await;
            let lane = conn.map(|conn| Lane::start(&context, conn));
            peer.settle(&tell, lane);
        });
        Err(told)
    }

    /// A dial has ended. If it is not the one waited for any more, its lane is closed again.
    fn settle(&self, tell: &watch::Sender<Dialed>, lane: Result<Arc<Lane>, Error>) {
        let mut slot = self.slot();
        let ours = matches!(&*slot, Slot::Dialing(told) if told.same_channel(&tell.subscribe()));
        if ours {
            *slot = lane.clone().map_or(Slot::Empty, Slot::Up);
        }
        drop(slot);
        let lane = match lane {
            Ok(lane) if !ours => {
                let why = Error::Closed { why: "disconnected while dialing".to_owned(), sent: false };
                lane.close(&why);
                Err(why)
            }
            other => other,
        };
        tell.send_replace(Some(lane));
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn late_dial() -> Error {
    Error::Timeout { what: "a connection to the peer", sent: false }
}
