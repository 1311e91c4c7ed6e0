//! List: every name that a majority of its partition's owners shows, in order, in pages.
//!
//! Members are asked for their names in a range, the nearest that speak for every partition first (`cover.rs`); the
//! answers are cut at the smallest last name of an answer that was cut off itself, so that nothing is missing below.
//! Where a majority of a name's owners shows the same ballot, that is the value; where they differ, the register is
//! read. A list is right for each name, not a snapshot of all.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use pando_core::{
    bucket::Versioning,
    id::{NodeId, Partition},
    layout::{Layout, Owners},
    name::RegisterName,
    record::{Digests, Headers, Summary, UserMeta},
    register::Ballot,
    summary::summary_of,
    wire::{ListRequest, Listed, MAX_PAGE, Reply, Request},
};
use pando_store::{NameRange, Paged};

use crate::{
    api::{Consistency, ListPage, ListQuery, ObjectInfo},
    error::Error,
    inner::{Inner, Message, PATIENCE, Unanswered},
    serve,
    sys::{self, Instant},
    version::version_id,
};

/// Most entries of one page that is given to a caller.
pub(crate) const PAGE: usize = 1000;
/// Fewer names than this are not asked for at once.
pub(crate) const FEW: usize = 256;
/// Registers that are read at once because their owners differ.
const PARALLEL: usize = 16;
/// How long those that are asked first may take before the others are asked too: longer than a page takes on a busy
/// machine, shorter than a person notices.
const SPARE: Duration = Duration::from_millis(300);
/// Follows every name that starts with what stands before it: no name holds this byte, being UTF-8.
pub(crate) const AFTER_ALL: u8 = 0xff;

/// Names in order, with what they show; tombstones are left out.
pub(crate) struct Names {
    pub(crate) entries: Vec<(RegisterName, Summary)>,
    /// Where the next page starts.
    pub(crate) next: Option<Bytes>,
}

impl Inner {
    /// See [`crate::Node::list`].
    pub(crate) async fn list(self: &Arc<Self>, bucket: &str, query: ListQuery) -> Result<ListPage, Error> {
        let limit = if query.limit == 0 { PAGE } else { query.limit.min(PAGE) };
        let prefix: Bytes = RegisterName::object_prefix(bucket, &query.prefix)?.into();
        let bucket_prefix = RegisterName::object_prefix(bucket, "")?;
        let after = query.after.as_deref().map(|after| start_after(&bucket_prefix, after, &query));
        // One more than wanted tells whether a next page exists; few are not cheaper than some, and what was
        // removed lately counts as well.
        let names =
            |after, left: usize| self.page(prefix.clone(), after, (left + 1).max(FEW), query.consistency);
        let versioning = async {
            match query.consistency {
                Consistency::Linearizable => Ok(self.bucket(bucket).await?.settings.versioning),
                Consistency::Stale => Ok(self.versioning_lately(bucket, Consistency::Stale).await),
            }
        };
        let (versioning, mut shown) = tokio::try_join!(versioning, names(after, limit))?;
        let shows_versions = versioning != Versioning::Never;
        let mut page = ListPage::default();
        loop {
            let mut skip: Option<Bytes> = None;
            for (name, summary) in shown.entries {
                let Some((_, key)) = name.object_parts() else { continue };
                if summary.deleted {
                    continue;
                }
                if skip.as_ref().is_some_and(|skip| name.as_bytes() < skip.as_ref()) {
                    continue;
                }
                if page.objects.len() + page.prefixes.len() == limit {
                    page.next = last_of(&page);
                    return Ok(page);
                }
                match common_prefix(key, &query.prefix, query.delimiter.as_deref()) {
                    None => page.objects.push(object(bucket, key, &summary, shows_versions)),
                    Some(common) => {
                        skip = Some(past(&bucket_prefix, common));
                        page.prefixes.push(common.to_owned());
                    }
                }
            }
            let Some(next) = shown.next else { return Ok(page) };
            let after = skip.map_or(next.clone(), |skip| skip.max(next));
            shown = names(Some(after), limit - page.objects.len() - page.prefixes.len()).await?;
        }
    }

