//! Clients of a bucket that keeps versions: they put, remove, and remove versions for good, and look at all of it.
//!
//! What an object is at a time follows from too many things here to be judged as one register. Judged is every version by
//! itself: one that was acknowledged and that nobody removed is there, with its bytes, and is listed once; one whose
//! removal was acknowledged is gone for good.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use pando_node::{
    Condition, Consistency, Error, Node, Object, PutOptions, VersionEntry, VersionId, VersionsQuery,
    core::{bucket::Versioning, id::WriteId},
};

use crate::{client::key, history::Value, rng::Rng, users::content, world::State};

/// What is known of a version: what was put (`None`: it is a delete marker), and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    value: Option<Value>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    /// Its removal was asked for, and perhaps not done.
    Asked,
    Removed,
}

/// All versions that were acknowledged, by key and id.
#[derive(Default)]
pub(crate) struct Book(RefCell<BTreeMap<(String, WriteId), Version>>);

impl Book {
    fn put(&self, key: &str, id: WriteId, value: Option<Value>) {
        let mut book = self.0.borrow_mut();
        // Someone may have seen it in a list and removed it before its put was answered.
        book.entry((key.to_owned(), id)).or_insert(Version { value, fate: Fate::Kept }).value = value;
    }

    fn get(&self, key: &str, id: WriteId) -> Option<Version> {
        self.0.borrow().get(&(key.to_owned(), id)).copied()
    }

    fn set(&self, key: &str, id: WriteId, fate: Fate) {
        let mut book = self.0.borrow_mut();
        book.entry((key.to_owned(), id)).or_insert(Version { value: None, fate }).fate = fate;
    }

    fn of(&self, key: &str, fate: Fate) -> Vec<(WriteId, Option<Value>)> {
        let book = self.0.borrow();
        let of_key = book.iter().filter(|((of, _), version)| of == key && version.fate == fate);
        of_key.map(|((_, id), version)| (*id, version.value)).collect()
    }
}

/// One client.
pub(crate) struct User {
    pub(crate) state: Rc<State>,
    pub(crate) number: u32,
    pub(crate) node: Node,
}

impl User {
    pub(crate) async fn run(&self, rng: &mut Rng) {
        let suspends = self.state.plan.seed.is_multiple_of(3);
        let mut is_versioned = false;
        loop {
            tokio::time::sleep(Duration::from_millis(rng.between(1, 300))).await;
            if self.state.clients_ended() {
                return;
            }
            if !self.state.clients_run() {
                continue;
            }
            if !is_versioned {
                is_versioned = self.set(Versioning::Enabled).await;
                continue;
            }
            let key = key(rng.below(u64::from(self.state.plan.keys)) as u32);
            match rng.weighted(&[34, 8, 26, 16, 6, 8, 2]) {
                0 => self.put(&key, if rng.chance(20) { rng.between(20 << 10, 90 << 10) } else { 30 }).await,
                1 => self.remove(&key).await,
                2 => self.remove_version(&key, rng).await,
                3 => self.read(&key, rng).await,
                4 => self.read_current(&key).await,
                5 => drop(self.list(&key).await),
                _ if suspends => {
                    let versioning = if rng.chance(50) { Versioning::Suspended } else { Versioning::Enabled };
                    self.set(versioning).await;
                }
                _ => {}
            }
        }
    }

    async fn set(&self, versioning: Versioning) -> bool {
        let change = |settings: &mut pando_node::core::bucket::Settings| {
            settings.versioning = versioning;
            Ok(())
        };
        self.heard("versioning", self.node.change_bucket("default", change).await).is_some()
    }

