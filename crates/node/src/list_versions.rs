//! List versions: every version and delete marker of a bucket, in order of key, those of a key from the newest on.
//!
//! Two lists are merged: of the objects' registers, which hold what is current, and of the versions' own. Of a range of
//! keys the first is always asked for first. What is current is archived before it is replaced, so what the first list
//! showed as current is there, or is found in the second. A key that the first did not show was put since, and its versions
//! are asked for again after what is current of it.
//!
//! A page ends at a version's place, which it keeps whatever becomes of it: the next page goes on below that, though those
//! who remove what they were shown have removed just this version.
//!
//! The names of a key's versions sort by id, not by age. So all of a key's versions are looked at for each page, but only
//! as many are kept as a page may have.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use pando_core::{id::WriteId, name::RegisterName, record::Summary};

use crate::{
    api::{Consistency, VersionEntry, VersionMark, VersionPage, VersionsQuery},
    error::Error,
    inner::{Inner, object_of},
    list::{AFTER_ALL, FEW, PAGE, common_prefix, object},
    version::{Located, counts, version_id},
};

impl Inner {
    /// See [`crate::Node::list_versions`].
    pub(crate) async fn list_versions(
        self: &Arc<Self>,
        bucket: &str,
        query: VersionsQuery,
    ) -> Result<VersionPage, Error> {
        self.check_bucket(bucket).await?;
        let limit = if query.limit == 0 { PAGE } else { query.limit.min(PAGE) };
        let (page, last) = (VersionPage::default(), None);
        let mut listing = Listing { inner: self, bucket, query: &query, limit, page, last, folder: None };
        listing.run().await?;
        Ok(listing.page)
    }
}

/// A page under way.
struct Listing<'a> {
    inner: &'a Arc<Inner>,
    bucket: &'a str,
    query: &'a VersionsQuery,
    limit: usize,
    page: VersionPage,
    /// The last entry or common prefix of the page.
    last: Option<(String, Option<VersionMark>)>,
    /// The common prefix whose keys are being passed over.
    folder: Option<String>,
}

/// The newest versions of one key, of those below a place.
struct Key {
    key: String,
    current: Option<Summary>,
    below: u64,
    most: usize,
    newest: BTreeMap<(u64, WriteId), Summary>,
}

impl Key {
    fn new(key: String, current: Option<Summary>, below: u64, most: usize) -> Self {
        let mut opened = Self { key, current: None, below, most, newest: BTreeMap::new() };
        if let Some(current) = current {
            opened.take(current.clone());
            opened.current = Some(current);
        }
        opened
    }

    /// A version that is not current; its copy, if it is after all, and strays are left out.
    fn add(&mut self, shown: Summary) {
        let current = self.current.as_ref();
        let is_copy = current.is_some_and(|current| current.etag == shown.etag);
        if !is_copy && counts(shown.null, shown.etag, current.and_then(|current| current.null_at)) {
            self.take(shown);
        }
    }

    fn take(&mut self, shown: Summary) {
        if shown.place < self.below {
            self.newest.insert((shown.place, shown.etag), shown);
            if self.newest.len() > self.most {
                self.newest.pop_first();
            }
        }
    }
}

