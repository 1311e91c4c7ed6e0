//! Starting and stopping a node: make a network, join one, or resume; and the handle to it all.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use pando_core::{
    access::Grants,
    bucket::{BucketRecord, Settings},
    id::{NetworkId, NodeId, WriteId},
    layout::{
        Layout, MAX_ADDRESSES, MAX_ZONE, Member, MemberState, Replicas,
        change::{Change, Force},
    },
    record::Digests,
    seal::NetworkKey,
    ticket::Ticket,
    wire::{JoinReply, JoinRequest},
};
use pando_net::{Endpoint, Identity};
use pando_store::{Options, Store};
use tokio::{io::AsyncRead, sync::watch};

use crate::{
    api::{
        AccessKey, BucketInfo, ByteRange, CheckProgress, CheckReport, Condition, Config, Consistency,
        CopyOptions, Ended, KeyInfo, ListPage, ListQuery, NewPart, ObjectInfo, PartInfo, PartPage, Plan,
        PlanQuery, PutOptions, Removed, Status, Stored, UploadInfo, UploadOptions, UploadPage, VersionId,
        VersionPage, VersionsQuery, WantedPart,
    },
    collect,
    error::Error,
    evacuate, files,
    get::Object,
    heal,
    inner::{Inner, REMOVED},
    join, lifecycle,
    members::{self, Said},
    multipart,
    pace::Pace,
    pulse, purge, reconcile, replace, scrub,
    serve::Handler,
    stray, sync, sys,
};

/// Where a node listens if it is told nothing else and the port is free.
pub const DEFAULT_PORT: u16 = 7433;
/// The bucket that every network starts with.
pub const FIRST_BUCKET: &str = "default";
/// How long stopping waits for what is under way.
const STOPPING: Duration = Duration::from_secs(8);
/// How often a node looks whether its store has failed.
const WATCH: Duration = Duration::from_millis(200);

/// Settings that are kept from one start to the next.
mod setting {
    pub(super) const LISTEN: &str = "listen";
    pub(super) const ADVERTISE: &str = "advertise";
}

/// How a node came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It made a network of one.
    Made,
    /// It joined a network.
    Joined,
    /// It was a member already.
    Resumed,
}

/// A running node. Clones are handles to the same one.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
    started: Started,
    advertised: Arc<[SocketAddr]>,
}

impl Node {
    /// Makes, joins or resumes; on return the node listens and serves.
    pub async fn start(config: Config) -> Result<Node, Error> {
        check(&config)?;
        files::make_folder(&config.data)?;
        let identity = files::identity(&config.data)?;
        let options = Options { node: identity.node_id(), capacity: config.capacity };
        let store = Store::open(&config.data, options).await?;
        let started = Self::start_with(&config, store.clone()).await;
        if started.is_err() {
            close(&store).await;
        }
        started
    }