    /// What was answered; a failure is noted.
    fn heard<T>(&self, what: &str, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.state.event(&format!("{what} failed"));
                self.state.note(&format!("client {}: {what}: {error}", self.number));
                None
            }
        }
    }

    fn done(&self, what: &str, key: &str, id: impl std::fmt::Display) {
        self.state.event(what);
        self.state.note(&format!("client {}: {what} {key} {id}", self.number));
    }

    async fn put(&self, key: &str, size: u64) {
        let value = self.state.new_value(size);
        let bytes = content(value, size);
        let put = self.node.put("default", key, bytes.as_slice(), PutOptions::default()).await;
        if let Some(stored) = self.heard("put", put) {
            self.state.learn_etag(stored.etag, value);
            if let Some(VersionId::Id(id)) = stored.version {
                self.state.book.put(key, id, Some(value));
            }
            self.done("put", key, stored.etag);
        }
    }

    async fn remove(&self, key: &str) {
        let removed = self.node.remove_version("default", key, None, Condition::None).await;
        if let Some(removed) = self.heard("remove", removed)
            && let Some(VersionId::Id(id)) = removed.version
        {
            self.state.book.put(key, id, None);
            self.done("remove", key, id);
        }
    }

    /// One of the newest, or any.
    async fn remove_version(&self, key: &str, rng: &mut Rng) {
        let version = if rng.chance(60) {
            let query = VersionsQuery { prefix: key.to_owned(), limit: 3, ..VersionsQuery::default() };
            let Some(page) = self.heard("list", self.node.list_versions("default", query).await) else {
                return;
            };
            let of_key: Vec<VersionId> =
                page.entries.iter().filter(|e| e.info.key == key).filter_map(|e| e.info.version).collect();
            if of_key.is_empty() {
                return;
            }
            of_key[rng.below(of_key.len() as u64) as usize]
        } else {
            let kept = self.state.book.of(key, Fate::Kept);
            if kept.is_empty() {
                return;
            }
            VersionId::Id(kept[rng.below(kept.len() as u64) as usize].0)
        };
        if let VersionId::Id(id) = version {
            self.state.book.set(key, id, Fate::Asked);
        }
        self.state.note(&format!("client {}: removes version {key} {version}", self.number));
        let removed = self.node.remove_version("default", key, Some(version), Condition::None).await;
        if self.heard("remove version", removed).is_some() {
            if let VersionId::Id(id) = version {
                self.state.book.set(key, id, Fate::Removed);
            }
            self.done("remove version", key, version);
        }
    }

    async fn read(&self, key: &str, rng: &mut Rng) {
        let fate = if rng.chance(70) { Fate::Kept } else { Fate::Removed };
        let of_key = self.state.book.of(key, fate);
        if !of_key.is_empty() {
            let (id, value) = of_key[rng.below(of_key.len() as u64) as usize];
            if let Err(why) = self.read_version(key, id, value, fate).await {
                self.heard::<()>("read", Err(why));
            }
        }
    }

    /// Reads a version that was kept, or removed, before; checks what comes back.
    async fn read_version(
        &self,
        key: &str,
        id: WriteId,
        value: Option<Value>,
        fate: Fate,
    ) -> Result<(), Error> {
        let got = self.node.get_version("default", key, Some(VersionId::Id(id)), None).await;
        let is_kept = || self.state.book.get(key, id).is_some_and(|version| version.fate == Fate::Kept);
        match (got, fate) {
            (Ok(_) | Err(Error::NotFound { .. }), Fate::Removed) => {
                self.state.breaks(format!("{key}: version {id} was removed for good, and is back"));
            }
            (Err(Error::NoSuchVersion { .. }), Fate::Removed) => {}
            (Ok(object), _) => {
                let bytes = read_all(object).await?;
                let size = value.and_then(|value| self.state.size_of(value)).unwrap_or(0);
                if value.is_none_or(|value| content(value, size) != bytes) {
                    self.state.breaks(format!("{key}: version {id} has wrong bytes"));
                }
            }
            (Err(Error::NotFound { marker, .. }), _) if marker.is_some() && value.is_none() => {}
            (Err(Error::NoSuchVersion { .. } | Error::NotFound { .. }), _) if is_kept() => {
                self.state.breaks(format!("{key}: version {id} was acknowledged, and is lost"));
            }
            (Err(Error::NoSuchVersion { .. }), _) => {}
            (Err(error), _) => return Err(error),
        }
        Ok(())
    }

    async fn read_current(&self, key: &str) {
        let object = match self.node.get("default", key, None, Consistency::Linearizable).await {
            Ok(object) => object,
            Err(Error::NotFound { .. }) => return,
            Err(error) => {
                self.heard::<()>("read", Err(error));
                return;
            }
        };
        let (etag, size) = (object.info.etag, object.info.size);
        let Some(bytes) = self.heard("read", read_all(object).await) else { return };
        if self.state.value_of(&etag).is_some_and(|value| content(value, size) != bytes) {
            self.state.breaks(format!("{key}: wrong bytes of {etag}"));
        }
    }

    /// All versions of a key; checks that each is there once that was kept all the time, and none that was removed.
    async fn list(&self, key: &str) -> Option<Vec<VersionEntry>> {
        let [kept, removed] = [Fate::Kept, Fate::Removed].map(|fate| self.state.book.of(key, fate));
        let (mut entries, mut after) = (Vec::new(), None);
        loop {
            let query = VersionsQuery { prefix: key.to_owned(), after, limit: 7, ..VersionsQuery::default() };
            let page = self.heard("list", self.node.list_versions("default", query).await)?;
            entries.extend(page.entries.into_iter().filter(|entry| entry.info.key == key));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let times = |id: &WriteId| entries.iter().filter(|entry| entry.info.etag == *id).count();
        // Whatever is put and removed meanwhile: a page goes on below the place at which the one before it ended, and a
        // version keeps its place.
        if let Some(twice) = entries.iter().map(|entry| entry.info.etag).find(|id| times(id) > 1) {
            self.state.breaks(format!("{key}: version {twice} is listed {} times", times(&twice)));
        }
        for (id, _) in removed {
            if times(&id) > 0 {
                self.state.breaks(format!("{key}: version {id} was removed for good, and is listed"));
            }
        }
        for (id, _) in kept {
            let is_kept = self.state.book.get(key, id).is_some_and(|version| version.fate == Fate::Kept);
            if is_kept && times(&id) == 0 {
                self.state.breaks(format!("{key}: version {id} was acknowledged, and is not listed"));
            }
        }
        Some(entries)
    }
}

async fn read_all(mut object: Object) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = object.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

/// What must hold at the end, seen from one node.
pub(crate) async fn check(state: &Rc<State>, number: u32, node: &Node) -> Result<(), String> {
    let user = User { state: Rc::clone(state), number: 1000 + number, node: node.clone() };
    for key in (0..state.plan.keys).map(key) {
        let Some(entries) = user.list(&key).await else { return Err(format!("{key} can't be listed")) };
        let mut ids: Vec<WriteId> = entries.iter().map(|entry| entry.info.etag).collect();
        ids.sort_unstable();
        ids.dedup();
        let latest = entries.iter().filter(|entry| entry.is_latest).count();
        let is_first = entries.first().is_none_or(|entry| entry.is_latest);
        let nulls = entries.iter().filter(|entry| entry.info.version == Some(VersionId::Null)).count();
        if ids.len() != entries.len() || latest > 1 || !is_first || nulls > 1 {
            return Err(format!("{key} lists strangely: {entries:?}"));
        }
        for fate in [Fate::Kept, Fate::Removed] {
            for (id, value) in state.book.of(&key, fate) {
                let read = user.read_version(&key, id, value, fate).await;
                read.map_err(|error| format!("{key}, version {id} from machine {number}: {error}"))?;
            }
        }
        user.read_current(&key).await;
    }
    Ok(())
}
