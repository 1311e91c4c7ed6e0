//! Uploads in parts, as S3 has them: begun, their parts put through any node, then completed or aborted.
//!
//! An upload is a register, and each of its parts is one: a part is put like an object, under a name of its own.
//! Completing claims the parts' chunks for the object (as a copy does: nothing is read or written twice), writes the
//! object's record, and removes the parts. The object's version is the upload's id, so whoever completes again, on
//! whatever node, finds that it was done.
//!
//! A crash may leave registers of uploads that are over; [`sweep`] removes them, and uploads that nobody went on with.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use pando_core::{
    bucket::Versioning,
    customer::Lock,
    id::WriteId,
    mark::Mark,
    name::{MAX_PARTS, RegisterName},
    parts::{MAX_PART_ROOTS, Part, Parts},
    record::{Body, Digests, MAX_INLINE, Record, UploadRecord},
    register::State,
    wire::Request,
};
use tokio::io::AsyncRead;

use crate::{
    api::{
        Condition, Consistency, NewPart, PartInfo, PartPage, PutOptions, Stored, UploadInfo, UploadOptions,
        UploadPage, VersionId, WantedPart,
    },
    content::{self, Content},
    copy::part_of,
    error::Error,
    inner::{Inner, object_of, permit},
    list::AFTER_ALL,
    put::{QUEUE_PATIENCE, Source, Target, Upload, check, fill},
    register::Outcome,
    sys,
    version::{Located, version_id},
};

/// Registers that are read or removed at once.
const PARALLEL: usize = 16;
/// Parts that are removed in one go: their versions fit one message.
const DROPS: usize = 1000;
/// A list of parts up to this length stands in the record; a longer one, and one with salts, is a chunk.
const LIST_INLINE: usize = MAX_INLINE;
/// An upload that nobody completed is removed after so long: S3 keeps them for ever, and people forget them.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);
/// A part without its upload is removed after so long: whoever put it looks for the upload once more within seconds.
const ORPHANED: Duration = Duration::from_secs(3600);
/// How long between two looks for what is to be swept.
const SWEEP: Duration = Duration::from_secs(3600);

impl Inner {
    /// See [`crate::Node::create_upload`].
    pub(crate) async fn create_upload(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        options: UploadOptions,
    ) -> Result<WriteId, Error> {
        let id = WriteId(sys::random());
        let name = RegisterName::upload(bucket, key, &id)?;
        let UploadOptions { meta, headers, tags, checksum, composite } = options;
        let record = UploadRecord { created: sys::now_ms(), meta, headers, tags, checksum, composite };
        let bytes = record.encode()?;
        self.check_bucket(bucket).await?;
        let began = self
            .change(&name, WriteId(sys::random()), |_| Ok::<_, Error>(State::Present(bytes.clone())))
            .await?;
        match began {
            Outcome::Written(_) => Ok(id),
            Outcome::Declined(why, _) => Err(why),
        }
    }

    async fn upload_record(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
    ) -> Result<UploadRecord, Error> {
        let found = self.read(&RegisterName::upload(bucket, key, id)?).await?;
        match found.as_ref().and_then(|accepted| accepted.value.present()) {
            Some(bytes) => Ok(UploadRecord::decode(bytes)?),
            None => Err(Error::NoSuchUpload(*id)),
        }
    }

    /// See [`crate::Node::upload`].
    pub(crate) async fn upload(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
    ) -> Result<UploadInfo, Error> {
        let record = self.upload_record(bucket, key, id).await?;
        Ok(UploadInfo {
            id: *id,
            key: key.to_owned(),
            created: record.created,
            checksum: record.checksum,
            composite: record.composite,
            meta: record.meta,
        })
    }

    /// See [`crate::Node::put_part`].
    pub(crate) async fn put_part<R: AsyncRead + Unpin + Send>(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
        part: NewPart,
        mut reader: R,
        digests: impl Future<Output = std::io::Result<Digests>>,
    ) -> Result<Stored, Error> {
        let name = RegisterName::part(bucket, key, id, part.number)?;
        let mut head = Vec::new();
        let (end, _) = tokio::try_join!(
            fill(&mut reader, &mut head, MAX_INLINE + 1),
            self.upload_record(bucket, key, id)
        )?;
        let source = Source { reader, head, end };
        // A part is never inline: its chunks are to become the object's.
        let mut options = PutOptions::default();
        if let Some(lock) = part.lock {
            lock.enter(&mut options.meta);
        }
        let (version, versioning, inline) = (WriteId(sys::random()), Versioning::Never, 0);
        let target = Target { name: name.clone(), version, versioning, asked: sys::Instant::now(), inline };
        let stored = self.put_at(target, source, options, digests).await?;
        self.part_stays(bucket, key, id, &name).await?;
        Ok(stored)
    }