    async fn start_with(config: &Config, store: Store) -> Result<Node, Error> {
        // Read again now that the folder is locked: another process may have made it at the same time.
        let identity = Arc::new(files::identity(&config.data)?);
        let id = identity.node_id();
        let layout = match store.layout().await? {
            Some((_, bytes)) => Some(Layout::decode(&bytes).map_err(|why| Error::Setup(why.to_string()))?),
            None => None,
        };
        check_membership(config, layout.as_ref(), id, store.meta_get(REMOVED).await?.is_some())?;
        let known = layout.as_ref().and_then(|layout| layout.member(&id)).map(|member| member.capacity);
        let capacity = match config.capacity.or(known) {
            Some(capacity) => capacity,
            None => store.disk_free()? + store.used_bytes(),
        };
        store.set_capacity(capacity);
        let pace = Pace::new(config.heal_rate);
        let inner = Arc::new(Inner::new(id, store, capacity, config.grace, pace));
        let endpoint = listen(&inner, identity, config).await?;
        let advertised: Arc<[SocketAddr]> = advertise(&inner, &endpoint, config).await?.into();
        inner.set_endpoint(endpoint);
        let me = Member {
            id,
            addresses: advertised.to_vec(),
            zone: config.zone.clone().unwrap_or_else(|| "default".to_owned()),
            capacity,
            state: MemberState::Active,
        };
        let started = match enter_network(&inner, config, layout, me).await {
            Ok(started) => started,
            Err(error) => {
                // Whoever tries again wants the address back.
                inner.stop();
                let _ = sys::timeout(STOPPING, inner.endpoint().shutdown()).await;
                return Err(error);
            }
        };
        let layout = inner.layout()?;
        pulse::open_book(&inner, &layout, advertised.to_vec()).await;
        inner.spawn_until_stopped(pulse::beat(Arc::clone(&inner)));
        inner.spawn_until_stopped(sync::follow(Arc::clone(&inner)));
        inner.spawn_until_stopped(heal::resync(Arc::clone(&inner)));
        inner.spawn_until_stopped(collect::collect(Arc::clone(&inner)));
        inner.spawn_until_stopped(multipart::sweep(Arc::clone(&inner)));
        inner.spawn_until_stopped(stray::sweep(Arc::clone(&inner)));
        inner.spawn_until_stopped(lifecycle::follow_rules(Arc::clone(&inner)));
        inner.spawn_until_stopped(reconcile::reconcile(Arc::clone(&inner)));
        inner.spawn_until_stopped(evacuate::evacuate(Arc::clone(&inner)));
        inner.spawn_until_stopped(purge::purge(Arc::clone(&inner)));
        inner.spawn_until_stopped(scrub::scrub(Arc::clone(&inner)));
        inner.spawn_until_stopped(replace::leave_when_empty(Arc::clone(&inner)));
        if let Some(dead_after) = config.dead_after {
            inner.spawn_until_stopped(replace::replace(Arc::clone(&inner), dead_after));
        }
        if started == Started::Resumed {
            let said =
                Said { addresses: said_addresses(config, &advertised), zone: config.zone.clone(), capacity };
            inner.spawn_until_stopped(members::update_own(Arc::clone(&inner), said));
        }
        if started == Started::Made {
            inner.create_bucket(FIRST_BUCKET, Settings::default()).await?;
        }
        Ok(Node { inner, started, advertised })
    }

    /// The node's identity.
    pub fn id(&self) -> NodeId {
        self.inner.id
    }

    /// The network it is a member of.
    pub fn network(&self) -> NetworkId {
        self.inner.layout_now().expect("a started node has a layout").network
    }

    /// Where it listens.
    pub fn listen_addr(&self) -> SocketAddr {
        self.inner.endpoint().local_addr()
    }

    /// Where it tells others to find it.
    pub fn advertised(&self) -> Vec<SocketAddr> {
        self.advertised.to_vec()
    }

    /// How it came up.
    pub fn started_as(&self) -> Started {
        self.started
    }

    /// Makes a ticket that admits one node, within the time given.
    pub async fn invite(&self, valid: Duration) -> Result<Ticket, Error> {
        self.inner.invite(valid, self.advertised()).await
    }

    /// Puts an object: on return it is durable on a majority of its owners. The reader's length need not be
    /// known. If the reader fails, or this is dropped, the object stays what it was.
    pub async fn put<R: AsyncRead + Unpin + Send>(
        &self,
        bucket: &str,
        key: &str,
        reader: R,
        options: PutOptions,
    ) -> Result<Stored, Error> {
        self.put_with(bucket, key, reader, options, std::future::ready(Ok(Digests::default()))).await
    }

