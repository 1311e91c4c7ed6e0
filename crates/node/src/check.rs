//! Check: whether every object's record and every chunk is on every owner, seen from one node.
//!
//! Nothing is changed, except that damaged copies that a deep check comes upon are healed like any other.
//! Writes go on meanwhile: what looks wrong is looked at again before it counts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::{
    id::{ChunkId, NodeId, Partition},
    layout::Layout,
    name::RegisterName,
    record::Body,
    register::Ballot,
    wire::{MAX_PAGE, Reply, Request},
};
use tokio::sync::watch;

use crate::{
    api::{CheckProblem, CheckProgress, CheckReport},
    content::Content,
    error::Error,
    inner::{Inner, Message, object_of},
    stray::Beside,
    sys,
};

/// Problems that are told one by one; more are counted.
const TOLD: usize = 100;
/// Chunks in one question.
const BATCH: usize = 1024;
/// Chunks in one question of a deep check: 32 MiB to read and hash, well within an exchange's deadline.
const DEEP_BATCH: usize = 8;
/// How often, and after which pause, a record that its owners show differently is looked at again.
const AGAIN: (usize, Duration) = (5, Duration::from_secs(1));

impl Inner {
    /// See [`crate::Node::check`].
    pub(crate) async fn check(
        self: &Arc<Self>,
        deep: bool,
        progress: &watch::Sender<CheckProgress>,
    ) -> Result<CheckReport, Error> {
        let layout = self.layout()?;
        let report = CheckReport { in_transition: layout.previous.is_some(), ..CheckReport::default() };
        let mut check =
            Check { inner: self, layout, deep, progress, report, copies: 0, asked: BTreeMap::new() };
        check.objects().await?;
        check.ask_all().await;
        check.report.in_transition |= self.layout()?.version != check.layout.version;
        Ok(check.report)
    }
}

/// A check under way.
struct Check<'a> {
    inner: &'a Arc<Inner>,
    layout: Arc<Layout>,
    deep: bool,
    progress: &'a watch::Sender<CheckProgress>,
    report: CheckReport,
    copies: u64,
    /// What each owner is to be asked for, and for which object.
    asked: BTreeMap<NodeId, Vec<(ChunkId, String)>>,
}

