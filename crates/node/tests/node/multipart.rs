//! Copies that move no content, and uploads in parts.

use std::{future::ready, time::Duration};

use pando_node::{
    ByteRange, Condition, Consistency, CopyOptions, Error, Node, PutOptions, UploadOptions, WantedPart,
    core::{
        id::WriteId,
        record::{Digests, UserMeta},
        seal::CHUNK,
    },
};
use tokio::io::AsyncWriteExt as _;

use crate::grove::{Grove, content, eventually, get, get_range, put};

fn digests(bytes: &[u8]) -> Digests {
    let hash = *blake3::hash(bytes).as_bytes();
    Digests { md5: Some(hash[..16].try_into().unwrap()), ..Digests::default() }
}

async fn put_part(node: &Node, id: &WriteId, number: u16, bytes: &[u8]) -> Result<(), Error> {
    let digests = ready(Ok(digests(bytes)));
    node.put_part("default", "whole", id, number, bytes, digests).await.map(drop)
}

fn wanted(parts: &[(u16, &[u8])]) -> Vec<WantedPart> {
    parts.iter().map(|(number, bytes)| WantedPart { number: *number, md5: digests(bytes).md5 }).collect()
}

async fn complete(
    node: &Node,
    id: &WriteId,
    wanted: &[WantedPart],
    condition: Condition,
) -> Result<(), Error> {
    let whole = |parts: &[pando_node::PartInfo]| {
        Ok(Digests { md5: Some([9; 16]), parts: Some(parts.len() as u16), ..Digests::default() })
    };
    node.complete_upload("default", "whole", id, wanted, condition, whole).await.map(drop)
}