    /// As [`Node::put`], with hashes of the content that the caller computes on the way. `digests` is awaited
    /// when the reader has ended and all chunks are durable, before the object changes; if it fails, the object
    /// stays what it was ([`Error::Source`]). So what must hold of the whole content is checked there.
    pub async fn put_with<R: AsyncRead + Unpin + Send>(
        &self,
        bucket: &str,
        key: &str,
        reader: R,
        options: PutOptions,
        digests: impl Future<Output = io::Result<Digests>> + Send,
    ) -> Result<Stored, Error> {
        self.inner.put(bucket, key, reader, options, digests).await
    }

    /// Reads an object, or a range of it.
    pub async fn get(
        &self,
        bucket: &str,
        key: &str,
        range: Option<ByteRange>,
        consistency: Consistency,
    ) -> Result<Object, Error> {
        self.inner.get(bucket, key, range, consistency).await
    }

    /// What is known of an object.
    pub async fn stat(&self, bucket: &str, key: &str, consistency: Consistency) -> Result<ObjectInfo, Error> {
        self.inner.stat(bucket, key, consistency).await
    }

    /// What is known of a version of an object; of the current one, if none is named.
    pub async fn stat_version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
    ) -> Result<ObjectInfo, Error> {
        self.inner.stat_version(bucket, key, version).await
    }

    /// Reads a version of an object, or a range of it; the current one, if none is named.
    pub async fn get_version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        range: Option<ByteRange>,
    ) -> Result<Object, Error> {
        self.inner.get_version(bucket, key, version, range).await
    }

    /// Copies an object within the network, onto itself too (with other metadata). No content moves.
    pub async fn copy(
        &self,
        from: (&str, &str),
        to: (&str, &str),
        options: CopyOptions,
    ) -> Result<(Stored, ObjectInfo), Error> {
        self.inner.copy(from, to, options).await
    }

    /// Gives an object, or one of its versions, other tags. It stays the version that it is.
    pub async fn set_tags(
        &self,
        bucket: &str,
        key: &str,
        tags: Vec<(String, String)>,
        version: Option<VersionId>,
    ) -> Result<ObjectInfo, Error> {
        self.inner.set_tags(bucket, key, tags, version).await
    }

    /// Begins an upload in parts; its id.
    pub async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        options: UploadOptions,
    ) -> Result<WriteId, Error> {
        self.inner.create_upload(bucket, key, options).await
    }

    /// An upload that goes on; [`Error::NoSuchUpload`] if it does not.
    pub async fn upload(&self, bucket: &str, key: &str, id: &WriteId) -> Result<UploadInfo, Error> {
        self.inner.upload(bucket, key, id).await
    }

    /// Puts one part of an upload; the last one under a number is the part. `digests`: see [`Node::put_with`].
    pub async fn put_part<R: AsyncRead + Unpin + Send>(
        &self,
        bucket: &str,
        key: &str,
        id: &WriteId,
        part: impl Into<NewPart>,
        reader: R,
        digests: impl Future<Output = io::Result<Digests>> + Send,
    ) -> Result<Stored, Error> {
        self.inner.put_part(bucket, key, id, part.into(), reader, digests).await
    }

    /// Makes a whole object, in this version (current or not), a part, without moving its content. `None`: its shape does not allow
    /// that, and it must be read and put.
    pub async fn copy_part(
        &self,
        from: (&str, &str, WriteId),
        bucket: &str,
        key: &str,
        id: &WriteId,
        number: u16,
    ) -> Result<Option<(Stored, Digests)>, Error> {
        self.inner.copy_part(from, bucket, key, id, number).await
    }

    /// Up to `limit` (at least 1) parts of an upload, numbered above `after`.
    pub async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        id: &WriteId,
        after: u16,
        limit: usize,
    ) -> Result<PartPage, Error> {
        self.inner.list_parts(bucket, key, id, after, limit.max(1)).await
    }

    /// Up to `limit` uploads to keys that start so, after this key, or after this upload to it.
    pub async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, Option<WriteId>)>,
        limit: usize,
    ) -> Result<UploadPage, Error> {
        self.inner.list_uploads(bucket, prefix, after, limit).await
    }

    /// Makes an object of parts; done again, through whatever node, it reports success again. `digests` tells the
    /// object's hashes from those of its parts, or refuses. Sizes of parts are the caller's business.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &WriteId,
        parts: &[WantedPart],
        condition: Condition,
        digests: impl FnOnce(&[PartInfo]) -> Result<Digests, Error> + Send,
    ) -> Result<(Stored, Digests), Error> {
        self.inner.complete_upload(bucket, key, id, parts, condition, digests).await
    }

    /// Ends an upload and frees its parts.
    pub async fn abort_upload(&self, bucket: &str, key: &str, id: &WriteId) -> Result<(), Error> {
        self.inner.abort_upload(bucket, key, id).await
    }

    /// Removes an object; [`Error::NotFound`] if it is not there.
    pub async fn remove(&self, bucket: &str, key: &str) -> Result<(), Error> {
        self.inner.remove_if(bucket, key, Condition::None).await
    }

    /// Removes an object if a condition holds; [`Error::Precondition`] if not.
    pub async fn remove_if(&self, bucket: &str, key: &str, condition: Condition) -> Result<(), Error> {
        self.inner.remove_if(bucket, key, condition).await
    }

    /// Removes an object as its bucket wants it: where versions are, or were, kept a delete marker is put on top, whether
    /// or not there is an object; elsewhere it is [`Error::NotFound`] if there is none. With a version id: removes that
    /// version for good; that it is not there is no error, unless a condition is given.
    pub async fn remove_version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        condition: Condition,
    ) -> Result<Removed, Error> {
        self.inner.remove_version(bucket, key, version, condition).await
    }

    /// Lists all versions and delete markers of a bucket.
    pub async fn list_versions(&self, bucket: &str, query: VersionsQuery) -> Result<VersionPage, Error> {
        self.inner.list_versions(bucket, query).await
    }

    /// Lists a bucket.
    pub async fn list(&self, bucket: &str, query: ListQuery) -> Result<ListPage, Error> {
        self.inner.list(bucket, query).await
    }

    /// Makes a bucket.
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), Error> {
        self.create_bucket_with(bucket, Settings::default()).await
    }

    /// Makes a bucket that behaves so from the first moment.
    pub async fn create_bucket_with(&self, bucket: &str, settings: Settings) -> Result<(), Error> {
        self.inner.create_bucket(bucket, settings).await
    }

    /// Fails with [`Error::NoSuchBucket`] if there is no such bucket.
    pub async fn check_bucket(&self, bucket: &str) -> Result<(), Error> {
        self.inner.check_bucket(bucket).await
    }

    /// A bucket, with how it behaves. Fails with [`Error::NoSuchBucket`] if there is no such bucket.
    pub async fn bucket(&self, bucket: &str) -> Result<BucketRecord, Error> {
        self.inner.bucket(bucket).await
    }

    /// Changes how a bucket behaves, atomically: `change` may see the settings several times, and is applied once.
    pub async fn change_bucket(
        &self,
        bucket: &str,
        change: impl FnMut(&mut Settings) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        self.inner.change_bucket(bucket, change).await
    }

    /// Lists all buckets.
    pub async fn list_buckets(&self, consistency: Consistency) -> Result<Vec<BucketInfo>, Error> {
        self.inner.list_buckets(consistency).await
    }

    /// Removes a bucket that holds no object, no version of one and no delete marker. Uploads in parts that go on in it are aborted.
    pub async fn remove_bucket(&self, bucket: &str) -> Result<(), Error> {
        self.inner.remove_bucket(bucket).await
    }

    /// Makes an access key; only this answer and [`Node::access_key`] tell its secret.
    pub async fn create_key(&self, name: &str, grants: Grants) -> Result<AccessKey, Error> {
        self.inner.create_key(name, grants).await
    }

    /// Lists the access keys, in order of id.
    pub async fn list_keys(&self) -> Result<Vec<KeyInfo>, Error> {
        self.inner.list_keys().await
    }

    /// The access key with this id; [`Error::NoSuchKey`] if there is none, also if no key could have that id.
    pub async fn access_key(&self, id: &str) -> Result<AccessKey, Error> {
        self.inner.access_key(id).await
    }

    /// Removes an access key; [`Error::NoSuchKey`] if it is not there.
    pub async fn remove_key(&self, id: &str) -> Result<(), Error> {
        self.inner.remove_key(id).await
    }

    /// How many members the layout that this node knows lists.
    pub fn members(&self) -> usize {
        self.inner.layout_now().map_or(0, |layout| layout.present().count())
    }

    /// Whether a layout change is under way, as far as this node knows.
    pub fn in_transition(&self) -> bool {
        self.inner.layout_now().is_some_and(|layout| layout.previous.is_some())
    }

    /// How many tombstones (removed objects that are not forgotten yet) this node holds, at most a few
    /// thousand of them.
    pub async fn tombstones(&self) -> Result<usize, Error> {
        Ok(self.inner.store.tombs(u64::MAX, None, usize::MAX).await?.len())
    }

    /// The network at a glance.
    pub async fn status(&self) -> Result<Status, Error> {
        self.inner.status(true).await
    }

    /// As [`Node::status`], without counting the objects: answered from memory, for monitors that ask often.
    pub async fn vitals(&self) -> Result<Status, Error> {
        self.inner.status(false).await
    }

    /// Whether everything can be read and written now, as far as this node knows who is up; else why not.
    pub fn health(&self) -> Result<(), Error> {
        self.inner.health()
    }

    /// The member whose id starts with `text`.
    pub fn find_member(&self, text: &str) -> Result<NodeId, Error> {
        self.inner.find_member(text)
    }

    /// Lets a member give up all that it owns; it leaves by itself once it is empty. `force`: even if fewer
    /// nodes remain than there should be copies.
    pub async fn drain(&self, id: NodeId, force: bool) -> Result<(), Error> {
        self.inner.drain(id, force).await
    }

    /// Lets a draining member stay after all.
    pub async fn stay(&self, id: NodeId) -> Result<(), Error> {
        self.inner.change_members(&Change::Stay(id)).await
    }

    /// Removes a member that is gone; what it held is copied from the others.
    pub async fn remove_node(&self, id: NodeId, force: Force) -> Result<(), Error> {
        self.inner.change_members(&Change::Remove { id, force }).await
    }

    /// What a change of the membership would move.
    pub fn plan(&self, query: &PlanQuery) -> Result<Plan, Error> {
        self.inner.plan(query)
    }

    /// Looks whether every object's record and every chunk is on every owner; `deep`: the owners also read
    /// and verify the bytes. Changes nothing.
    pub async fn check(
        &self,
        deep: bool,
        progress: &watch::Sender<CheckProgress>,
    ) -> Result<CheckReport, Error> {
        self.inner.check(deep, progress).await
    }

    /// Verifies all chunks of this node as fast as it may, from the first; [`Node::status`] tells how far
    /// it is.
    pub fn scrub_now(&self) {
        self.inner.scrub_now();
    }

    /// Ends, with the reason, when the node can't go on: its disk failed, or it is no member any more.
    pub async fn ended(&self) -> Ended {
        let mut layouts = self.inner.layouts();
        let mut was_draining = false;
        loop {
            if let Some(why) = self.inner.store.failed() {
                return Ended::DiskFailed(why);
            }
            let known = layouts.borrow_and_update().clone();
            if let Some(layout) = known {
                let me = layout.member(&self.inner.id);
                was_draining = me.map_or(was_draining, |me| me.state == MemberState::Draining);
                if me.is_none() || self.inner.was_removed() {
                    return if was_draining { Ended::Left } else { Ended::Removed };
                }
            }
            // The layouts don't end before the node, of which this is a handle.
            tokio::select! {
                biased;
                _ = layouts.changed() => {}
                () = sys::sleep(WATCH) => {}
            }
        }
    }

    /// Stops: no new work, what is under way ends or is cut off, the store is closed.
    pub async fn stop(&self) {
        self.inner.stop();
        let _ = sys::timeout(STOPPING, self.inner.endpoint().shutdown()).await;
        close(&self.inner.store).await;
    }
}

