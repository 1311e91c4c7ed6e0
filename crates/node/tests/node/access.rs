//! Access keys, and what a face of the node keeps with an object: headers, digests, conditions on them.

use std::{future::ready, io};

use pando_node::{
    Condition, Consistency, Error, Node, PutOptions, Stored,
    core::{
        access::{Grants, Right},
        record::{Checksum, Digests, Headers},
        seal::CHUNK,
    },
};

use crate::grove::{Grove, content, files_below, get, put};

fn md5(byte: u8) -> Digests {
    Digests { md5: Some([byte; 16]), ..Digests::default() }
}

async fn put_if(node: &Node, condition: Condition, digests: Digests) -> Result<Stored, Error> {
    let options = PutOptions { condition, ..PutOptions::default() };
    node.put_with("default", "a", &b"x"[..], options, ready(Ok(digests))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_known_everywhere_until_it_is_removed() {
    let grove = Grove::of(3).await;
    let grants = Grants::Buckets(vec![("photos".into(), Right::Write), ("mail".into(), Right::Read)]);
    let made = grove.node(0).create_key("backup", grants.clone()).await.unwrap();
    let all = grove.node(1).create_key("", Grants::All).await.unwrap();
    assert_ne!(made.secret, all.secret);
    assert_eq!((made.info.name.as_str(), &made.info.grants), ("backup", &grants));
    let mut infos = vec![made.info.clone(), all.info];
    infos.sort_by(|a, b| a.id.cmp(&b.id));
    for node in 0..3 {
        assert_eq!(grove.node(node).access_key(&made.info.id).await.unwrap(), made);
        assert_eq!(grove.node(node).list_keys().await.unwrap(), infos);
    }
    grove.node(2).remove_key(&made.info.id).await.unwrap();
    for node in 0..3 {
        let gone = grove.node(node).access_key(&made.info.id).await;
        assert!(matches!(gone, Err(Error::NoSuchKey(_))), "{gone:?}");
        assert_eq!(grove.node(node).list_keys().await.unwrap().len(), 1);
    }
    let again = grove.node(0).remove_key(&made.info.id).await;
    assert!(matches!(again, Err(Error::NoSuchKey(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_told_so() {
    let grove = Grove::of(1).await;
    for id in ["", "AKIAIOSFODNN7EXAMPLE", "PNDOABCDEFGHIJ234567", &"x".repeat(5000)] {
        let found = grove.node(0).access_key(id).await;
        assert!(matches!(found, Err(Error::NoSuchKey(_))), "{found:?}");
    }
    let bad = grove.node(0).create_key("", Grants::Buckets(vec![("NO".into(), Right::Read)])).await;
    assert!(matches!(bad, Err(Error::Record(_))), "{bad:?}");
    assert!(grove.node(0).list_keys().await.unwrap().is_empty(), "and nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_on_disk() {
    let mut grove = Grove::of(1).await;
    let made = grove.node(0).create_key("findable name", Grants::All).await.unwrap();
    grove.stop(0).await;
    let holds = |what: &[u8]| {
        files_below(&grove.data(0))
            .iter()
            .any(|file| std::fs::read(file).unwrap().windows(what.len()).any(|window| window == what))
    };
    assert!(holds(b"findable name"), "the record is on disk");
    assert!(!holds(&made.secret.0) && !holds(made.secret.reveal().as_bytes()));
    grove.restart(0).await;
    assert_eq!(grove.node(0).access_key(&made.info.id).await.unwrap(), made);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_digests_are_kept() {
    let grove = Grove::of(1).await;
    let headers = Headers { cache_control: Some("no-store".into()), ..Headers::default() };
    let digests =
        Digests { md5: Some([1; 16]), checksum: Some(Checksum::Crc64Nvme([2; 8])), ..Digests::default() };
    for bytes in [content(1, 10), content(1, CHUNK + 1)] {
        let options = PutOptions { headers: headers.clone(), ..PutOptions::default() };
        let node = grove.node(0);
        node.put_with("default", "a", bytes.as_slice(), options, ready(Ok(digests.clone()))).await.unwrap();
        let info = node.stat("default", "a", Consistency::Linearizable).await.unwrap();
        assert_eq!((&info.headers, &info.digests), (&headers, &digests));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_that_fail_leave_the_old_object() {
    let grove = Grove::of(3).await;
    put(grove.node(0), "a", b"old").await.unwrap();
    for bytes in [content(1, 10), content(1, CHUNK + 1)] {
        let mut left = bytes.as_slice();
        let wrong = ready(Err(io::Error::other("the checksum is wrong")));
        let refused = grove.node(1).put_with("default", "a", &mut left, PutOptions::default(), wrong).await;
        assert!(matches!(refused, Err(Error::Source(_))), "{refused:?}");
        assert!(left.is_empty(), "they are asked for when all was read");
    }
    assert_eq!(get(grove.node(2), "a").await.unwrap(), b"old");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_the_md5_are_atomic() {
    let grove = Grove::of(3).await;
    let absent = put_if(grove.node(0), Condition::Exists, md5(1)).await;
    assert!(matches!(absent, Err(Error::Precondition { current: None })), "{absent:?}");
    put(grove.node(0), "a", b"without a digest").await.unwrap();
    let unknown = put_if(grove.node(0), Condition::Md5([0; 16]), md5(1)).await;
    assert!(matches!(unknown, Err(Error::Precondition { current: Some(_) })), "{unknown:?}");
    put_if(grove.node(1), Condition::Exists, md5(1)).await.unwrap();
    for round in 1..10 {
        let puts = (0..20).map(|writer| {
            // None of them gives the object the digest that the others ask for.
            put_if(grove.node(writer % 3), Condition::Md5([round; 16]), md5(round + 1))
        });
        let ended = futures_util::future::join_all(puts).await;
        let refused = |end: &&Result<Stored, Error>| matches!(end, Err(Error::Precondition { .. }));
        assert_eq!(ended.iter().filter(|end| end.is_ok()).count(), 1, "round {round}: {ended:?}");
        assert_eq!(ended.iter().filter(refused).count(), 19, "round {round}: {ended:?}");
    }
}
