//! Versions of objects: kept, read, listed, copied, and removed for good.

use pando_node::core::access::{Grants, Right};

use crate::client::{Answer, Call, Client, Site, call};

const LEAST: usize = 5 << 20;
/// An id that no version has.
const NONE: &str = "00112233445566778899aabbccddeeff";

async fn set_versioning(client: &Client, status: &str) {
    let body = format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
    client.send(call("PUT", "/default").query("versioning", "").body(body)).await.ok();
}

/// A node whose bucket keeps versions.
async fn site() -> Site {
    let site = Site::new().await;
    set_versioning(&site.client, "Enabled").await;
    site
}

/// The version id in an answer.
fn id(answer: &Answer) -> String {
    answer.header("x-amz-version-id").to_owned()
}

fn at(call: Call, version: &str) -> Call {
    call.query("versionId", version)
}

/// Puts, and tells the version.
async fn put(client: &Client, path: &str, content: &str) -> String {
    let put = client.send(call("PUT", path).body(content)).await.ok();
    assert_eq!(id(&put).len(), 32, "{:?}", put.headers);
    id(&put)
}

/// Removes, and tells the delete marker.
async fn delete(client: &Client, path: &str) -> String {
    let deleted = client.send(call("DELETE", path)).await.ok();
    assert_eq!((deleted.status, deleted.header("x-amz-delete-marker")), (204, "true"));
    id(&deleted)
}

