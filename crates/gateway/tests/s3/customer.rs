//! Objects that clients encrypt with keys of their own (SSE-C).

use data_encoding::BASE64;
use pando_node::Consistency;

use crate::client::{Answer, Call, Client, Site, call};

const LEAST: usize = 5 << 20;
const ALGORITHM: &str = "x-amz-server-side-encryption-customer-algorithm";
const KEY: &str = "x-amz-server-side-encryption-customer-key";
const KEY_MD5: &str = "x-amz-server-side-encryption-customer-key-md5";

/// The key of 32 such bytes, and its MD5.
fn key(byte: u8) -> (String, String) {
    let md5 = match byte {
        1 => "4Funlf7OsLF0HL+vKU+fkg==",
        2 => "F3apf5enN9TQbA8CaOS4/g==",
        _ => unreachable!("no such test key"),
    };
    (BASE64.encode(&[byte; 32]), md5.to_owned())
}

fn with(call: Call, byte: u8) -> Call {
    let (key, md5) = key(byte);
    call.header(ALGORITHM, "AES256").header(KEY, &key).header(KEY_MD5, &md5)
}

/// The key of a copy's source.
fn with_source(call: Call, byte: u8) -> Call {
    let (key, md5) = key(byte);
    let header = |name: &str| name.replace("x-amz-", "x-amz-copy-source-");
    call.header(&header(ALGORITHM), "AES256").header(&header(KEY), &key).header(&header(KEY_MD5), &md5)
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

/// What the node holds of an object, as it holds it.
async fn held(site: &Site, key: &str) -> Vec<u8> {
    let mut object = site.node.get("default", key, None, Consistency::Linearizable).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = object.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    bytes
}

#[track_caller]
fn echoes(answer: &Answer, byte: u8) {
    assert_eq!((answer.header(ALGORITHM), answer.header(KEY_MD5)), ("AES256", &*key(byte).1));
    assert_eq!(answer.header(KEY), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_with_their_key_only() {
    let site = Site::new().await;
    let client = &site.client;
    for len in [0, 5, 100_000, 5_000_000] {
        let (path, plain) = (format!("/default/{len}"), content(len));
        let put = with(call("PUT", &path).body(plain.clone()).header("x-amz-meta-a", "b"), 1);
        let put = client.send(put).await.ok();
        echoes(&put, 1);
        let got = client.send(with(call("GET", &path), 1)).await.ok();
        assert!(got.body == plain, "{len}");
        echoes(&got, 1);
        assert_eq!(got.headers.keys().filter(|name| name.starts_with("x-amz-meta-")).count(), 1);
        let head = client.send(with(call("HEAD", &path), 1)).await.ok();
        assert_eq!((head.header("content-length"), head.header("x-amz-meta-a")), (&*len.to_string(), "b"));
        echoes(&head, 1);
        assert_eq!((head.header("etag"), got.header("etag")), (put.header("etag"), put.header("etag")));
        if len > 0 {
            let kept = held(&site, &len.to_string()).await;
            assert!(kept.len() == len && kept != plain, "what is kept is not what was put");
            let range = call("GET", &path).header("range", &format!("bytes=3-{}", len - 1));
            let range = client.send(with(range, 1)).await;
            assert!(range.status == 206 && range.body == plain[3..], "{len}");
        }
        for method in ["GET", "HEAD"] {
            let none = client.send(call(method, &path)).await;
            let other = client.send(with(call(method, &path), 2)).await;
            assert_eq!((none.status, other.status), (400, 403), "{method}");
            if method == "GET" {
                assert_eq!(none.element("Code"), "InvalidRequest");
                assert_eq!(other.element("Code"), "AccessDenied");
            }
        }
    }
    let middle = call("GET", "/default/5000000").header("range", "bytes=4194303-4194320");
    assert_eq!(client.send(with(middle, 1)).await.body, content(5_000_000)[4_194_303..4_194_321]);
    let attributes = call("GET", "/default/5").query("attributes", "");
    let attributes = attributes.header("x-amz-object-attributes", "ObjectSize");
    assert_eq!(client.send(attributes.clone()).await.outcome(), (400, "InvalidRequest".into()));
    assert_eq!(client.send(with(attributes, 1)).await.ok().element("ObjectSize"), "5");
    // The same content under the same key is not seen to be the same.
    client.send(with(call("PUT", "/default/again").body(content(100_000)), 1)).await.ok();
    assert!(held(&site, "again").await != held(&site, "100000").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_keys_must_be_right() {
    let site = Site::new().await;
    let client = &site.client;
    let ((good, md5), put) = (key(1), || call("PUT", "/default/a").body("hello"));
    let argument = (400, "InvalidArgument".to_owned());
    for (algorithm, key, md5) in [
        ("AES256", "", &*md5),
        ("AES256", &*good, ""),
        ("", &good, &md5),
        ("AES256", "aGVsbG8=", &md5),
        ("AES256", &good, "aGVsbG8="),
    ] {
        let said = [(ALGORITHM, algorithm), (KEY, key), (KEY_MD5, md5)];
        let said = said.into_iter().filter(|(_, value)| !value.is_empty());
        let put = said.fold(put(), |put, (name, value)| put.header(name, value));
        assert_eq!(client.send(put).await.outcome(), argument, "{algorithm} {key} {md5}");
    }
    let other = with(put(), 1).header(ALGORITHM, "aws:kms");
    assert_eq!(client.send(other).await.outcome(), (400, "InvalidEncryptionAlgorithmError".into()));
    let both = with(put(), 1).header("x-amz-server-side-encryption", "AES256");
    assert_eq!(client.send(both).await.outcome(), argument);
    client.send(put()).await.ok();
    let needless = client.send(with(call("GET", "/default/a"), 1)).await;
    assert_eq!(needless.outcome(), (400, "InvalidRequest".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_are_of_what_was_put() {
    let site = Site::new().await;
    let client = &site.client;
    let put =
        |sum: &str| with(call("PUT", "/default/a").body("hello").header("x-amz-checksum-crc32", sum), 1);
    assert_eq!(client.send(put("NhCmhw==")).await.outcome(), (400, "BadDigest".into()));
    let done = client.send(put("NhCmhg==").header("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")).await.ok();
    assert_eq!(done.header("x-amz-checksum-crc32"), "NhCmhg==");
    let etag = done.header("etag").to_owned();
    assert!(etag.len() == 34 && etag != "\"5d41402abc4b2a76b9719d911017c592\"", "{etag}");
    let head = with(call("HEAD", "/default/a").header("x-amz-checksum-mode", "ENABLED"), 1);
    assert_eq!(client.send(head).await.ok().header("x-amz-checksum-crc32"), "NhCmhg==");
    let list = client.send(call("GET", "/default")).await.ok();
    assert_eq!(list.element("ETag").replace("&quot;", "\""), etag);
    // The ETag is good for conditions.
    let next = |etag: &str| with(call("PUT", "/default/a").body("next").header("if-match", etag), 1);
    assert_eq!(client.send(next("\"5d41402abc4b2a76b9719d911017c592\"")).await.status, 412);
    client.send(next(&etag)).await.ok();
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    client.send(call("PUT", "/default/a").query("tagging", "").body(tags)).await.ok();
    assert_eq!(client.send(with(call("GET", "/default/a"), 1)).await.ok().text(), "next");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_change_the_key() {
    let site = Site::new().await;
    let client = &site.client;
    let plain = content(200_000);
    let put = call("PUT", "/default/one").body(plain.clone()).header("x-amz-meta-a", "b");
    client.send(with(put.header("content-type", "text/x"), 1)).await.ok();
    let copy = |to: &str| call("PUT", to).header("x-amz-copy-source", "/default/one");
    let missing = client.send(with(copy("/default/x"), 1)).await;
    assert_eq!(missing.outcome(), (400, "InvalidRequest".into()));
    let wrong = client.send(with(with_source(copy("/default/x"), 2), 1)).await;
    assert_eq!(wrong.outcome(), (403, "AccessDenied".into()));

    // The same key: no content moves, so that what is kept is the same.
    let same = client.send(with(with_source(copy("/default/same"), 1), 1)).await.ok();
    echoes(&same, 1);
    assert!(held(&site, "same").await == held(&site, "one").await);
    let replaced = copy("/default/one").header("x-amz-metadata-directive", "REPLACE");
    client.send(with(with_source(replaced.header("x-amz-meta-c", "d"), 1), 1)).await.ok();
    let got = client.send(with(call("GET", "/default/one"), 1)).await.ok();
    assert!(got.body == plain);
    assert_eq!((got.header("x-amz-meta-a"), got.header("x-amz-meta-c")), ("", "d"));

    // Another key, none, and one where there was none; onto itself as well.
    client.send(with(with_source(copy("/default/two"), 1), 2)).await.ok();
    assert!(client.send(with(call("GET", "/default/two"), 2)).await.ok().body == plain);
    assert_eq!(client.send(with(call("GET", "/default/two"), 1)).await.status, 403);
    client.send(with_source(copy("/default/none"), 1)).await.ok();
    let got = client.send(call("GET", "/default/none")).await.ok();
    assert!(got.body == plain && held(&site, "none").await == plain);
    assert_eq!(got.header("x-amz-meta-c"), "d");
    let onto = call("PUT", "/default/none").header("x-amz-copy-source", "/default/none");
    client.send(with(onto, 2)).await.ok();
    assert!(client.send(with(call("GET", "/default/none"), 2)).await.ok().body == plain);
    let onto = call("PUT", "/default/none").header("x-amz-copy-source", "/default/none");
    let unchanged = client.send(with(with_source(onto, 2), 2)).await;
    assert_eq!(unchanged.outcome(), (400, "InvalidRequest".into()));
}

async fn put_part(client: &Client, id: &str, number: u32, body: Vec<u8>, byte: Option<u8>) -> Answer {
    let put = call("PUT", "/default/big").query("partNumber", &number.to_string()).query("uploadId", id);
    let put = put.body(body);
    client.send(byte.map_or(put.clone(), |byte| with(put, byte))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_in_parts() {
    let site = Site::new().await;
    let client = &site.client;
    let plain = content(2 * LEAST + 1000);
    client.send(with(call("PUT", "/default/source").body(plain.clone()), 2)).await.ok();
    let begun = client.send(with(call("POST", "/default/big").query("uploads", ""), 1)).await.ok();
    echoes(&begun, 1);
    let id = begun.element("UploadId");
    let invalid = (400, "InvalidRequest".to_owned());
    assert_eq!(put_part(client, &id, 1, vec![1], None).await.outcome(), invalid);
    assert_eq!(put_part(client, &id, 1, vec![1], Some(2)).await.outcome(), invalid);
    // A part that is put again is encrypted anew.
    put_part(client, &id, 1, vec![9; LEAST + 7], Some(1)).await.ok();
    let one = put_part(client, &id, 1, plain[..LEAST + 7].to_vec(), Some(1)).await.ok();
    echoes(&one, 1);
    let copy = call("PUT", "/default/big").query("partNumber", "2").query("uploadId", &id);
    let copy = copy.header("x-amz-copy-source", "/default/source");
    let copy = copy.header("x-amz-copy-source-range", &format!("bytes={}-{}", LEAST + 7, plain.len() - 1));
    assert_eq!(client.send(with(copy.clone(), 1)).await.outcome(), invalid, "the source has a key");
    let two = client.send(with_source(with(copy, 1), 2)).await.ok();
    echoes(&two, 1);
    let etags = [one.header("etag").to_owned(), two.element("ETag").replace("&quot;", "\"")];
    let parts: String = (1..)
        .zip(&etags)
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let complete = call("POST", "/default/big").query("uploadId", &id).body(body);
    assert_eq!(client.send(with(complete.clone(), 2)).await.outcome(), invalid);
    client.send(complete).await.ok();

    let got = client.send(with(call("GET", "/default/big"), 1)).await.ok();
    assert!(got.body == plain);
    assert!(got.header("etag").ends_with("-2\""));
    assert!(held(&site, "big").await != plain);
    assert_eq!(client.send(call("GET", "/default/big")).await.outcome(), invalid);
    assert_eq!(client.send(with(call("GET", "/default/big"), 2)).await.status, 403);
    for (from, to) in [(LEAST, LEAST + 20), (LEAST + 6, LEAST + 7), (LEAST + 7, LEAST + 8), (0, 0)] {
        let range = call("GET", "/default/big").header("range", &format!("bytes={from}-{to}"));
        assert_eq!(client.send(with(range, 1)).await.body, plain[from..=to], "{from}-{to}");
    }
    let part = client.send(with(call("GET", "/default/big").query("partNumber", "2"), 1)).await;
    assert!(part.status == 206 && part.body == plain[LEAST + 7..]);
    // Copies: as it is, and into one piece under another key.
    let copy = |to: &str| call("PUT", to).header("x-amz-copy-source", "/default/big");
    client.send(with(with_source(copy("/default/same"), 1), 1)).await.ok();
    assert!(client.send(with(call("GET", "/default/same"), 1)).await.ok().body == plain);
    client.send(with(with_source(copy("/default/other"), 1), 2)).await.ok();
    assert!(client.send(with(call("GET", "/default/other"), 2)).await.ok().body == plain);

    // A key for an upload that began without one.
    let begun = client.send(call("POST", "/default/big").query("uploads", "")).await.ok();
    let refused = put_part(client, &begun.element("UploadId"), 1, vec![1], Some(1)).await;
    assert_eq!(refused.outcome(), invalid);
}