impl Check<'_> {
    async fn objects(&mut self) -> Result<(), Error> {
        for prefix in [
            RegisterName::all_objects_prefix(),
            RegisterName::all_versions_prefix(),
            RegisterName::all_uploads_prefix(),
            RegisterName::all_parts_prefix(),
        ] {
            self.all_of(prefix).await?;
        }
        Ok(())
    }

    async fn all_of(&mut self, prefix: Vec<u8>) -> Result<(), Error> {
        let prefix = Bytes::from(prefix);
        let mut after = None;
        loop {
            let shown = self.inner.shown(&self.layout, prefix.clone(), after, MAX_PAGE).await?;
            self.note_unreachable(&shown.unreachable);
            for (name, holders) in &shown.names {
                self.record(name, holders).await?;
                let is_live = holders.values().any(|(_, summary)| summary.is_some());
                // An upload that goes on has no content of its own.
                if is_live && name.upload_parts().is_none() {
                    self.object(name).await?;
                }
            }
            self.tell();
            match shown.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn tell(&self) {
        self.progress.send_replace(CheckProgress {
            objects: self.report.objects,
            copies: self.copies,
            problems: self.report.problem_count,
        });
    }

    fn note_unreachable(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            if !self.report.unreachable.contains(node) {
                self.report.unreachable.push(*node);
            }
        }
    }

    fn problem(&mut self, object: String, chunk: Option<ChunkId>, node: NodeId, what: &str) {
        self.report.problem_count += 1;
        if self.report.problems.len() < TOLD {
            self.report.problems.push(CheckProblem { object, chunk, node, what: what.to_owned() });
        }
    }

    /// Every owner that answers shows the record at the same ballot.
    async fn record(
        &mut self,
        name: &RegisterName,
        shown: &BTreeMap<NodeId, (Ballot, Option<pando_core::record::Summary>)>,
    ) -> Result<(), Error> {
        let owners: Vec<NodeId> = self.layout.owners(name.partition());
        let asked: Vec<NodeId> =
            owners.into_iter().filter(|owner| !self.report.unreachable.contains(owner)).collect();
        let mut held: BTreeMap<NodeId, Option<Ballot>> =
            asked.iter().map(|owner| (*owner, shown.get(owner).map(|(ballot, _)| *ballot))).collect();
        for _ in 0..AGAIN.0 {
            let newest = held.values().max().copied().flatten();
            if held.values().all(|ballot| *ballot == newest) {
                return Ok(());
            }
            sys::sleep(AGAIN.1).await;
            let read = Message::from(Request::Read(self.layout.version, name.clone()));
            for owner in &asked {
                match self.inner.ask(*owner, &read).await {
                    Ok(Reply::Value(accepted, _)) => held.insert(*owner, accepted.map(|a| a.ballot)),
                    // Down by now, or at another layout: the report says so.
                    _ => held.remove(owner),
                };
            }
        }
        let newest = held.values().max().copied().flatten();
        for (owner, _) in held.into_iter().filter(|(_, ballot)| *ballot != newest) {
            self.problem(object_text(name), None, owner, "an older record, or none");
        }
        Ok(())
    }

    /// Notes each of an object's chunks as to be asked for at each of its owners.
    async fn object(&mut self, name: &RegisterName) -> Result<(), Error> {
        let found = match self.inner.read(name).await {
            Ok(found) => found,
            Err(why) => {
                self.problem(
                    object_text(name),
                    None,
                    self.inner.id,
                    &format!("its record can't be read: {why}"),
                );
                return Ok(());
            }
        };
        let (record, version) = match object_of(found.as_ref().map(|accepted| &accepted.value)) {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(()),
            Err(why) => {
                self.problem(
                    object_text(name),
                    None,
                    self.inner.id,
                    &format!("its record is unusable: {why}"),
                );
                return Ok(());
            }
        };
        if record.mark.deleted {
            return Ok(());
        }
        // What a version that is not current is sealed under is the object's name.
        let sealed_under = match name.version_parts() {
            Some((bucket, key, _)) => RegisterName::object(bucket, &key)?,
            None => name.clone(),
        };
        // What is no version of its own is checked elsewhere, or is nothing.
        if name.version_parts().is_some()
            && matches!(
                self.inner.beside(&sealed_under, &record, version).await,
                Ok(Beside::Copy | Beside::Stray)
            )
        {
            return Ok(());
        }
        // Parts of uploads that go on are checked, but are no objects yet.
        self.report.objects += u64::from(name.object_parts().is_some());
        self.report.bytes += record.size;
        let body = record.open(self.inner.key()?, &sealed_under, &version)?;
        if let Err(why) = self.content(name, body, record.size).await {
            let text = format!("the object's list of chunks can't be read: {why}");
            self.problem(object_text(name), None, self.inner.id, &text);
        }
        Ok(())
    }

    async fn content(&mut self, name: &RegisterName, body: Body, size: u64) -> Result<(), Error> {
        if let Body::PartsIn(list, _) = &body {
            self.chunk(name, list.id).await;
        }
        let Some(mut content) = Content::open(self.inner, body, size).await? else { return Ok(()) };
        let mut at = 0;
        loop {
            let mut on_way: Vec<ChunkId> = Vec::new();
            let found = content.chunk_at(self.inner, at, |node, _| on_way.push(node.id)).await;
            for node in on_way {
                self.chunk(name, node).await;
            }
            let Some(found) = found? else { return Ok(()) };
            self.chunk(name, found.chunk.id).await;
            at = found.range.end;
        }
    }

    async fn chunk(&mut self, name: &RegisterName, chunk: ChunkId) {
        self.report.chunks += 1;
        let batch = if self.deep { DEEP_BATCH } else { BATCH };
        for owner in self.layout.owners(Partition::of_chunk(&chunk)) {
            let asked = self.asked.entry(owner).or_default();
            asked.push((chunk, object_text(name)));
            if asked.len() >= batch {
                self.ask(owner).await;
            }
        }
    }

    async fn ask_all(&mut self) {
        let owners: Vec<NodeId> = self.asked.keys().copied().collect();
        for owner in owners {
            self.ask(owner).await;
        }
    }

    async fn ask(&mut self, owner: NodeId) {
        let asked = self.asked.remove(&owner).unwrap_or_default();
        if asked.is_empty() || self.report.unreachable.contains(&owner) {
            return;
        }
        self.copies += asked.len() as u64;
        let chunks = asked.iter().map(|(chunk, _)| *chunk).collect();
        let message = Message::from(Request::Have { chunks, verify: self.deep });
        match self.inner.ask(owner, &message).await {
            Ok(Reply::Held(held)) if held.len() == asked.len() => {
                for ((chunk, object), _) in asked.into_iter().zip(held).filter(|(_, held)| !held) {
                    let what = if self.deep { "missing or damaged" } else { "missing" };
                    self.problem(object, Some(chunk), owner, what);
                }
            }
            Ok(_) => self.note_unreachable(&[owner]),
            Err(why) => {
                tracing::warn!(node = %owner.short(), %why, "not checked");
                self.note_unreachable(&[owner]);
            }
        }
        self.tell();
    }
}

fn object_text(name: &RegisterName) -> String {
    name.object_parts().map_or_else(|| name.to_string(), |(bucket, key)| format!("{bucket}/{key}"))
}