    /// One page of live names that start with `prefix`.
    pub(crate) async fn page(
        self: &Arc<Self>,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
        consistency: Consistency,
    ) -> Result<Names, Error> {
        let limit = limit.clamp(1, MAX_PAGE);
        if consistency == Consistency::Stale {
            return self.page_here(prefix, after, limit).await;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let layout = self.layout()?;
            let request = ListRequest {
                layout: layout.version,
                prefix: prefix.clone(),
                after: after.clone(),
                limit: limit as u32,
            };
            let why = match self.ask_for_names(&layout, request, Asked::Enough).await {
                Ok((answers, _)) => return self.merge(&layout, answers).await,
                Err(why) => why,
            };
            if Instant::now() >= deadline {
                return Err(why.unwrap_or_else(|| Error::Timeout("a list (the layout is changing)".into())));
            }
            sys::sleep(sys::jitter(Duration::from_millis(250))).await;
        }
    }

    async fn page_here(&self, prefix: Bytes, after: Option<Bytes>, limit: usize) -> Result<Names, Error> {
        let range = NameRange { prefix: prefix.to_vec(), after: after.map(|after| after.to_vec()) };
        let Paged::Page { entries, more } = self.store.page(None, range, limit, 8 << 20).await? else {
            return Err(Error::Timeout("a list (the layout is changing)".into()));
        };
        let last = entries.last().map(|shown| Bytes::copy_from_slice(shown.name.as_bytes()));
        let mut shown = Vec::with_capacity(entries.len());
        for pando_store::Shown { name, summary, .. } in entries {
            shown.extend(serve::readable(&name, summary)?.map(|summary| (name, summary)));
        }
        Ok(Names { entries: shown, next: last.filter(|_| more) })
    }