    /// Removes a part again if its upload went away meanwhile: nobody else would.
    async fn part_stays(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
        part: &RegisterName,
    ) -> Result<(), Error> {
        match self.upload_record(bucket, key, id).await {
            Err(Error::NoSuchUpload(id)) => {
                self.drop_part(part).await?;
                Err(Error::NoSuchUpload(id))
            }
            other => other.map(drop),
        }
    }

    /// Removes a part and has its chunks looked at.
    async fn drop_part(self: &Arc<Self>, part: &RegisterName) -> Result<(), Error> {
        if let Some(version) = self.drop_register(part).await? {
            self.forget(version);
        }
        Ok(())
    }

    /// See [`crate::Node::copy_part`].
    pub(crate) async fn copy_part(
        self: &Arc<Self>,
        from: (&str, &str, WriteId),
        bucket: &str,
        key: &str,
        id: &WriteId,
        number: u16,
    ) -> Result<Option<(Stored, Digests)>, Error> {
        let name = RegisterName::part(bucket, key, id, number)?;
        self.upload_record(bucket, key, id).await?;
        let (source, mut record, old) =
            match self.find_version(from.0, from.1, Some(VersionId::Id(from.2))).await {
                // It was replaced.
                Err(Error::NoSuchVersion { .. }) => {
                    let (_, _, current) = self.find(from.0, from.1, Consistency::Linearizable).await?;
                    return Err(Error::Precondition { current: Some(current) });
                }
                found => found?,
            };
        let body = record.open(self.key()?, &source, &old)?;
        let Some(Part { size, mut tree }) = part_of(record.size, body.clone()) else { return Ok(None) };
        let version = WriteId(sys::random());
        let _transfer = permit(&self.limits.puts, QUEUE_PATIENCE, "too many puts at once").await?;
        let mut upload = Upload::new(self, name.clone(), version);
        if let Some(mut content) = Content::open(self, body, size).await? {
            upload.adopt(&mut content).await?;
        }
        if tree.roots.len() > MAX_PART_ROOTS {
            let node = upload.keep_node(tree.node()).await?;
            tree = tree.under(node);
        }
        record.set_body(&Body::Chunks(tree), self.key()?, &name, &version);
        record.modified = sys::now_ms();
        let stored = upload.commit(&record, Condition::None).await?.stored;
        self.part_stays(bucket, key, id, &name).await?;
        Ok(Some((stored, record.digests)))
    }

    /// See [`crate::Node::list_parts`].
    pub(crate) async fn list_parts(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
        after: u16,
        limit: usize,
    ) -> Result<PartPage, Error> {
        self.upload_record(bucket, key, id).await?;
        let names = self.part_names(bucket, key, id, after, limit + 1).await?;
        let next = (names.len() > limit).then(|| names[limit - 1].0);
        let reads = names.into_iter().take(limit).map(|(number, name)| async move {
            let found = self.read_part(&name).await?;
            Ok::<_, Error>(found.map(|(record, version)| part_info(number, &record, version)))
        });
        let parts: Vec<_> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        Ok(PartPage { parts: parts.into_iter().flatten().collect(), next })
    }

    async fn read_part(self: &Arc<Self>, name: &RegisterName) -> Result<Option<(Record, WriteId)>, Error> {
        let found = self.read(name).await?;
        object_of(found.as_ref().map(|accepted| &accepted.value))
    }

    /// Up to `limit` parts of an upload, numbered above `after`.
    async fn part_names(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
        after: u16,
        limit: usize,
    ) -> Result<Vec<(u16, RegisterName)>, Error> {
        let prefix = Bytes::from(RegisterName::part_prefix(bucket, key, id)?);
        let first = RegisterName::part(bucket, key, id, after.clamp(1, MAX_PARTS))?;
        let mut from = (after > 0).then(|| Bytes::copy_from_slice(first.as_bytes()));
        let mut parts = Vec::new();
        loop {
            let page =
                self.page(prefix.clone(), from, limit - parts.len(), Consistency::Linearizable).await?;
            let numbered =
                page.entries.into_iter().filter_map(|(name, _)| Some((name.part_parts()?.3, name)));
            parts.extend(numbered);
            match page.next {
                Some(next) if parts.len() < limit => from = Some(next),
                _ => {
                    parts.truncate(limit);
                    return Ok(parts);
                }
            }
        }
    }