/// Says that there is no object, because of this marker; or, if the marker was asked for, that it is none.
#[track_caller]
fn is_marked(answer: &Answer, code: &str, marker: &str) {
    let status = if code == "NoSuchKey" { 404 } else { 405 };
    assert_eq!(answer.status, status, "{}", answer.text());
    // An answer to HEAD has no body.
    assert!(answer.body.is_empty() || answer.element("Code") == code, "{}", answer.text());
    assert_eq!((answer.header("x-amz-delete-marker"), answer.header("x-amz-version-id")), ("true", marker));
    assert_eq!(answer.header("allow"), if status == 405 { "DELETE" } else { "" });
    assert_eq!(answer.header("content-type"), "application/xml");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_put_makes_a_version_that_is_read_by_its_id() {
    let site = site().await;
    let client = &site.client;
    let contents = ["one", "second", &"3".repeat(100_000)];
    let mut ids = Vec::new();
    for content in contents {
        ids.push(put(client, "/default/a", content).await);
    }
    for (version, content) in ids.iter().zip(contents) {
        let got = client.send(at(call("GET", "/default/a"), version)).await.ok();
        assert_eq!((got.text().as_str(), &id(&got)), (content, version));
        let head = client.send(at(call("HEAD", "/default/a"), version)).await.ok();
        assert_eq!((head.header("content-length"), &id(&head)), (&*content.len().to_string(), version));
        let range = client.send(at(call("GET", "/default/a"), version).header("range", "bytes=1-2")).await;
        assert_eq!((range.status, range.text().as_str()), (206, &content[1..3]));
        let part = client.send(at(call("GET", "/default/a"), version).query("partNumber", "1")).await.ok();
        assert_eq!((part.text().as_str(), &id(&part)), (content, version));
    }
    let current = client.send(call("GET", "/default/a")).await.ok();
    assert_eq!((current.text().as_str(), &id(&current)), (contents[2], &ids[2]));
    for method in ["GET", "HEAD", "DELETE"] {
        for bad in ["nonsense", "", "NULL"] {
            let refused = client.send(at(call(method, "/default/a"), bad)).await;
            assert_eq!(refused.status, 400, "{method} {bad:?}: {}", refused.text());
        }
    }
    for unknown in [NONE, "null"] {
        let refused = client.send(at(call("GET", "/default/a"), unknown)).await;
        assert_eq!(refused.outcome(), (404, "NoSuchVersion".into()), "{unknown}");
    }
    let nowhere = client.send(at(call("GET", "/nowhere/a"), NONE)).await;
    assert_eq!(nowhere.outcome(), (404, "NoSuchBucket".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_versions_are_kept_no_ids_are_told() {
    let site = Site::new().await;
    let client = &site.client;
    let put = client.send(call("PUT", "/default/a").body("hello")).await.ok();
    let got = client.send(call("GET", "/default/a")).await.ok();
    let copied = client.send(call("PUT", "/default/b").header("x-amz-copy-source", "/default/a")).await.ok();
    let deleted = client.send(call("DELETE", "/default/b")).await.ok();
    for answer in [put, got, copied, deleted] {
        let told: Vec<_> = answer.headers.keys().filter(|name| name.contains("version-id")).collect();
        assert!(told.is_empty() && answer.header("x-amz-delete-marker").is_empty(), "{:?}", answer.headers);
    }
    assert_eq!(client.send(at(call("GET", "/default/a"), "null")).await.ok().text(), "hello");
    let unknown = client.send(at(call("GET", "/default/a"), NONE)).await;
    assert_eq!(unknown.outcome(), (404, "NoSuchVersion".into()));
    let listed = client.send(call("GET", "/default").query("versions", "")).await.ok();
    assert_eq!((listed.element("VersionId").as_str(), listed.element("IsLatest").as_str()), ("null", "true"));
    let deleted = client.send(at(call("DELETE", "/default/a"), "null")).await.ok();
    assert_eq!((deleted.status, id(&deleted).as_str()), (204, "null"));
    assert_eq!(client.send(call("GET", "/default/a")).await.outcome(), (404, "NoSuchKey".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_objects_come_back_when_their_markers_go() {
    let site = site().await;
    let client = &site.client;
    let first = put(client, "/default/a", "one").await;
    let second = put(client, "/default/a", "two").await;
    let marker = delete(client, "/default/a").await;
    let requests = |method| {
        let attributes = call(method, "/default/a").query("attributes", "");
        [
            call(method, "/default/a"),
            call(method, "/default/a").query("tagging", ""),
            attributes.header("x-amz-object-attributes", "ETag"),
            call(method, "/default/a").query("partNumber", "1"),
        ]
    };
    let heads = [call("HEAD", "/default/a"), call("HEAD", "/default/a").query("partNumber", "1")];
    for request in requests("GET").into_iter().chain(heads) {
        is_marked(&client.send(request.clone()).await, "NoSuchKey", &marker);
        is_marked(&client.send(at(request, &marker)).await, "MethodNotAllowed", &marker);
    }
    let listed = client.send(call("GET", "/default").query("list-type", "2")).await.ok();
    assert_eq!(listed.element("KeyCount"), "0");
    assert_eq!(client.send(at(call("GET", "/default/a"), &first)).await.ok().text(), "one");

    let gone = client.send(at(call("DELETE", "/default/a"), &marker)).await.ok();
    assert_eq!((gone.status, gone.header("x-amz-delete-marker"), id(&gone)), (204, "true", marker));
    assert_eq!(client.send(call("GET", "/default/a")).await.ok().text(), "two");
    let mismatch = at(call("DELETE", "/default/a"), &second).header("if-match", "\"00\"");
    assert_eq!(client.send(mismatch).await.outcome(), (412, "PreconditionFailed".into()));
    // The second time there is nothing to remove, which is no error.
    for _ in 0..2 {
        let gone = client.send(at(call("DELETE", "/default/a"), &second)).await.ok();
        assert_eq!((gone.status, gone.header("x-amz-delete-marker"), &id(&gone)), (204, "", &second));
    }
    let missing = client.send(at(call("GET", "/default/a"), &second)).await;
    assert_eq!(missing.outcome(), (404, "NoSuchVersion".into()));
    assert_eq!(client.send(call("GET", "/default/a")).await.ok().text(), "one");
    client.send(at(call("DELETE", "/default/a"), &first)).await.ok();
    let nothing = client.send(call("GET", "/default/a")).await;
    assert_eq!((nothing.outcome(), id(&nothing)), ((404, "NoSuchKey".into()), String::new()));
    client.send(call("DELETE", "/default")).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_suspended_the_null_version_is_replaced() {
    let site = site().await;
    let client = &site.client;
    let kept = put(client, "/default/a", "kept").await;
    set_versioning(client, "Suspended").await;
    for content in ["one", "two"] {
        let put = client.send(call("PUT", "/default/a").body(content)).await.ok();
        assert_eq!(id(&put), "null");
    }
    let null = client.send(at(call("GET", "/default/a"), "null")).await.ok();
    assert_eq!((null.text().as_str(), id(&null).as_str()), ("two", "null"));
    assert_eq!(client.send(at(call("GET", "/default/a"), &kept)).await.ok().text(), "kept");
    assert_eq!(list(client, &[]).await.entries.len(), 2);
    assert_eq!(delete(client, "/default/a").await, "null");
    is_marked(&client.send(call("GET", "/default/a")).await, "NoSuchKey", "null");
    is_marked(&client.send(at(call("GET", "/default/a"), "null")).await, "MethodNotAllowed", "null");
    client.send(at(call("DELETE", "/default/a"), "null")).await.ok();
    assert_eq!(client.send(call("GET", "/default/a")).await.ok().text(), "kept");
}

/// What is to be removed, in a request for many.
fn entry(key: &str, version: Option<&str>) -> String {
    let version = version.map(|version| format!("<VersionId>{version}</VersionId>"));
    format!("<Object><Key>{key}</Key>{}</Object>", version.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_versions_are_removed_at_once() {
    let site = site().await;
    let client = &site.client;
    let mut ids = Vec::new();
    for content in ["one", "two", "three"] {
        ids.push(put(client, "/default/a", content).await);
    }
    put(client, "/default/b", "b").await;
    let marker = delete(client, "/default/b").await;
    let remove = |entries: String| {
        call("POST", "/default").query("delete", "").body(format!("<Delete>{entries}</Delete>"))
    };
    let entries = [
        entry("a", Some(&ids[2])),
        entry("b", Some(&marker)),
        entry("c", None),
        entry("a", Some("nonsense")),
        entry("a", Some(&ids[0])),
        entry("c", Some(NONE)),
    ];
    let removed = client.send(remove(entries.concat())).await.ok();
    // In the order in which they were named.
    let text = removed.text();
    let deleted: Vec<&str> =
        text.split("<Deleted>").skip(1).filter_map(|entry| entry.split("</Deleted>").next()).collect();
    let made = removed.elements("DeleteMarkerVersionId").pop().unwrap();
    let (key, version) =
        (|key| format!("<Key>{key}</Key>"), |id: &str| format!("<VersionId>{id}</VersionId>"));
    let marked = |id: &str| {
        format!("<DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>{id}</DeleteMarkerVersionId>")
    };
    let expected = [
        key("a") + &version(&ids[2]),
        marked(&marker) + &key("b") + &version(&marker),
        marked(&made) + &key("c"),
        key("a") + &version(&ids[0]),
        key("c") + &version(NONE),
    ];
    assert_eq!(deleted, expected);
    assert_eq!(removed.elements("Code"), ["InvalidArgument"]);
    assert!(text.contains("<VersionId>nonsense</VersionId>"), "{text}");
    let got = client.send(call("GET", "/default/a")).await.ok();
    assert_eq!((got.text().as_str(), &id(&got)), ("two", &ids[1]));
    assert_eq!(client.send(call("GET", "/default/b")).await.ok().text(), "b");
    is_marked(&client.send(call("GET", "/default/c")).await, "NoSuchKey", &made);

    let all = list(client, &[]).await.entries;
    let all: String = all.iter().map(|listed| entry(&listed.key, Some(&listed.version))).collect();
    let quiet = client.send(remove(format!("<Quiet>true</Quiet>{all}"))).await.ok();
    assert!(!quiet.text().contains("<Deleted>") && !quiet.text().contains("<Error>"), "{}", quiet.text());
    client.send(call("DELETE", "/default")).await.ok();
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    use md5::Digest as _;
    md5::Md5::digest(bytes).into()
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    key: String,
    version: String,
    latest: bool,
    marker: bool,
}

/// A list of versions.
#[derive(Debug)]
struct List {
    entries: Vec<Entry>,
    prefixes: Vec<String>,
    next: Option<(String, String)>,
    answer: Answer,
}

async fn list(client: &Client, query: &[(&str, &str)]) -> List {
    let all = query
        .iter()
        .fold(call("GET", "/default").query("versions", ""), |call, (name, value)| call.query(name, value));
    let answer = client.send(all).await.ok();
    let text = answer.text();
    let of = |text: &str, name: &str| {
        let rest = text.split(&format!("<{name}>")).nth(1)?;
        rest.split('<').next().map(str::to_owned)
    };
    // Both kinds of entries, in the order in which they stand there.
    let pieces = text.split("</Version>").flat_map(|piece| piece.split("</DeleteMarker>"));
    let entries = pieces.filter(|piece| piece.contains("<Key>")).map(|piece| Entry {
        key: of(piece, "Key").unwrap(),
        version: of(piece, "VersionId").unwrap(),
        latest: of(piece, "IsLatest").unwrap() == "true",
        marker: piece.contains("<DeleteMarker>"),
    });
    let (next, version) = (answer.element("NextKeyMarker"), answer.element("NextVersionIdMarker"));
    let is_truncated = answer.element("IsTruncated") == "true";
    assert_eq!(is_truncated, !next.is_empty(), "{text}");
    let prefixes = text.split("<CommonPrefixes>").skip(1).map(|rest| of(rest, "Prefix").unwrap());
    List {
        entries: entries.collect(),
        prefixes: prefixes.collect(),
        next: is_truncated.then_some((next, version)),
        answer,
    }
}

/// A list, page by page.
async fn paged(client: &Client, most: usize, query: &[(&str, &str)]) -> (Vec<Entry>, Vec<String>) {
    let (mut entries, mut prefixes) = (Vec::new(), Vec::new());
    let most = most.to_string();
    let mut next: Option<(String, String)> = None;
    loop {
        let mut query = query.to_vec();
        query.push(("max-keys", &most));
        if let Some((key, version)) = &next {
            query.push(("key-marker", key));
            // Clients give it only if it was told.
            if !version.is_empty() {
                query.push(("version-id-marker", version));
            }
        }
        let mut page = list(client, &query).await;
        assert!(page.entries.len() + page.prefixes.len() <= most.parse().unwrap());
        entries.append(&mut page.entries);
        prefixes.append(&mut page.prefixes);
        match page.next {
            Some(more) => next = Some(more),
            None => return (entries, prefixes),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_listed_as_they_followed_each_other() {
    let site = site().await;
    let client = &site.client;
    let mut expected = Vec::new();
    let mut enter = |key: &str, versions: Vec<(String, bool)>| {
        let newest = versions.len() - 1;
        for (index, (version, marker)) in versions.into_iter().enumerate().rev() {
            expected.push(Entry { key: key.to_owned(), version, latest: index == newest, marker });
        }
    };
    let (a1, a2) = (put(client, "/default/a", "1").await, put(client, "/default/a", "22").await);
    let a3 = delete(client, "/default/a").await;
    let a4 = put(client, "/default/a", "4444").await;
    enter("a", vec![(a1, false), (a2, false), (a3.clone(), true), (a4.clone(), false)]);
    let b = put(client, "/default/b ä", "b").await;
    enter("b ä", vec![(b, false)]);
    let (d1, d2) = (put(client, "/default/d/1", "d").await, delete(client, "/default/d/1").await);
    enter("d/1", vec![(d1, false), (d2, true)]);
    let d = put(client, "/default/d/2", "d").await;
    enter("d/2", vec![(d, false)]);
    let (e1, e2) = (delete(client, "/default/e").await, put(client, "/default/e", "e").await);
    enter("e", vec![(e1, true), (e2, false)]);

    let whole = list(client, &[]).await;
    assert_eq!(whole.entries, expected);
    let first = whole.answer;
    assert_eq!(first.elements("Size")[..3], ["4", "2", "1"]);
    assert_eq!((first.element("Name").as_str(), first.element("MaxKeys").as_str()), ("default", "1000"));
    assert_eq!(first.header("content-type"), "application/xml");
    assert!(first.text().contains("<ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"));
    for most in 1..=5 {
        assert_eq!(paged(client, most, &[]).await, (expected.clone(), vec![]), "pages of {most}");
        let of_d: Vec<Entry> = expected.iter().filter(|entry| entry.key.starts_with("d/")).cloned().collect();
        assert_eq!(paged(client, most, &[("prefix", "d/")]).await, (of_d, vec![]), "pages of {most}");
        let others: Vec<Entry> =
            expected.iter().filter(|entry| !entry.key.starts_with("d/")).cloned().collect();
        let folded = paged(client, most, &[("delimiter", "/")]).await;
        assert_eq!(folded, (others, vec!["d/".to_owned()]), "pages of {most}");
    }
    let after = list(client, &[("key-marker", "a"), ("version-id-marker", &a3)]).await;
    assert_eq!(after.entries, expected[2..]);
    assert_eq!(list(client, &[("key-marker", "a")]).await.entries, expected[4..]);
    assert_eq!(list(client, &[("key-marker", "a"), ("version-id-marker", "")]).await.entries, expected[4..]);
    assert!(list(client, &[("max-keys", "0")]).await.entries.is_empty());
    let encoded = list(client, &[("encoding-type", "url"), ("prefix", "b "), ("key-marker", "a")]).await;
    assert_eq!(encoded.entries[0].key, "b%20%C3%A4");
    assert_eq!((encoded.answer.element("Prefix").as_str(), encoded.entries.len()), ("b%20", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_make_no_sense_are_refused() {
    let site = site().await;
    for (path, query, outcome) in [
        ("/default", vec![("version-id-marker", NONE)], (400, "InvalidArgument")),
        ("/default", vec![("key-marker", "a"), ("version-id-marker", "nonsense")], (400, "InvalidArgument")),
        ("/default", vec![("max-keys", "-1")], (400, "InvalidArgument")),
        ("/default", vec![("encoding-type", "rot13")], (400, "InvalidArgument")),
        ("/nowhere", vec![], (404, "NoSuchBucket")),
        ("/nowhere", vec![("max-keys", "0")], (404, "NoSuchBucket")),
    ] {
        let query_text = format!("{path} {query:?}");
        let list = query
            .into_iter()
            .fold(call("GET", path).query("versions", ""), |call, (name, value)| call.query(name, value));
        assert_eq!(site.client.send(list).await.outcome(), (outcome.0, outcome.1.into()), "{query_text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_have_tags_and_attributes_of_their_own() {
    let site = site().await;
    let client = &site.client;
    let (first, second) = (put(client, "/default/a", "one").await, put(client, "/default/a", "second").await);
    let tagging = |method| call(method, "/default/a").query("tagging", "");
    let tags = |value: &str| {
        format!("<Tagging><TagSet><Tag><Key>k</Key><Value>{value}</Value></Tag></TagSet></Tagging>")
    };
    let set = client.send(at(tagging("PUT").body(tags("old")), &first)).await.ok();
    assert_eq!(id(&set), first);
    let set = client.send(tagging("PUT").body(tags("new"))).await.ok();
    assert_eq!(id(&set), second);
    for (version, value) in [(&first, "old"), (&second, "new")] {
        let got = client.send(at(tagging("GET"), version)).await.ok();
        assert_eq!((got.element("Value").as_str(), &id(&got)), (value, version));
    }
    let none = client.send(at(tagging("DELETE"), &first)).await.ok();
    assert_eq!((none.status, &id(&none)), (204, &first));
    assert_eq!(client.send(at(tagging("GET"), &first)).await.ok().element("Value"), "");
    let current = client.send(tagging("GET")).await.ok();
    assert_eq!((current.element("Value").as_str(), &id(&current)), ("new", &second));
    for method in ["GET", "PUT", "DELETE"] {
        let body = if method == "PUT" { tags("x") } else { String::new() };
        let unknown = client.send(at(tagging(method).body(body), NONE)).await;
        assert_eq!(unknown.outcome(), (404, "NoSuchVersion".into()), "{method}");
    }
    for (version, size) in [(&first, "3"), (&second, "6")] {
        let attributes = at(call("GET", "/default/a").query("attributes", ""), version);
        let attributes = attributes.header("x-amz-object-attributes", "ObjectSize");
        let got = client.send(attributes).await.ok();
        assert_eq!((got.element("ObjectSize").as_str(), &id(&got)), (size, version));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_copied() {
    let site = site().await;
    let client = &site.client;
    let first = put(client, "/default/a", "one").await;
    let second = put(client, "/default/a", "two").await;
    let copy = |to: &str, version: &str| {
        call("PUT", to).header("x-amz-copy-source", &format!("/default/a?versionId={version}"))
    };
    let copied = client.send(copy("/default/b", &first)).await.ok();
    assert_eq!(copied.header("x-amz-copy-source-version-id"), first);
    let got = client.send(call("GET", "/default/b")).await.ok();
    assert_eq!((got.text().as_str(), id(&got)), ("one", id(&copied)));
    // A copy onto itself brings an old version back.
    let back = client.send(copy("/default/a", &first)).await.ok();
    let got = client.send(call("GET", "/default/a")).await.ok();
    assert_eq!((got.text().as_str(), id(&got)), ("one", id(&back)));
    assert!(![&first, &second].contains(&&id(&back)));
    let itself = call("PUT", "/default/a").header("x-amz-copy-source", "/default/a");
    assert_eq!(client.send(itself.clone()).await.outcome(), (400, "InvalidRequest".into()));

    let marker = delete(client, "/default/a").await;
    is_marked(&client.send(itself).await, "NoSuchKey", &marker);
    let part_to = client.send(call("POST", "/default/c").query("uploads", "")).await.ok().element("UploadId");
    let part =
        |version: &str| copy("/default/c", version).query("partNumber", "1").query("uploadId", &part_to);
    for copy in [copy("/default/b", &marker), part(&marker)] {
        assert_eq!(client.send(copy).await.outcome(), (400, "InvalidRequest".into()));
    }
    for copy in [copy("/default/b", NONE), part(NONE)] {
        assert_eq!(client.send(copy).await.outcome(), (404, "NoSuchVersion".into()));
    }
    for copy in [copy("/default/b", "nonsense"), part("nonsense")] {
        assert_eq!(client.send(copy).await.outcome(), (400, "InvalidArgument".into()));
    }
    // Parts, as they are and of a range.
    for (part, content) in
        [(part(&second), "two"), (part(&second).header("x-amz-copy-source-range", "bytes=1-2"), "wo")]
    {
        let copied = client.send(part).await.ok();
        assert_eq!(copied.header("x-amz-copy-source-version-id"), second);
        let etag = copied.element("ETag");
        let body = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
        let body = format!("<CompleteMultipartUpload>{body}</CompleteMultipartUpload>");
        if content == "wo" {
            let done = call("POST", "/default/c").query("uploadId", &part_to).body(body);
            let done = client.send(done).await.ok();
            assert_eq!(id(&done).len(), 32);
            assert_eq!(client.send(at(call("GET", "/default/c"), &id(&done))).await.ok().text(), content);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_old_versions_are_read() {
    let site = site().await;
    let client = &site.client;
    let upload = client.send(call("POST", "/default/a").query("uploads", "")).await.ok().element("UploadId");
    let mut listed = String::new();
    for (number, content) in [("1", vec![1u8; LEAST]), ("2", vec![2u8; 10])] {
        let put = call("PUT", "/default/a").query("partNumber", number).query("uploadId", &upload);
        let etag = client.send(put.body(content)).await.ok().header("etag").to_owned();
        listed += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    let body = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
    let complete = call("POST", "/default/a").query("uploadId", &upload).body(body);
    let done = client.send(complete.clone()).await.ok();
    let version = id(&done);
    put(client, "/default/a", "newer").await;
    let part = at(call("GET", "/default/a"), &version).query("partNumber", "2");
    let got = client.send(part).await.ok();
    assert_eq!((got.status, &got.body[..], &id(&got)), (206, &[2u8; 10][..], &version));
    // Whoever completes again is told of the same version, and nothing changes.
    assert_eq!(id(&client.send(complete).await.ok()), version);
    assert_eq!(client.send(call("GET", "/default/a")).await.ok().text(), "newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_take_the_keys_that_they_were_put_with() {
    let site = site().await;
    let client = &site.client;
    let with = |call: Call, header: &str, byte: u8| {
        let md5 = data_encoding::BASE64.encode(&md5(&[byte; 32]));
        call.header(&format!("{header}-algorithm"), "AES256")
            .header(&format!("{header}-key"), &data_encoding::BASE64.encode(&[byte; 32]))
            .header(&format!("{header}-key-md5"), &md5)
    };
    const OWN: &str = "x-amz-server-side-encryption-customer";
    const SOURCE: &str = "x-amz-copy-source-server-side-encryption-customer";
    let plain: Vec<u8> = (0..100_000u32).map(|index| (index % 251) as u8).collect();
    let old = client.send(with(call("PUT", "/default/a").body(plain.clone()), OWN, 1)).await.ok();
    client.send(with(call("PUT", "/default/a").body("newer"), OWN, 2)).await.ok();
    let get = |byte| with(at(call("GET", "/default/a"), &id(&old)), OWN, byte);
    let got = client.send(get(1)).await.ok();
    assert!(got.body == plain && id(&got) == id(&old));
    let range = client.send(get(1).header("range", "bytes=70000-70099")).await.ok();
    assert!(range.body == plain[70_000..70_100]);
    assert_eq!(client.send(get(2)).await.status, 403);
    let copy =
        call("PUT", "/default/b").header("x-amz-copy-source", &format!("/default/a?versionId={}", id(&old)));
    let copied = client.send(with(copy, SOURCE, 1)).await.ok();
    assert_eq!(copied.header("x-amz-copy-source-version-id"), id(&old));
    let copied = client.send(at(call("GET", "/default/b"), &id(&copied))).await.ok();
    assert!(copied.body == plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_take_rights() {
    let site = site().await;
    let owner = &site.client;
    let version = put(owner, "/default/a", "hello").await;
    let versions = || call("GET", "/default").query("versions", "");
    let get = || at(call("GET", "/default/a"), &version);
    let remove = || at(call("DELETE", "/default/a"), &version);
    let denied = (403, "AccessDenied".to_owned());
    let with = async |right| site.client(Grants::Buckets(vec![("default".into(), right)])).await;
    let reader = with(Right::Read).await;
    reader.send(versions()).await.ok();
    reader.send(get()).await.ok();
    assert_eq!(reader.send(remove()).await.outcome(), denied);
    let elsewhere = site.client(Grants::Buckets(vec![("other".into(), Right::Owner)])).await;
    for request in [versions(), get(), remove()] {
        assert_eq!(elsewhere.send(request).await.outcome(), denied);
    }
    // To strangers, what is public is what is current.
    owner.send(call("PUT", "/default").query("acl", "").header("x-amz-acl", "public-read")).await.ok();
    assert_eq!(owner.send_as_is(call("GET", "/default/a")).await.ok().text(), "hello");
    for request in [versions(), get(), remove()] {
        assert_eq!(owner.send_as_is(request).await.outcome(), denied);
    }
    with(Right::Write).await.send(remove()).await.ok();
    assert_eq!(owner.send(get()).await.outcome(), (404, "NoSuchVersion".into()));
}