    /// What each member shows of the names that start with `prefix`, those above `after`.
    pub(crate) async fn shown(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Shown, Error> {
        let request = ListRequest { layout: layout.version, prefix, after, limit: limit as u32 };
        let (answers, unreachable) = self
            .ask_for_names(layout, request, Asked::All)
            .await
            .map_err(|why| why.unwrap_or_else(|| Error::Busy("the layout has just changed".into())))?;
        let cut = cut_of(&answers);
        let mut names: BTreeMap<RegisterName, BTreeMap<NodeId, (Ballot, Option<Summary>)>> = BTreeMap::new();
        for (node, answer) in answers {
            for entry in answer.entries.into_iter().filter(|e| cut.as_ref().is_none_or(|cut| e.name <= *cut))
            {
                names.entry(entry.name).or_default().insert(node, (entry.ballot, entry.summary));
            }
        }
        Ok(Shown { names, unreachable, next: cut.map(|cut| Bytes::copy_from_slice(cut.as_bytes())) })
    }

    /// Asks members; fails if in the end it is not even a majority of the owners of every partition that answered.
    /// `Err(None)`: the layout changed.
    async fn ask_for_names(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        request: ListRequest,
        asked: Asked,
    ) -> Result<(BTreeMap<NodeId, Answer>, Vec<NodeId>), Option<Error>> {
        let cover = self.covers.of(layout);
        let message = &Message::from(Request::List(request));
        let ask = |node: NodeId| async move { (node, self.ask_owner(layout, node, message).await) };
        let members = layout.present().count();
        let (first, spare) = match asked {
            Asked::All => (layout.present().map(|member| member.id).collect(), Vec::new()),
            Asked::Enough => cover.nearest(self.by_distance(layout)),
        };
        let mut pending: FuturesUnordered<_> = first.into_iter().map(ask).collect();
        let mut spare = Some(spare).filter(|spare| !spare.is_empty());
        let patience = Instant::now() + SPARE;
        let mut answers = BTreeMap::new();
        let (mut missing, mut unreachable) = (Vec::new(), Vec::new());
        loop {
            let next = match spare {
                Some(_) => sys::timeout_at(patience, pending.next()).await,
                None => Ok(pending.next().await),
            };
            let (node, reply) = match (next, spare.take()) {
                (Ok(Some(answered)), still) => {
                    spare = still;
                    answered
                }
                // They take long, or some don't answer: now the others too.
                (_, Some(spare)) => {
                    pending.extend(spare.into_iter().map(ask));
                    continue;
                }
                (_, None) => break,
            };
            let why = match reply {
                Ok(Reply::Listed { entries, more }) => {
                    answers.insert(node, Answer { entries, more });
                    let enough = match asked {
                        Asked::All => answers.len() == members,
                        Asked::Enough => cover.is_met(|node| answers.contains_key(node)),
                    };
                    if enough {
                        return Ok((answers, unreachable));
                    }
                    continue;
                }
                Err(Unanswered::NewLayout) => return Err(None),
                Err(why) => why.to_string(),
                Ok(_) => "an answer to something else".to_owned(),
            };
            missing.push(format!("{}: {why}", node.short()));
            unreachable.push(node);
        }
        if cover.is_met(|node| answers.contains_key(node)) {
            return Ok((answers, unreachable));
        }
        Err(Some(Error::NotEnoughNodes {
            what: "a list".into(),
            needed: layout.partition_quorum(Partition::of_hash(&[0; 32])).quorum.needed(),
            owners: members,
            reachable: answers.len(),
            missing: missing.join("; "),
        }))
    }

    /// Members: this node, then those that answer, fastest first.
    fn by_distance(&self, layout: &Layout) -> Vec<NodeId> {
        let mut members: Vec<NodeId> = layout.present().map(|member| member.id).collect();
        members.sort_by_cached_key(|node| {
            let is_other = *node != self.id;
            (is_other, is_other.then(|| (self.peers.liveness(node), self.peers.round_trip(node))))
        });
        members
    }

    async fn merge(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        answers: BTreeMap<NodeId, Answer>,
    ) -> Result<Names, Error> {
        let cut = cut_of(&answers);
        let answered: Vec<NodeId> = answers.keys().copied().collect();
        let quorums = Quorums { layout, answered: &answered };
        let (mut entries, mut disputed) = (Vec::new(), Vec::new());
        let mut merged = Merged::new(answers);
        while let Some((name, shown)) = merged.next() {
            if cut.as_ref().is_some_and(|cut| name > *cut) {
                break;
            }
            match quorums.agreed(&name, shown) {
                Some(summary) => entries.extend(summary.map(|summary| (name, summary))),
                None => disputed.push(name),
            }
        }
        if !disputed.is_empty() {
            let read = |name: RegisterName| async move {
                let summary = match self.read(&name).await? {
                    Some(accepted) => summary_of(&name, &accepted)?,
                    None => None,
                };
                Ok::<_, Error>(summary.map(|summary| (name, summary)))
            };
            let reads = stream::iter(disputed).map(read).buffer_unordered(PARALLEL);
            let settled: Vec<Option<(RegisterName, Summary)>> = reads.try_collect().await?;
            entries.extend(settled.into_iter().flatten());
            entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        }
        let next = cut.map(|cut| Bytes::copy_from_slice(cut.as_bytes()));
        Ok(Names { entries, next })
    }
}

/// Which members a listing asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// As many as speak for every partition.
    Enough,
    /// All, and whoever answers.
    All,
}

/// What one member shows of a name.
type Shows = (NodeId, Ballot, Option<Summary>);

/// Walks the answers of several members at once, name by name.
struct Merged {
    answers: Vec<(NodeId, std::vec::IntoIter<Listed>)>,
    /// The first entry of each answer that was not given out, by name.
    heads: BinaryHeap<Reverse<Head>>,
}

/// The next entry of an answer.
struct Head {
    entry: Listed,
    answer: usize,
}