async fn close(store: &Store) {
    if let Err(error) = store.close().await {
        tracing::warn!(%error, "the store did not close cleanly");
    }
}

fn check(config: &Config) -> Result<(), Error> {
    if config.zone.as_ref().is_some_and(|zone| zone.is_empty() || zone.len() > MAX_ZONE) {
        return Err(Error::Setup(format!("a zone's name has 1 to {MAX_ZONE} bytes")));
    }
    if config.replicas == Some(Replicas::Count(0)) {
        return Err(Error::Setup("at least one copy of everything is needed".into()));
    }
    Ok(())
}

/// Whether the options fit a node that is (or is not) a member already.
fn check_membership(
    config: &Config,
    layout: Option<&Layout>,
    id: NodeId,
    removed: bool,
) -> Result<(), Error> {
    let Some(layout) = layout else {
        if config.join.is_some() && config.replicas.is_some() {
            return Err(Error::Setup(
                "--replicas is chosen when a network is made; leave it out to join one".into(),
            ));
        }
        return Ok(());
    };
    if removed || layout.member(&id).is_none() {
        return Err(Error::Setup(
            "this node was removed from its network: start with a new data folder and a new ticket".into(),
        ));
    }
    if config.join.as_ref().is_some_and(|ticket| ticket.network != layout.network) {
        return Err(Error::Setup(
            "this data folder belongs to another network than the ticket: use another --data folder".into(),
        ));
    }
    if config.replicas.is_some_and(|replicas| replicas != layout.replicas) {
        return Err(Error::Setup("--replicas is chosen when a network is made and can't be changed".into()));
    }
    Ok(())
}