/// The first key with its current version, if it is wanted.
fn pop_if(
    currents: &mut VecDeque<(String, Summary)>,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<(String, Summary)> {
    currents.front().is_some_and(|(key, _)| is_wanted(key)).then(|| currents.pop_front()).flatten()
}

impl Listing<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let objects = Bytes::from(RegisterName::object_prefix(self.bucket, &self.query.prefix)?);
        let mut after = None;
        if let Some((key, version)) = &self.query.after {
            let common = self.folder_of(key).filter(|common| common == key);
            after = Some(key.clone());
            match (common, version) {
                (Some(common), None) => self.folder = Some(common),
                (_, Some(mark)) if key.starts_with(&self.query.prefix) => {
                    let below = self.place_of(key, *mark).await?;
                    let rest = self.versions_of(key, below).await?;
                    if !self.close(rest) {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        loop {
            let from = match &after {
                Some(after) => Some(self.past_object(after)?),
                None => None,
            };
            let left = self.limit - self.page.entries.len() - self.page.prefixes.len();
            let names = self
                .inner
                .page(objects.clone(), from, (left + 1).max(FEW), Consistency::Linearizable)
                .await?;
            let end = names.next.map(RegisterName::from_bytes).transpose()?;
            let end = end.as_ref().and_then(|name| name.object_parts()).map(|(_, key)| key.to_owned());
            let currents = names
                .entries
                .into_iter()
                .filter_map(|(name, shown)| Some((name.object_parts()?.1.to_owned(), shown)));
            if !self.range(currents.collect(), after.as_deref(), end.as_deref()).await? || end.is_none() {
                return Ok(());
            }
            after = end;
        }
    }

    /// Below which place of a key a page starts.
    async fn place_of(&self, key: &str, VersionMark { version, place }: VersionMark) -> Result<u64, Error> {
        if let Some(place) = place {
            return Ok(place);
        }
        let name = RegisterName::object(self.bucket, key)?;
        Ok(match self.inner.locate(&name, version).await? {
            Some(Located::Current(record, _) | Located::Aside(record, _)) => record.mark.place,
            // What followed it is not known; the client may just have removed what it was shown.
            None => u64::MAX,
        })
    }

    /// The versions of a key below a place, of which what is current is asked for first.
    async fn versions_of(&self, key: &str, below: u64) -> Result<Key, Error> {
        let name = RegisterName::object(self.bucket, key)?;
        let mut opened = Key::new(key.to_owned(), self.current(&name).await?, below, self.limit + 1);
        let prefix = Bytes::from(RegisterName::versions_of(self.bucket, key)?);
        let mut after = None;
        loop {
            let page = self.inner.page(prefix.clone(), after, usize::MAX, Consistency::Linearizable).await?;
            page.entries.into_iter().for_each(|(_, shown)| opened.add(shown));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(opened),
            }
        }
    }

    async fn current(&self, name: &RegisterName) -> Result<Option<Summary>, Error> {
        let found = self.inner.read(name).await?;
        let current = object_of(found.as_ref().map(|accepted| &accepted.value))?;
        Ok(current.map(|(record, version)| record.summary(version)))
    }

    /// All keys above `after`, up to `end`, of which the current versions are known. `false`: the page is full.
    async fn range(
        &mut self,
        mut currents: VecDeque<(String, Summary)>,
        after: Option<&str>,
        end: Option<&str>,
    ) -> Result<bool, Error> {
        let prefix = Bytes::from(RegisterName::version_prefix(self.bucket, &self.query.prefix)?);
        let mut from = match after {
            Some(after) => Some(self.past_versions(after)?),
            None => None,
        };
        let mut open: Option<Key> = None;
        // The key that was just entered whole.
        let mut whole: Option<String> = None;
        'pages: loop {
            let page = self.inner.page(prefix.clone(), from, usize::MAX, Consistency::Linearizable).await?;
            for (name, shown) in page.entries {
                let Some((_, key, _)) = name.version_parts() else { continue };
                if end.is_some_and(|end| key.as_ref() > end) {
                    break 'pages;
                }
                if whole.as_ref().is_some_and(|whole| *whole == key) {
                    continue;
                }
                if open.as_ref().is_none_or(|open| open.key != key) {
                    if !(open.take().is_none_or(|open| self.close(open))
                        && self.before(&mut currents, Some(&key)))
                    {
                        return Ok(false);
                    }
                    let Some((_, current)) = pop_if(&mut currents, |next| next == key) else {
                        // It was put since the currents were listed, perhaps after this page of versions.
                        let opened = self.versions_of(&key, u64::MAX).await?;
                        if !self.close(opened) {
                            return Ok(false);
                        }
                        whole = Some(key.into_owned());
                        continue;
                    };
                    open = Some(Key::new(key.into_owned(), Some(current), u64::MAX, self.limit + 1));
                }
                open.iter_mut().for_each(|open| open.add(shown.clone()));
            }
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(open.is_none_or(|open| self.close(open)) && self.before(&mut currents, None))
    }

    /// The keys below `key` that have a current version only. `false`: the page is full.
    fn before(&mut self, currents: &mut VecDeque<(String, Summary)>, key: Option<&str>) -> bool {
        while let Some((next, current)) = pop_if(currents, |next| key.is_none_or(|key| next < key)) {
            if !self.close(Key::new(next, Some(current), u64::MAX, self.limit + 1)) {
                return false;
            }
        }
        true
    }

    /// Enters a key's versions. `false`: the page is full.
    fn close(&mut self, Key { key, current, newest, .. }: Key) -> bool {
        if newest.is_empty() || self.folder.as_ref().is_some_and(|folder| key.starts_with(folder.as_str())) {
            return true;
        }
        if let Some(folder) = self.folder_of(&key) {
            if self.is_full() {
                return false;
            }
            self.last = Some((folder.clone(), None));
            self.page.prefixes.push(folder.clone());
            self.folder = Some(folder);
            return true;
        }
        for shown in newest.into_values().rev() {
            if self.is_full() {
                return false;
            }
            let is_latest = current.as_ref().is_some_and(|current| current.etag == shown.etag);
            let info = object(self.bucket, &key, &shown, true);
            let version = version_id(shown.null, shown.etag);
            self.last = Some((key.clone(), Some(VersionMark { version, place: Some(shown.place) })));
            self.page.entries.push(VersionEntry { info, is_latest, marker: shown.deleted });
        }
        true
    }

    /// Whether nothing more fits; if so there is a next page.
    fn is_full(&mut self) -> bool {
        let full = self.page.entries.len() + self.page.prefixes.len() == self.limit;
        if full {
            self.page.next = self.last.clone();
        }
        full
    }

    fn folder_of(&self, key: &str) -> Option<String> {
        let is_below = key.starts_with(&self.query.prefix);
        let folder = common_prefix(key, &self.query.prefix, self.query.delimiter.as_deref());
        folder.filter(|_| is_below).map(str::to_owned)
    }

    /// What is to be passed over if `key` is: its folder, or it alone.
    fn passed<'a>(&'a self, key: &'a str) -> (&'a str, bool) {
        match &self.folder {
            Some(folder) if key.starts_with(folder.as_str()) => (folder, true),
            _ => (key, false),
        }
    }

    /// A name above the objects with the keys up to this one, and below all that follow.
    fn past_object(&self, key: &str) -> Result<Bytes, Error> {
        let (text, is_folder) = self.passed(key);
        let mut name = RegisterName::object_prefix(self.bucket, text)?;
        name.extend(is_folder.then_some(AFTER_ALL));
        Ok(name.into())
    }

    /// As [`Listing::past_object`], of versions.
    fn past_versions(&self, key: &str) -> Result<Bytes, Error> {
        let (text, is_folder) = self.passed(key);
        let mut name = match is_folder {
            true => RegisterName::version_prefix(self.bucket, text)?,
            false => RegisterName::versions_of(self.bucket, text)?,
        };
        name.push(AFTER_ALL);
        Ok(name.into())
    }
}

#[cfg(test)]
mod tests {
    use pando_core::bucket::Versioning;

    use super::*;
    use crate::{
        PutOptions,
        stray::tests::{keep_versions, node},
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_that_the_first_list_did_not_show_are_entered_whole_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        keep_versions(&node, Versioning::Enabled).await;
        for _ in 0..3 {
            for key in ["a", "b", "c"] {
                node.put("default", key, &b"x"[..], PutOptions::default()).await.unwrap();
            }
        }
        let (inner, query, page) = (&node.inner, &VersionsQuery::default(), VersionPage::default());
        let mut listing =
            Listing { inner, bucket: "default", query, limit: PAGE, page, last: None, folder: None };
        let name = RegisterName::object("default", "b").unwrap();
        let current = listing.current(&name).await.unwrap().unwrap();
        let currents = VecDeque::from([("b".to_owned(), current)]);
        assert!(listing.range(currents, None, None).await.unwrap());
        let shown = |entry: VersionEntry| (entry.info.key, entry.info.etag, entry.is_latest);
        let shown: Vec<_> = listing.page.entries.into_iter().map(shown).collect();
        let all = node.list_versions("default", VersionsQuery::default()).await.unwrap();
        let all: Vec<_> = all.entries.into_iter().map(|e| (e.info.key, e.info.etag, e.is_latest)).collect();
        assert_eq!((shown.len(), shown), (9, all));
        node.stop().await;
    }
}
