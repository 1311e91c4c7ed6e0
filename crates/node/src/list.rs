//! List: every name that a majority of its partition's owners shows, in order, in pages.
//!
//! All members are asked for their names in a range; the answers are cut at the smallest last name of an
//! answer that was cut off itself, so that nothing is missing below. Where a majority of a name's owners
//! shows the same ballot, that is the value; where they differ, the register is read. A list is right for
//! each name, not a snapshot of all.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use pando_core::{
    bucket::Versioning,
    id::{NodeId, Partition},
    layout::{Layout, Owners},
    name::RegisterName,
    record::{Digests, Headers, Summary, UserMeta},
    register::Ballot,
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
        let versioning = match query.consistency {
            Consistency::Linearizable => self.bucket(bucket).await?.settings.versioning,
            Consistency::Stale => self.versioning_lately(bucket, Consistency::Stale).await,
        };
        let shows_versions = versioning != Versioning::Never;
        let limit = if query.limit == 0 { PAGE } else { query.limit.min(PAGE) };
        let prefix: Bytes = RegisterName::object_prefix(bucket, &query.prefix)?.into();
        let bucket_prefix = RegisterName::object_prefix(bucket, "")?;
        let mut after = query.after.as_deref().map(|after| start_after(&bucket_prefix, after, &query));
        let mut page = ListPage::default();
        loop {
            let left = limit - page.objects.len() - page.prefixes.len();
            // One more than wanted tells whether a next page exists; few are not cheaper than some, and what was
            // removed lately counts as well.
            let names = self.page(prefix.clone(), after, (left + 1).max(FEW), query.consistency).await?;
            let mut skip: Option<Bytes> = None;
            for (name, summary) in names.entries {
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
            let Some(next) = names.next else { return Ok(page) };
            after = Some(skip.map_or(next.clone(), |skip| skip.max(next)));
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
            let enough = |answers: &BTreeMap<NodeId, Answer>| covers_all(&layout, answers);
            let why = match self.ask_for_names(&layout, request, enough).await {
                Ok((answers, _)) => return self.merge(&layout, answers).await,
                Err(why) => why,
            };
            if Instant::now() >= deadline {
                return Err(why.unwrap_or_else(|| Error::Timeout("a list (the layout is changing)".into())));
            }
            sys::sleep(sys::jitter(std::time::Duration::from_millis(250))).await;
        }
    }

    async fn page_here(&self, prefix: Bytes, after: Option<Bytes>, limit: usize) -> Result<Names, Error> {
        let range = NameRange { prefix: prefix.to_vec(), after: after.map(|after| after.to_vec()) };
        let Paged::Page { entries, more } = self.store.page(None, range, limit, 8 << 20).await? else {
            return Err(Error::Timeout("a list (the layout is changing)".into()));
        };
        let last = entries.last().map(|(name, _)| Bytes::copy_from_slice(name.as_bytes()));
        let mut shown = Vec::with_capacity(entries.len());
        for (name, accepted) in entries {
            if let Some(summary) = serve::summary(&name, &accepted)? {
                shown.push((name, summary));
            }
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
        let members = layout.present().count();
        let (answers, unreachable) = self
            .ask_for_names(layout, request, |answers| answers.len() == members)
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

    /// Asks all members, until `enough` have answered; fails if in the end it is not even a majority of the
    /// owners of every partition. `Err(None)`: the layout changed.
    async fn ask_for_names(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        request: ListRequest,
        enough: impl Fn(&BTreeMap<NodeId, Answer>) -> bool,
    ) -> Result<(BTreeMap<NodeId, Answer>, Vec<NodeId>), Option<Error>> {
        let message = &Message::from(Request::List(request));
        let mut pending: FuturesUnordered<_> = layout
            .present()
            .map(|member| async { (member.id, self.ask_owner(layout, member.id, message).await) })
            .collect();
        let mut answers = BTreeMap::new();
        let (mut missing, mut unreachable) = (Vec::new(), Vec::new());
        while let Some((node, reply)) = pending.next().await {
            let why = match reply {
                Ok(Reply::Listed { entries, more }) => {
                    answers.insert(node, Answer { entries, more });
                    if enough(&answers) {
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
        if covers_all(layout, &answers) {
            return Ok((answers, unreachable));
        }
        let members = layout.present().count();
        Err(Some(Error::NotEnoughNodes {
            what: "a list".into(),
            needed: layout.partition_quorum(Partition::of_hash(&[0; 32])).quorum.needed(),
            owners: members,
            reachable: answers.len(),
            missing: missing.join("; "),
        }))
    }

    async fn merge(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        answers: BTreeMap<NodeId, Answer>,
    ) -> Result<Names, Error> {
        let cut = cut_of(&answers);
        let answered: Vec<NodeId> = answers.keys().copied().collect();
        let mut names: BTreeMap<RegisterName, Vec<(NodeId, Ballot, Option<Summary>)>> = BTreeMap::new();
        for (node, answer) in answers {
            for entry in answer.entries {
                if cut.as_ref().is_none_or(|cut| entry.name <= *cut) {
                    names.entry(entry.name).or_default().push((node, entry.ballot, entry.summary));
                }
            }
        }
        let quorums = Quorums { layout, answered: &answered };
        let decide = |(name, shown)| async move {
            let summary = match quorums.agreed(&name, shown) {
                Some(summary) => summary,
                None => match self.read(&name).await? {
                    Some(accepted) => serve::summary(&name, &accepted)?,
                    None => None,
                },
            };
            Ok::<_, Error>(summary.map(|summary| (name, summary)))
        };
        let entries: Vec<Option<(RegisterName, Summary)>> =
            stream::iter(names).map(decide).buffered(PARALLEL).try_collect().await?;
        let next = cut.map(|cut| Bytes::copy_from_slice(cut.as_bytes()));
        Ok(Names { entries: entries.into_iter().flatten().collect(), next })
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

/// Whether a majority of each partition's owners has answered.
fn covers_all(layout: &Layout, answers: &BTreeMap<NodeId, Answer>) -> bool {
    Partition::all().all(|partition| {
        let Owners { nodes, quorum } = layout.partition_quorum(partition);
        quorum.is_met(|owner| answers.contains_key(&nodes[usize::from(owner)]))
    })
}

#[derive(Clone, Copy)]
struct Quorums<'a> {
    layout: &'a Layout,
    answered: &'a [NodeId],
}

impl Quorums<'_> {
    /// What a majority of the name's owners shows, if it shows the same.
    fn agreed(
        &self,
        name: &RegisterName,
        shown: Vec<(NodeId, Ballot, Option<Summary>)>,
    ) -> Option<Option<Summary>> {
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