/// Resumes, joins or makes.
async fn enter_network(
    inner: &Arc<Inner>,
    config: &Config,
    layout: Option<Layout>,
    me: Member,
) -> Result<Started, Error> {
    match (layout, &config.join) {
        (Some(layout), _) => {
            let key = files::network_key(&config.data)?
                .ok_or_else(|| Error::Setup("the network key is missing from the data folder".into()))?;
            inner.set_key(key);
            inner.install_layout(layout).await?;
            Ok(Started::Resumed)
        }
        (None, Some(ticket)) => {
            join_network(inner, &config.data, ticket, me).await?;
            Ok(Started::Joined)
        }
        (None, None) => {
            make_network(inner, &config.data, config.replicas.unwrap_or(Replicas::Count(3)), me).await?;
            Ok(Started::Made)
        }
    }
}

async fn make_network(inner: &Arc<Inner>, data: &Path, replicas: Replicas, me: Member) -> Result<(), Error> {
    let key = NetworkKey(sys::random());
    files::keep_network_key(data, &key)?;
    inner.set_key(key);
    inner.install_layout(Layout::first(NetworkId(sys::random()), replicas, me)).await
}

async fn join_network(inner: &Arc<Inner>, data: &Path, ticket: &Ticket, me: Member) -> Result<(), Error> {
    let request =
        JoinRequest { secret: ticket.secret, addresses: me.addresses, zone: me.zone, capacity: me.capacity };
    match join::ask_to_join(inner, ticket, request).await? {
        JoinReply::Refused(why) => Err(Error::JoinRefused(why)),
        JoinReply::Removed(_) | JoinReply::Undecided(_) => {
            Err(Error::JoinRefused("the answer is none to a newcomer".into()))
        }
        JoinReply::Welcome { key, layout, book } => {
            let layout = Layout::decode(&layout).map_err(|why| Error::Setup(why.to_string()))?;
            if layout.network != ticket.network || layout.member(&inner.id).is_none() {
                return Err(Error::JoinRefused("the answer is not of the ticket's network".into()));
            }
            // The key first: a node that has a layout counts as a member.
            files::keep_network_key(data, &key)?;
            inner.set_key(key);
            inner.peers.learn_addresses(&layout, &book);
            inner.install_layout(layout).await
        }
    }
}