impl Head {
    fn key(&self) -> (&RegisterName, usize) {
        (&self.entry.name, self.answer)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Merged {
    fn new(answers: BTreeMap<NodeId, Answer>) -> Self {
        let answers: Vec<_> =
            answers.into_iter().map(|(node, answer)| (node, answer.entries.into_iter())).collect();
        let mut merged = Self { heads: BinaryHeap::with_capacity(answers.len()), answers };
        for answer in 0..merged.answers.len() {
            merged.advance(answer);
        }
        merged
    }

    fn advance(&mut self, answer: usize) {
        let next = self.answers[answer].1.next();
        self.heads.extend(next.map(|entry| Reverse(Head { entry, answer })));
    }

    /// The next name, and what is shown of it.
    fn next(&mut self) -> Option<(RegisterName, Vec<Shows>)> {
        let Reverse(Head { entry, answer }) = self.heads.pop()?;
        self.advance(answer);
        let Listed { name, ballot, summary } = entry;
        let mut shown = Vec::with_capacity(self.answers.len().min(4));
        shown.push((self.answers[answer].0, ballot, summary));
        while self.heads.peek().is_some_and(|Reverse(head)| head.entry.name == name) {
            let Reverse(Head { entry, answer }) = self.heads.pop()?;
            self.advance(answer);
            shown.push((self.answers[answer].0, entry.ballot, entry.summary));
        }
        Some((name, shown))
    }
}

/// What members show, by name.
pub(crate) struct Shown {
    /// For each name, who holds it, at which ballot, and what it shows (`None`: a tombstone).
    pub(crate) names: BTreeMap<RegisterName, BTreeMap<NodeId, (Ballot, Option<Summary>)>>,
    /// Members that did not answer.
    pub(crate) unreachable: Vec<NodeId>,
    /// Where the next page starts.
    pub(crate) next: Option<Bytes>,
}

/// The last name up to which no answer is cut off.
fn cut_of(answers: &BTreeMap<NodeId, Answer>) -> Option<RegisterName> {
    let last = |answer: &Answer| answer.entries.last().map(|entry| entry.name.clone());
    answers.values().filter(|answer| answer.more).filter_map(last).min()
}

struct Answer {
    entries: Vec<Listed>,
    more: bool,
}

#[derive(Clone, Copy)]
struct Quorums<'a> {
    layout: &'a Layout,
    answered: &'a [NodeId],
}

impl Quorums<'_> {
    /// What a majority of the name's owners shows, if it shows the same.
    fn agreed(&self, name: &RegisterName, shown: Vec<Shows>) -> Option<Option<Summary>> {
        let Owners { nodes, quorum } = self.layout.quorum(name);
        let ballot_of = |owner: u16| {
            let node = nodes[usize::from(owner)];
            let answered = self.answered.contains(&node);
            answered.then(|| shown.iter().find(|(who, ..)| *who == node).map(|(_, ballot, _)| *ballot))
        };
        // An owner that answered without the name holds nothing under it.
        if quorum.is_met(|owner| ballot_of(owner) == Some(None)) {
            return Some(None);
        }
        let of_owners = shown.iter().filter(|(node, ..)| nodes.contains(node));
        let agreed = of_owners
            .map(|(_, ballot, _)| *ballot)
            .find(|ballot| quorum.is_met(|owner| ballot_of(owner) == Some(Some(*ballot))))?;
        shown.into_iter().find(|(_, ballot, _)| *ballot == agreed).map(|(_, _, summary)| summary)
    }
}

/// What a listing tells of an object or a version.
pub(crate) fn object(bucket: &str, key: &str, summary: &Summary, shows_versions: bool) -> ObjectInfo {
    let is_shown = shows_versions || !summary.null;
    ObjectInfo {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        size: summary.size,
        hash: summary.hash,
        etag: summary.etag,
        version: is_shown.then(|| version_id(summary.null, summary.etag)),
        modified: summary.modified,
        meta: UserMeta::default(),
        headers: Headers::default(),
        digests: Digests { md5: summary.md5, parts: summary.parts, ..Digests::default() },
        tags: Vec::new(),
    }
}

/// The part of a key up to the first delimiter after the prefix, if there is one.
pub(crate) fn common_prefix<'a>(key: &'a str, prefix: &str, delimiter: Option<&str>) -> Option<&'a str> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let rest = key.get(prefix.len()..)?;
    rest.find(delimiter).map(|at| &key[..prefix.len() + at + delimiter.len()])
}

/// A name above all keys that start with `common`, and below all others that follow.
fn past(bucket_prefix: &[u8], common: &str) -> Bytes {
    [bucket_prefix, common.as_bytes(), &[AFTER_ALL]].concat().into()
}

fn start_after(bucket_prefix: &[u8], after: &str, query: &ListQuery) -> Bytes {
    let common = || common_prefix(after, &query.prefix, query.delimiter.as_deref());
    match after.starts_with(&query.prefix).then(common).flatten() {
        // The page before ended with this common prefix: all that it stands for is through.
        Some(common) if common == after => past(bucket_prefix, common),
        _ => [bucket_prefix, after.as_bytes()].concat().into(),
    }
}

/// The greatest entry of a page: where the next one starts.
fn last_of(page: &ListPage) -> Option<String> {
    let object = page.objects.last().map(|object| &object.key);
    object.max(page.prefixes.last()).cloned()
}