    /// See [`crate::Node::list_uploads`].
    pub(crate) async fn list_uploads(
        self: &Arc<Self>,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, Option<WriteId>)>,
        limit: usize,
    ) -> Result<UploadPage, Error> {
        self.check_bucket(bucket).await?;
        let prefix = Bytes::from(RegisterName::upload_prefix(bucket, prefix)?);
        let mut from = match after {
            None => None,
            Some((key, Some(id))) => {
                Some(Bytes::copy_from_slice(RegisterName::upload(bucket, key, &id)?.as_bytes()))
            }
            // Past all uploads to this key.
            Some((key, None)) => {
                let mut last = RegisterName::uploads_of(bucket, key)?;
                last.push(AFTER_ALL);
                Some(Bytes::from(last))
            }
        };
        let mut uploads: Vec<UploadInfo> = Vec::new();
        loop {
            let wanted = limit + 1 - uploads.len();
            let page = self.page(prefix.clone(), from, wanted, Consistency::Linearizable).await?;
            uploads.extend(page.entries.iter().filter_map(|(name, summary)| {
                let (_, key, id) = name.upload_parts()?;
                let (checksum, composite, meta) = Default::default();
                let (key, created) = (key.into_owned(), summary.modified);
                Some(UploadInfo { id, key, created, checksum, composite, meta })
            }));
            match page.next {
                Some(next) if uploads.len() <= limit => from = Some(next),
                _ => break,
            }
        }
        let more = uploads.len() > limit;
        uploads.truncate(limit);
        Ok(UploadPage { uploads, more })
    }

    /// See [`crate::Node::complete_upload`].
    pub(crate) async fn complete_upload(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
        wanted: &[WantedPart],
        condition: Condition,
        digests: impl FnOnce(&[PartInfo]) -> Result<Digests, Error>,
    ) -> Result<(Stored, Digests), Error> {
        let name = RegisterName::object(bucket, key)?;
        // This client may have completed it before, without hearing of it.
        let done = match self.completed_before(&name, id).await? {
            Some(done) => done,
            None => match self.put_together(&name, (bucket, key, id), wanted, condition, digests).await {
                // Or someone else meanwhile.
                Err(error @ (Error::NoSuchUpload(_) | Error::NoSuchPart(_))) => {
                    self.completed_before(&name, id).await?.ok_or(error)?
                }
                done => done?,
            },
        };
        // It is done; what is left now goes later if this fails.
        match self.abort_upload(bucket, key, id).await {
            Ok(()) | Err(Error::NoSuchUpload(_)) => {}
            Err(error) => {
                tracing::info!(object = %name, %error, "the parts of a completed upload go later");
            }
        }
        Ok(done)
    }

    async fn put_together(
        self: &Arc<Self>,
        name: &RegisterName,
        (bucket, key, id): (&str, &str, &WriteId),
        wanted: &[WantedPart],
        condition: Condition,
        digests: impl FnOnce(&[PartInfo]) -> Result<Digests, Error>,
    ) -> Result<(Stored, Digests), Error> {
        // What can be known to fail fails before anything is claimed.
        let (begun, (), ()) = tokio::try_join!(
            self.upload_record(bucket, key, id),
            self.check_bucket(bucket),
            self.check_completion(name, id, condition),
        )?;
        if wanted.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(Error::PartOrder);
        }
        let reads = wanted.iter().copied().map(|wanted| async move {
            let part = RegisterName::part(bucket, key, id, wanted.number)?;
            match self.read_part(&part).await? {
                Some((record, version)) if wanted.md5.is_none_or(|md5| record.digests.md5 == Some(md5)) => {
                    let body = record.open(self.key()?, &part, &version)?;
                    let part = part_of(record.size, body).ok_or(Error::NoSuchPart(wanted.number))?;
                    let salt = Lock::of(&record.meta).map(|lock| lock.salt);
                    Ok((part_info(wanted.number, &record, version), (part, salt)))
                }
                _ => Err(Error::NoSuchPart(wanted.number)),
            }
        });
        let found: Vec<(PartInfo, (Part, Option<WriteId>))> =
            stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        let (infos, parts): (Vec<PartInfo>, Vec<_>) = found.into_iter().unzip();
        let (parts, salts): (Vec<Part>, Vec<Option<WriteId>>) = parts.into_iter().unzip();
        let digests = digests(&infos)?;
        let salts = salts.into_iter().flatten().collect();
        let parts = Parts::new(parts).and_then(|parts| parts.with_salts(salts)).map_err(content::unusable)?;
        let _transfer = permit(&self.limits.puts, QUEUE_PATIENCE, "too many puts at once").await?;
        let mut upload = Upload::new(self, name.clone(), *id);
        upload.adopt(&mut Content::of_parts(parts.clone())).await?;
        let list = parts.encode();
        let body = match list.len() {
            ..=LIST_INLINE if parts.salts().is_empty() => Body::Parts(parts.as_slice().to_vec()),
            len => Body::PartsIn(upload.keep_node(list).await?, len as u32),
        };
        let salt = WriteId(sys::random());
        let record = Record {
            size: parts.size(),
            hash: None,
            modified: sys::now_ms(),
            meta: begun.meta,
            epoch: 1,
            body: body.seal(self.key()?, name, &salt),
            headers: begun.headers,
            digests: digests.clone(),
            tags: begun.tags,
            salt: Some(salt),
            mark: Mark::default(),
        };
        let done = upload.commit(&record, condition).await?;
        // Someone else may have completed it meanwhile, with other parts. Where what that made is gone by now, and nothing
        // tells what it was, it counts as this.
        let before = match done.already {
            true => self.completed_before(name, id).await?,
            false => None,
        };
        Ok(before.unwrap_or((done.stored, digests)))
    }

    /// As [`Inner::check_condition`]; holds for an upload that was completed already, whatever came of it since.
    async fn check_completion(
        self: &Arc<Self>,
        name: &RegisterName,
        id: &WriteId,
        condition: Condition,
    ) -> Result<(), Error> {
        let found = self.read(name).await?;
        let value = found.as_ref().map(|accepted| &accepted.value);
        let current = object_of(value)?;
        let is_done = value.is_some_and(|value| value.recent.contains(id))
            || current.as_ref().is_some_and(|(_, version)| version == id);
        if is_done { Ok(()) } else { check(condition, current.as_ref()) }
    }

    /// The object, or the version of it, that the upload became.
    async fn completed_before(
        self: &Arc<Self>,
        name: &RegisterName,
        id: &WriteId,
    ) -> Result<Option<(Stored, Digests)>, Error> {
        let (record, etag) = match self.locate(name, VersionId::Id(*id)).await? {
            Some(Located::Current(record, version) | Located::Aside(record, version)) => (record, version),
            None => return Ok(None),
        };
        let copies = self.layout()?.owners(name.partition()).len();
        let never = self.versioning_of(name).await? == Versioning::Never;
        let version = Some(version_id(record.mark.null, etag)).filter(|_| !never);
        let stored = Stored { size: record.size, hash: record.hash, etag, version, copies, wanted: copies };
        Ok(Some((stored, record.digests)))
    }

    /// See [`crate::Node::abort_upload`].
    pub(crate) async fn abort_upload(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
    ) -> Result<(), Error> {
        // The upload first: from then on, who puts a part finds out and removes it again.
        let there = self.drop_register(&RegisterName::upload(bucket, key, id)?).await?.is_some();
        loop {
            let parts = self.part_names(bucket, key, id, 0, DROPS).await?;
            if parts.is_empty() {
                break;
            }
            let names = parts.into_iter().map(|(_, name)| name);
            let drops = names.map(|name| async move { self.drop_register(&name).await });
            let dropped: Vec<Option<WriteId>> =
                stream::iter(drops).buffer_unordered(PARALLEL).try_collect().await?;
            self.tell_all(Request::Recheck(dropped.into_iter().flatten().collect()));
        }
        if there { Ok(()) } else { Err(Error::NoSuchUpload(*id)) }
    }

    /// Aborts all uploads to a bucket's objects.
    pub(crate) async fn abort_uploads(self: &Arc<Self>, bucket: &str) -> Result<(), Error> {
        let mut last: Option<UploadInfo> = None;
        loop {
            let after = last.as_ref().map(|last| (last.key.as_str(), Some(last.id)));
            let page = self.list_uploads(bucket, "", after, DROPS).await?;
            for upload in &page.uploads {
                match self.abort_upload(bucket, &upload.key, &upload.id).await {
                    Ok(()) | Err(Error::NoSuchUpload(_)) => {}
                    Err(why) => return Err(why),
                }
            }
            last = page.uploads.into_iter().last();
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Makes a register a tombstone; the version that it held. `None`: there was nothing.
    async fn drop_register(self: &Arc<Self>, name: &RegisterName) -> Result<Option<WriteId>, Error> {
        let mut version = None;
        let outcome = self
            .change(name, WriteId(sys::random()), |found| {
                match found.filter(|value| value.present().is_some()) {
                    None => Err(()),
                    Some(value) => {
                        version = value.write_id();
                        Ok(State::Absent)
                    }
                }
            })
            .await?;
        Ok(version.filter(|_| matches!(outcome, Outcome::Written(_))))
    }
}

fn part_info(number: u16, record: &Record, version: WriteId) -> PartInfo {
    PartInfo {
        number,
        size: record.size,
        modified: record.modified,
        etag: version,
        digests: record.digests.clone(),
    }
}

/// Removes what uploads left, until the node stops. Each node looks at those of which it is the first owner.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    loop {
        sys::sleep(SWEEP + sys::jitter(SWEEP / 4)).await;
        if let Err(error) = sweep_once(&inner, inner.steady_ms()).await {
            tracing::debug!(%error, "sweeping uploads goes on later");
        }
    }
}