async fn kept_address(inner: &Inner, key: &str) -> Option<SocketAddr> {
    let bytes = inner.store.meta_get(key).await.ok()??;
    std::str::from_utf8(&bytes).ok()?.parse().ok()
}

async fn keep_address(inner: &Inner, key: &str, address: SocketAddr) -> Result<(), Error> {
    Ok(inner.store.meta_put(key, Some(address.to_string().into_bytes().into())).await?)
}

/// Listens where told; else where it did last time; else on the default port, or any other.
async fn listen(inner: &Arc<Inner>, identity: Arc<Identity>, config: &Config) -> Result<Endpoint, Error> {
    let bind = async |address: SocketAddr| {
        let service = Arc::new(Handler(Arc::clone(inner)));
        Endpoint::bind(Arc::clone(&identity), address, pando_net::Limits::default(), service).await
    };
    let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let cannot = |address: SocketAddr, why: pando_net::Error| {
        Error::Setup(format!("can't listen on {address}: {why}; choose another with --listen"))
    };
    let endpoint = match (config.listen, kept_address(inner, setting::LISTEN).await) {
        (Some(address), _) => bind(address).await.map_err(|why| cannot(address, why))?,
        (None, Some(address)) => bind(address).await.map_err(|why| cannot(address, why))?,
        (None, None) => match bind(any(DEFAULT_PORT)).await {
            Ok(endpoint) => endpoint,
            Err(_) => bind(any(0)).await.map_err(|why| cannot(any(0), why))?,
        },
    };
    keep_address(inner, setting::LISTEN, endpoint.local_addr()).await?;
    Ok(endpoint)
}