async fn clean(grove: &Grove) {
    let progress = tokio::sync::watch::Sender::default();
    eventually("a deep check is clean", || async {
        let report = grove.node(0).check(true, &progress).await.unwrap();
        report.is_clean()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_outlives_its_source() {
    let grove = Grove::with(3, None, Duration::from_secs(2)).await;
    for bytes in [content(1, 10), content(2, 2 * CHUNK + 1)] {
        put(grove.node(0), "source", &bytes).await.unwrap();
        let options = CopyOptions::default();
        let copied = grove.node(1).copy(("default", "source"), ("default", "copy"), options).await.unwrap();
        assert_eq!(copied.0.size, bytes.len() as u64);
        let files = grove.chunk_files(0).len();
        grove.node(2).remove("default", "source").await.unwrap();
        // Overwriting an object of another length frees its chunks: when they are gone, the collector was there.
        put(grove.node(0), "other", &content(9, CHUNK + 9)).await.unwrap();
        grove.node(0).remove("default", "other").await.unwrap();
        eventually("what nobody needs is gone", || async { grove.chunk_files(0).len() == files }).await;
        assert_eq!(get(grove.node(2), "copy").await.unwrap(), bytes);
    }
    clean(&grove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_onto_itself_changes_what_is_said() {
    let grove = Grove::of(3).await;
    let bytes = content(1, CHUNK + 5);
    put(grove.node(0), "a", &bytes).await.unwrap();
    let before = grove.node(0).stat("default", "a", Consistency::Linearizable).await.unwrap();
    let meta = UserMeta { content_type: Some("text/plain".into()), entries: vec![("x".into(), "y".into())] };
    let replace = Some((meta.clone(), Default::default()));
    let options = CopyOptions { replace, source: Some(before.etag), ..CopyOptions::default() };
    grove.node(1).copy(("default", "a"), ("default", "a"), options.clone()).await.unwrap();
    let after = grove.node(2).stat("default", "a", Consistency::Linearizable).await.unwrap();
    assert_eq!((after.meta, after.hash), (meta.clone(), before.hash));
    let again = grove.node(0).copy(("default", "a"), ("default", "a"), options).await;
    assert!(matches!(again, Err(Error::Precondition { .. })), "{again:?}");

    let tags = vec![("color".to_owned(), "red".to_owned())];
    let tagged = grove.node(0).set_tags("default", "a", tags.clone(), None).await.unwrap();
    assert_eq!((tagged.tags, tagged.modified, tagged.meta), (tags, after.modified, meta));
    assert_eq!(get(grove.node(2), "a").await.unwrap(), bytes);
    let missing = grove.node(0).copy(("default", "none"), ("default", "b"), CopyOptions::default()).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    let nowhere = grove.node(0).copy(("default", "a"), ("nowhere", "b"), CopyOptions::default()).await;
    assert!(matches!(nowhere, Err(Error::NoSuchBucket(_))), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_works_with_an_owner_down() {
    let mut grove = Grove::of(3).await;
    let bytes = content(1, 3 * CHUNK);
    put(grove.node(0), "a", &bytes).await.unwrap();
    grove.stop(2).await;
    grove.node(0).copy(("default", "a"), ("default", "b"), CopyOptions::default()).await.unwrap();
    grove.node(0).remove("default", "a").await.unwrap();
    grove.restart(2).await;
    grove.settled().await;
    clean(&grove).await;
    assert_eq!(get(grove.node(2), "b").await.unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_through_three_nodes_make_an_object() {
    let grove = Grove::with(3, None, Duration::from_secs(2)).await;
    let options = UploadOptions {
        meta: UserMeta { content_type: Some("video/webm".into()), entries: Vec::new() },
        tags: vec![("a".into(), "b".into())],
        ..UploadOptions::default()
    };
    let id = grove.node(0).create_upload("default", "whole", options).await.unwrap();
    let parts = [content(1, CHUNK + 70_000), content(2, 100), content(3, 2 * CHUNK), content(4, 1)];
    put_part(grove.node(1), &id, 3, &content(8, CHUNK + 1)).await.unwrap();
    for (index, bytes) in parts.iter().enumerate().rev() {
        put_part(grove.node(index % 3), &id, index as u16 + 1, bytes).await.unwrap();
    }
    let page = grove.node(2).list_parts("default", "whole", &id, 0, 3).await.unwrap();
    let sizes: Vec<u64> = page.parts.iter().map(|part| part.size).collect();
    assert_eq!((sizes, page.next), (vec![CHUNK as u64 + 70_000, 100, 2 * CHUNK as u64], Some(3)));
    let rest = grove.node(2).list_parts("default", "whole", &id, 3, 3).await.unwrap();
    assert_eq!((rest.parts.len(), rest.parts[0].number, rest.next), (1, 4, None));
    let uploads = grove.node(1).list_uploads("default", "wh", None, 10).await.unwrap();
    assert_eq!((uploads.uploads.len(), uploads.uploads[0].id, uploads.more), (1, id, false));
    assert!(get(grove.node(0), "whole").await.is_err(), "it is no object yet");

    let list: Vec<(u16, &[u8])> = (1..).zip(parts.iter().map(Vec::as_slice)).collect();
    complete(grove.node(2), &id, &wanted(&list), Condition::Absent).await.unwrap();
    let whole = parts.concat();
    assert_eq!(get(grove.node(0), "whole").await.unwrap(), whole);
    let info = grove.node(1).stat("default", "whole", Consistency::Linearizable).await.unwrap();
    assert_eq!((info.size, info.etag, info.digests.parts), (whole.len() as u64, id, Some(4)));
    assert_eq!((info.meta.content_type.as_deref(), info.hash), (Some("video/webm"), None));
    // Ranges within, across and at the borders of parts and chunks.
    let first = parts[0].len() as u64;
    for start in
        [0, 5, CHUNK as u64 - 1, CHUNK as u64, first - 1, first, first + 99, first + 100, first + 70_000]
    {
        for len in [1, 200, 70_000, CHUNK as u64 + 80_000] {
            let end = (start + len).min(whole.len() as u64);
            let range = ByteRange::Inclusive(start, end - 1);
            let got = get_range(grove.node(1), "whole", range).await.unwrap();
            assert!(got == whole[start as usize..end as usize], "{start}..{end}");
        }
    }
    assert!(get_range(grove.node(1), "whole", ByteRange::Last(1)).await.unwrap() == whole[whole.len() - 1..]);

    // Done again, through another node, and with everything of the upload gone.
    complete(grove.node(0), &id, &wanted(&list), Condition::Absent).await.unwrap();
    let gone = put_part(grove.node(0), &id, 1, b"late").await;
    assert!(matches!(gone, Err(Error::NoSuchUpload(_))), "{gone:?}");
    // A copy of it, without it.
    grove.node(0).copy(("default", "whole"), ("default", "copy"), CopyOptions::default()).await.unwrap();
    grove.node(0).remove("default", "whole").await.unwrap();
    clean(&grove).await;
    assert_eq!(get(grove.node(2), "copy").await.unwrap(), whole);
    grove.node(0).remove("default", "copy").await.unwrap();
    eventually("nothing is left", || async { (0..3).all(|node| grove.chunk_files(node).is_empty()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_parts_are_listed_in_a_chunk() {
    let grove = Grove::of(1).await;
    let id = grove.node(0).create_upload("default", "whole", UploadOptions::default()).await.unwrap();
    let parts: Vec<Vec<u8>> =
        (0..250u16).map(|number| content(number as u8, 10 + usize::from(number))).collect();
    for (index, bytes) in parts.iter().enumerate() {
        put_part(grove.node(0), &id, index as u16 * 40 + 1, bytes).await.unwrap();
    }
    let list: Vec<(u16, &[u8])> =
        parts.iter().enumerate().map(|(index, bytes)| (index as u16 * 40 + 1, bytes.as_slice())).collect();
    complete(grove.node(0), &id, &wanted(&list), Condition::None).await.unwrap();
    let whole = parts.concat();
    assert_eq!(get(grove.node(0), "whole").await.unwrap(), whole);
    let range = ByteRange::Inclusive(1000, 9000);
    assert_eq!(get_range(grove.node(0), "whole", range).await.unwrap(), whole[1000..=9000]);
    grove.node(0).copy(("default", "whole"), ("default", "copy"), CopyOptions::default()).await.unwrap();
    assert_eq!(get(grove.node(0), "copy").await.unwrap(), whole);
    clean(&grove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused() {
    let grove = Grove::of(1).await;
    let node = grove.node(0);
    let id = node.create_upload("default", "whole", UploadOptions::default()).await.unwrap();
    for number in [0, 10_001] {
        let refused = put_part(node, &id, number, b"x").await;
        assert!(matches!(refused, Err(Error::Name(_))), "{refused:?}");
    }
    let stranger = put_part(node, &WriteId([7; 16]), 1, b"x").await;
    assert!(matches!(stranger, Err(Error::NoSuchUpload(_))), "{stranger:?}");
    put_part(node, &id, 1, b"one").await.unwrap();
    put_part(node, &id, 2, b"two").await.unwrap();
    let order = complete(node, &id, &wanted(&[(2, b"two"), (1, b"one")]), Condition::None).await;
    assert!(matches!(order, Err(Error::PartOrder)), "{order:?}");
    for list in [&[(1, &b"one"[..]), (3, b"three")][..], &[(1, b"other")]] {
        let missing = complete(node, &id, &wanted(list), Condition::None).await;
        assert!(matches!(missing, Err(Error::NoSuchPart(_))), "{missing:?}");
    }
    let exists = complete(node, &id, &wanted(&[(1, b"one")]), Condition::Exists).await;
    assert!(matches!(exists, Err(Error::Precondition { .. })), "{exists:?}");
    complete(node, &id, &wanted(&[(2, b"two")]), Condition::None).await.unwrap();
    assert_eq!(get(node, "whole").await.unwrap(), b"two", "a part that is not wanted is left out");
    let nowhere = node.create_upload("nowhere", "a", UploadOptions::default()).await;
    assert!(matches!(nowhere, Err(Error::NoSuchBucket(_))), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_leaves_nothing() {
    let grove = Grove::with(3, None, Duration::from_secs(2)).await;
    let id = grove.node(0).create_upload("default", "whole", UploadOptions::default()).await.unwrap();
    for number in 1..4 {
        put_part(grove.node(1), &id, number, &content(number as u8, CHUNK + 1)).await.unwrap();
    }
    assert!(!grove.chunk_files(0).is_empty());
    grove.node(2).abort_upload("default", "whole", &id).await.unwrap();
    let again = grove.node(0).abort_upload("default", "whole", &id).await;
    assert!(matches!(again, Err(Error::NoSuchUpload(_))), "{again:?}");
    assert!(grove.node(1).list_uploads("default", "", None, 10).await.unwrap().uploads.is_empty());
    eventually("nothing is left", || async { (0..3).all(|node| grove.chunk_files(node).is_empty()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_complete_both_succeed() {
    let grove = Grove::of(3).await;
    let id = grove.node(0).create_upload("default", "whole", UploadOptions::default()).await.unwrap();
    let bytes = content(1, CHUNK + 1);
    put_part(grove.node(0), &id, 1, &bytes).await.unwrap();
    let list = wanted(&[(1, &bytes)]);
    let (one, two) = tokio::join!(
        complete(grove.node(1), &id, &list, Condition::Absent),
        complete(grove.node(2), &id, &list, Condition::Absent),
    );
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(get(grove.node(0), "whole").await.unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_object_becomes_a_part() {
    let grove = Grove::of(3).await;
    let node = grove.node(0);
    // More chunks than the list of parts may hold of one: they go under a node.
    let bytes = content(1, 5 * CHUNK + 3);
    put(node, "source", &bytes).await.unwrap();
    let source = node.stat("default", "source", Consistency::Linearizable).await.unwrap();
    let id = node.create_upload("default", "whole", UploadOptions::default()).await.unwrap();
    let from = ("default", "source", source.etag);
    let copied = grove.node(1).copy_part(from, "default", "whole", &id, 1).await.unwrap();
    assert_eq!(copied.unwrap().0.size, bytes.len() as u64);
    put_part(grove.node(2), &id, 2, b"and more").await.unwrap();
    let parts = [1, 2].map(|number| WantedPart { number, md5: None });
    complete(node, &id, &parts, Condition::None).await.unwrap();
    node.remove("default", "source").await.unwrap();
    assert!(get(node, "whole").await.unwrap() == [bytes, b"and more".to_vec()].concat());
    clean(&grove).await;
    // What consists of parts itself is read and put: lists of parts don't nest.
    let whole = node.stat("default", "whole", Consistency::Linearizable).await.unwrap();
    let id = node.create_upload("default", "other", UploadOptions::default()).await.unwrap();
    let copied = node.copy_part(("default", "whole", whole.etag), "default", "other", &id, 1).await.unwrap();
    assert!(copied.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_many_chunks_outlives_its_source() {
    let grove = Grove::with(3, None, Duration::from_secs(2)).await;
    // Two different chunks, and so many of them that a manifest node lists them.
    let block = content(1, CHUNK);
    let mut bytes = block.repeat(67);
    bytes[40 * CHUNK] ^= 1;
    put(grove.node(0), "source", &bytes).await.unwrap();
    grove.node(1).copy(("default", "source"), ("default", "copy"), CopyOptions::default()).await.unwrap();
    let files = grove.chunk_files(0).len();
    grove.node(2).remove("default", "source").await.unwrap();
    put(grove.node(0), "other", &content(9, CHUNK + 9)).await.unwrap();
    grove.node(0).remove("default", "other").await.unwrap();
    eventually("what nobody needs is gone", || async { grove.chunk_files(0).len() == files }).await;
    assert!(get(grove.node(2), "copy").await.unwrap() == bytes);
    let across = ByteRange::Inclusive(40 * CHUNK as u64 - 5, 41 * CHUNK as u64 + 5);
    let got = get_range(grove.node(1), "copy", across).await.unwrap();
    assert!(got == bytes[40 * CHUNK - 5..=41 * CHUNK + 5]);
    clean(&grove).await;
    grove.node(1).remove("default", "copy").await.unwrap();
    eventually("nothing is left", || async { (0..3).all(|node| grove.chunk_files(node).is_empty()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_does_not_outlive_its_upload() {
    let grove = Grove::with(3, None, Duration::from_secs(2)).await;
    let id = grove.node(0).create_upload("default", "whole", UploadOptions::default()).await.unwrap();
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let node = grove.node(0).clone();
    let putting = tokio::spawn(async move {
        node.put_part("default", "whole", &id, 1, reader, ready(Ok(Digests::default()))).await
    });
    writer.write_all(&content(1, CHUNK + 5)).await.unwrap();
    eventually("it is on its way", || async { !grove.chunk_files(1).is_empty() }).await;
    grove.node(1).abort_upload("default", "whole", &id).await.unwrap();
    drop(writer);
    let late = putting.await.unwrap();
    assert!(matches!(late, Err(Error::NoSuchUpload(_))), "{late:?}");
    eventually("nothing is left", || async { (0..3).all(|node| grove.chunk_files(node).is_empty()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_keys_that_look_alike_are_kept_apart() {
    let grove = Grove::of(1).await;
    let node = grove.node(0);
    let first = node.create_upload("default", "a", UploadOptions::default()).await.unwrap();
    let tricky = format!("a\0{first}\000001");
    let mut uploads = vec![("a".to_owned(), first)];
    for key in [tricky.as_str(), "a\0", "a\u{1}", "a!", "b"] {
        let id = node.create_upload("default", key, UploadOptions::default()).await.unwrap();
        node.put_part("default", key, &id, 1, &b"x"[..], ready(Ok(Digests::default()))).await.unwrap();
        uploads.push((key.to_owned(), id));
    }
    assert!(node.list_parts("default", "a", &first, 0, 10).await.unwrap().parts.is_empty());
    uploads.sort();
    let mut listed = Vec::new();
    loop {
        let after = listed.last().map(|(key, id): &(String, WriteId)| (key.as_str(), Some(*id)));
        let page = node.list_uploads("default", "a", after, 2).await.unwrap();
        listed.extend(page.uploads.into_iter().map(|upload| (upload.key, upload.id)));
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, uploads[..5]);
    let rest = node.list_uploads("default", "", Some(("a", None)), 10).await.unwrap();
    assert_eq!((rest.uploads.len(), rest.uploads[0].key.as_str()), (5, "a\0"));
    node.abort_upload("default", "a", &first).await.unwrap();
    let (key, id) = uploads.iter().find(|(key, _)| *key == tricky).unwrap();
    assert_eq!(node.list_parts("default", key, id, 0, 10).await.unwrap().parts.len(), 1, "another upload's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_goes_with_its_uploads() {
    let grove = Grove::with(3, None, Duration::from_secs(2)).await;
    let node = grove.node(0);
    node.create_bucket("films").await.unwrap();
    let id = node.create_upload("films", "a", UploadOptions::default()).await.unwrap();
    let part = content(1, CHUNK);
    node.put_part("films", "a", &id, 1, &part[..], ready(Ok(Digests::default()))).await.unwrap();
    put(node, "kept", b"x").await.unwrap();
    node.put("films", "b", &b"x"[..], PutOptions::default()).await.unwrap();
    let refused = node.remove_bucket("films").await;
    assert!(matches!(refused, Err(Error::BucketNotEmpty(_))), "{refused:?}");
    assert!(node.upload("films", "a", &id).await.is_ok(), "nothing was done");
    node.remove("films", "b").await.unwrap();
    grove.node(1).remove_bucket("films").await.unwrap();
    let gone = node.upload("films", "a", &id).await;
    assert!(matches!(gone, Err(Error::NoSuchUpload(_))), "{gone:?}");
    eventually("nothing is left", || async { (0..3).all(|node| grove.chunk_files(node).is_empty()) }).await;
}