/// One look at all uploads and parts, at the time `now_ms`.
pub(crate) async fn sweep_once(inner: &Arc<Inner>, now_ms: u64) -> Result<(), Error> {
    for prefix in [RegisterName::all_uploads_prefix(), RegisterName::all_parts_prefix()] {
        let prefix = Bytes::from(prefix);
        let mut after = None;
        loop {
            let page = inner.page(prefix.clone(), after, usize::MAX, Consistency::Stale).await?;
            for (name, summary) in page.entries {
                let first = inner.layout()?.owners(name.partition()).first().copied();
                let age = Duration::from_millis(now_ms.saturating_sub(summary.modified));
                if first != Some(inner.id) {
                    continue;
                }
                // What can't be read now is not in the way of the rest.
                if let Err(error) = sweep_register(inner, &name, age).await {
                    tracing::debug!(%name, %error, "it is swept later");
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok(())
}

async fn sweep_register(inner: &Arc<Inner>, name: &RegisterName, age: Duration) -> Result<(), Error> {
    if let Some((bucket, key, id)) = name.upload_parts() {
        if age < ABANDONED && !is_over(inner, bucket, &key, &id).await? {
            return Ok(());
        }
        tracing::info!(upload = %name, "an upload that is over is removed");
        return match inner.abort_upload(bucket, &key, &id).await {
            Err(Error::NoSuchUpload(_)) => Ok(()),
            other => other,
        };
    }
    if let Some((bucket, key, id, _)) = name.part_parts()
        && age >= ORPHANED
        && let Err(Error::NoSuchUpload(_)) = inner.upload_record(bucket, &key, &id).await
    {
        tracing::info!(part = %name, "a part without an upload is removed");
        inner.drop_part(name).await?;
    }
    Ok(())
}

/// Whether an upload became its object, and who completed it did not get to the end; or its bucket went.
async fn is_over(inner: &Arc<Inner>, bucket: &str, key: &str, id: &WriteId) -> Result<bool, Error> {
    let name = RegisterName::object(bucket, key)?;
    let found = inner.read(&name).await?;
    if found.is_some_and(|accepted| accepted.value.recent.contains(id))
        || inner.locate(&name, VersionId::Id(*id)).await?.is_some()
    {
        return Ok(true);
    }
    match inner.check_bucket(bucket).await {
        Ok(()) => Ok(false),
        Err(Error::NoSuchBucket(_)) => Ok(true),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::{Config, Node, PutOptions};

    const HOUR: u64 = 3_600_000;

    async fn node(folder: &tempfile::TempDir) -> Node {
        let config = Config {
            data: folder.path().to_owned(),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            advertise: None,
            zone: None,
            capacity: Some(1 << 30),
            replicas: None,
            join: None,
            grace: Duration::from_secs(3600),
            dead_after: None,
            heal_rate: None,
        };
        Node::start(config).await.unwrap()
    }

    /// An upload to `default/key` with two parts.
    async fn begin(node: &Node, key: &str) -> WriteId {
        let id = node.create_upload("default", key, UploadOptions::default()).await.unwrap();
        for number in [1, 2] {
            let digests = ready(Ok(Digests::default()));
            node.put_part("default", key, &id, number, &b"content"[..], digests).await.unwrap();
        }
        id
    }

    /// How many registers of uploads and of parts there are.
    async fn left(node: &Node) -> (usize, usize) {
        let count = async |prefix: Vec<u8>| {
            let page = node.inner.page(prefix.into(), None, usize::MAX, Consistency::Linearizable).await;
            page.unwrap().entries.len()
        };
        (count(RegisterName::all_uploads_prefix()).await, count(RegisterName::all_parts_prefix()).await)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_crash_leaves_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let inner = &node.inner;
        let (open, aborted, done) =
            (begin(&node, "open").await, begin(&node, "aborted").await, begin(&node, "done").await);
        // One crashed when it had removed the upload, the other when it had written the object.
        let upload = RegisterName::upload("default", "aborted", &aborted).unwrap();
        inner.drop_register(&upload).await.unwrap().unwrap();
        let name = RegisterName::object("default", "done").unwrap();
        let wanted = [WantedPart { number: 1, md5: None }, WantedPart { number: 2, md5: None }];
        let digests = |_: &[PartInfo]| Ok(Digests::default());
        let place = ("default", "done", &done);
        inner.put_together(&name, place, &wanted, Condition::None, digests).await.unwrap();
        assert_eq!(left(&node).await, (2, 6));

        let now = sys::now_ms();
        sweep_once(inner, now).await.unwrap();
        assert_eq!(left(&node).await, (1, 4), "parts may be just on their way");
        sweep_once(inner, now + 2 * HOUR).await.unwrap();
        assert_eq!(left(&node).await, (1, 2));
        assert!(node.upload("default", "open", &open).await.is_ok());
        assert_eq!(node.stat("default", "done", Consistency::Linearizable).await.unwrap().size, 14);
        sweep_once(inner, now + 8 * 24 * HOUR).await.unwrap();
        assert_eq!(left(&node).await, (0, 0), "nobody went on with it");
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_completes_it_second_is_told_what_the_first_completed() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let id = begin(&node, "a").await;
        let name = RegisterName::object("default", "a").unwrap();
        let one = [WantedPart { number: 1, md5: None }];
        let both = [one[0], WantedPart { number: 2, md5: None }];
        let digests =
            |parts: &[PartInfo]| Ok(Digests { parts: Some(parts.len() as u16), ..Digests::default() });
        let put_together = async |wanted: &[WantedPart]| {
            let place = ("default", "a", &id);
            let done = node.inner.put_together(&name, place, wanted, Condition::None, digests).await;
            let (stored, digests) = done.unwrap();
            (stored.size, digests.parts)
        };
        // Both found that it was not completed yet, and the parts.
        assert_eq!(put_together(&one).await, (7, Some(1)));
        assert_eq!(put_together(&both).await, (7, Some(1)));
        let info = node.stat("default", "a", Consistency::Linearizable).await.unwrap();
        assert_eq!(info.size, 7);
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn completing_again_after_a_crash_does_nothing_new() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let id = begin(&node, "a").await;
        let wanted = [WantedPart { number: 1, md5: None }];
        let digests = |_: &[PartInfo]| Ok(Digests { parts: Some(1), ..Digests::default() });
        let name = RegisterName::object("default", "a").unwrap();
        let place = ("default", "a", &id);
        node.inner.put_together(&name, place, &wanted, Condition::None, digests).await.unwrap();
        // The object was replaced before the client asks again.
        node.put("default", "a", &b"newer"[..], PutOptions::default()).await.unwrap();
        let again = node.complete_upload("default", "a", &id, &wanted, Condition::Absent, digests).await;
        assert_eq!(again.unwrap().0.etag, id);
        let info = node.stat("default", "a", Consistency::Linearizable).await.unwrap();
        assert_eq!((info.size, left(&node).await), (5, (0, 0)));
        node.stop().await;
    }
}