/// The addresses that the layout should list, if someone said where this node listens. An address that the
/// system picked is for the address book only.
fn said_addresses(config: &Config, advertised: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
    let said = config.advertise.is_some() || config.listen.is_some_and(|listen| listen.port() != 0);
    said.then(|| advertised.to_vec())
}

/// Where others are told to find this node.
async fn advertise(inner: &Inner, endpoint: &Endpoint, config: &Config) -> Result<Vec<SocketAddr>, Error> {
    if let Some(address) = config.advertise {
        keep_address(inner, setting::ADVERTISE, address).await?;
        return Ok(vec![address]);
    }
    if config.listen.is_none()
        && let Some(address) = kept_address(inner, setting::ADVERTISE).await
    {
        return Ok(vec![address]);
    }
    let local = endpoint.local_addr();
    if !local.ip().is_unspecified() {
        return Ok(vec![local]);
    }
    let interfaces = sys::interfaces().unwrap_or_else(|error| {
        tracing::warn!(%error, "this machine's addresses are not known");
        Vec::new()
    });
    let fits = |ip: &IpAddr| ip.is_ipv4() || local.is_ipv6();
    let is_link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let mut ips: Vec<IpAddr> = interfaces.into_iter().filter(fits).collect();
    ips.retain(|ip| !is_link_local(ip));
    // Other machines first; this machine's loopback only when there is nothing else.
    let away: Vec<IpAddr> = ips.iter().copied().filter(|ip| !ip.is_loopback()).collect();
    let chosen = if away.is_empty() { vec![IpAddr::V4(Ipv4Addr::LOCALHOST)] } else { away };
    Ok(chosen.into_iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, local.port())).collect())
}
