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
    id::WriteId,
    manifest::ChunkRef,
    name::{MAX_PARTS, RegisterName},
    record::{Body, Digests, MAX_INLINE, Part, Record, UploadRecord},
    register::State,
};
use tokio::io::AsyncRead;

use crate::{
    api::{
        Condition, Consistency, PartInfo, PartPage, PutOptions, Stored, UploadInfo, UploadOptions,
        UploadPage, WantedPart,
    },
    content::Content,
    copy::tree_of,
    error::Error,
    inner::{Inner, object_of, permit},
    put::{QUEUE_PATIENCE, Source, Upload, fill},
    register::Outcome,
    sys,
};

/// Registers that are read or removed at once.
const PARALLEL: usize = 16;
/// A list of parts up to this length stands in the record.
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
        })
    }

    /// See [`crate::Node::put_part`].
    pub(crate) async fn put_part<R: AsyncRead + Unpin + Send>(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
        number: u16,
        mut reader: R,
        digests: impl Future<Output = std::io::Result<Digests>>,
    ) -> Result<Stored, Error> {
        let name = RegisterName::part(bucket, key, id, number)?;
        let mut head = Vec::new();
        let (end, _) = tokio::try_join!(
            fill(&mut reader, &mut head, MAX_INLINE + 1),
            self.upload_record(bucket, key, id)
        )?;
        let source = Source { reader, head, end };
        // A part is never inline: its chunks are to become the object's.
        let options = PutOptions::default();
        let inline = 0;
        let stored = self.put_at(&name, WriteId(sys::random()), source, options, digests, inline).await?;
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
                self.drop_register(part).await?;
                Err(Error::NoSuchUpload(id))
            }
            other => other.map(drop),
        }
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
        let (source, mut record, old) = self.find(from.0, from.1, Consistency::Linearizable).await?;
        if old != from.2 {
            return Err(Error::Precondition { current: Some(old) });
        }
        let body = record.open(self.key()?, &source, &old)?;
        let Some(part) = tree_of(&record, body) else { return Ok(None) };
        if part.tree.roots.len() > pando_core::manifest::MAX_PART_ROOTS {
            return Ok(None);
        }
        let version = WriteId(sys::random());
        let _transfer = permit(&self.limits.puts, QUEUE_PATIENCE, "too many puts at once").await?;
        let mut upload = Upload::new(self, name.clone(), version);
        upload.adopt(&mut Content::of_parts(vec![part.clone()], None)).await?;
        upload.stay_alive().await?;
        record.body = Body::Chunks(part.tree).seal(self.key()?, &name, &version);
        record.modified = sys::now_ms();
        let stored = self.commit(&name, version, &record, Condition::None).await?.with(Some(upload.fewest));
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
                let mut last = RegisterName::upload_prefix(bucket, key)?;
                last.extend([0, 0xff]);
                Some(Bytes::from(last))
            }
        };
        let mut uploads: Vec<UploadInfo> = Vec::new();
        loop {
            let wanted = limit + 1 - uploads.len();
            let page = self.page(prefix.clone(), from, wanted, Consistency::Linearizable).await?;
            uploads.extend(page.entries.iter().filter_map(|(name, summary)| {
                let (_, key, id) = name.upload_parts()?;
                let (checksum, composite) = Default::default();
                Some(UploadInfo { id, key: key.to_owned(), created: summary.modified, checksum, composite })
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
        let done = match self.put_together(&name, (bucket, key, id), wanted, condition, digests).await {
            // Someone else may have completed it meanwhile, or this client before, without hearing of it.
            Err(error @ (Error::NoSuchUpload(_) | Error::NoSuchPart(_))) => {
                self.completed_before(&name, id).await?.ok_or(error)?
            }
            done => done?,
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
        let begun = self.upload_record(bucket, key, id).await?;
        if wanted.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(Error::PartOrder);
        }
        let reads = wanted.iter().copied().map(|wanted| async move {
            let part = RegisterName::part(bucket, key, id, wanted.number)?;
            match self.read_part(&part).await? {
                Some((record, version)) if wanted.md5.is_none_or(|md5| record.digests.md5 == Some(md5)) => {
                    let body = record.open(self.key()?, &part, &version)?;
                    let tree = tree_of(&record, body).ok_or(Error::NoSuchPart(wanted.number))?;
                    Ok((part_info(wanted.number, &record, version), tree))
                }
                _ => Err(Error::NoSuchPart(wanted.number)),
            }
        });
        let found: Vec<(PartInfo, Part)> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        let (infos, parts): (Vec<PartInfo>, Vec<Part>) = found.into_iter().unzip();
        let digests = digests(&infos)?;
        let size = infos.iter().map(|info| info.size).sum();

        let _transfer = permit(&self.limits.puts, QUEUE_PATIENCE, "too many puts at once").await?;
        let mut upload = Upload::new(self, name.clone(), *id);
        upload.adopt(&mut Content::of_parts(parts.clone(), None)).await?;
        let list = Part::encode_list(&parts);
        let body = if list.len() <= LIST_INLINE {
            Body::Parts(parts)
        } else {
            let (chunk, len): (ChunkRef, usize) = (upload.keep_node(list.clone()).await?, list.len());
            Body::PartsIn(chunk, len as u32)
        };
        upload.stay_alive().await?;
        let record = Record {
            size,
            hash: [0; 32],
            modified: sys::now_ms(),
            meta: begun.meta,
            epoch: 1,
            body: body.seal(self.key()?, name, id),
            headers: begun.headers,
            digests: digests.clone(),
            tags: begun.tags,
        };
        let stored = self.commit(name, *id, &record, condition).await?.with(Some(upload.fewest));
        Ok((stored, digests))
    }

    /// The object, if an upload that is gone became it.
    async fn completed_before(
        self: &Arc<Self>,
        name: &RegisterName,
        id: &WriteId,
    ) -> Result<Option<(Stored, Digests)>, Error> {
        let found = self.read(name).await?;
        match object_of(found.as_ref().map(|accepted| &accepted.value))? {
            Some((record, version)) if version == *id => {
                let copies = self.layout()?.owners(name.partition()).len();
                let stored =
                    Stored { size: record.size, hash: record.hash, etag: version, copies, wanted: copies };
                Ok(Some((stored, record.digests)))
            }
            _ => Ok(None),
        }
    }

    /// See [`crate::Node::abort_upload`].
    pub(crate) async fn abort_upload(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: &WriteId,
    ) -> Result<(), Error> {
        // The upload first: no part can come any more.
        let there = self.drop_register(&RegisterName::upload(bucket, key, id)?).await?;
        loop {
            let parts = self.part_names(bucket, key, id, 0, 1000).await?;
            if parts.is_empty() {
                break;
            }
            let drops = parts.into_iter().map(|(_, name)| async move { self.drop_register(&name).await });
            stream::iter(drops).buffer_unordered(PARALLEL).try_for_each(|_| async { Ok(()) }).await?;
        }
        if there { Ok(()) } else { Err(Error::NoSuchUpload(*id)) }
    }

    /// Makes a register a tombstone, and has its chunks looked at; `false`: there was nothing.
    async fn drop_register(self: &Arc<Self>, name: &RegisterName) -> Result<bool, Error> {
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
        let is_part = name.part_parts().is_some();
        if let (Some(version), true, Outcome::Written(_)) = (version, is_part, &outcome) {
            self.forget(version);
        }
        Ok(matches!(outcome, Outcome::Written(_)))
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
        if let Err(error) = sweep_once(&inner, sys::now_ms()).await {
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
                if first == Some(inner.id) {
                    sweep_register(inner, &name, age).await?;
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
        let object = RegisterName::object(bucket, key)?;
        let found = inner.read(&object).await?;
        // Who completed it did not get to the end.
        let is_done = found.is_some_and(|accepted| accepted.value.recent.contains(&id));
        if is_done || age >= ABANDONED {
            tracing::info!(upload = %name, "an upload that is over is removed");
            return match inner.abort_upload(bucket, key, &id).await {
                Err(Error::NoSuchUpload(_)) => Ok(()),
                other => other,
            };
        }
    }
    if let Some((bucket, key, id, _)) = name.part_parts()
        && age >= ORPHANED
        && let Err(Error::NoSuchUpload(_)) = inner.upload_record(bucket, key, &id).await
    {
        tracing::info!(part = %name, "a part without an upload is removed");
        inner.drop_register(name).await?;
    }
    Ok(())
}
