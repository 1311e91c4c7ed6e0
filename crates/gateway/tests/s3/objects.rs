//! Objects: put, get, conditions, checksums, copies, tags, removal.

use crate::client::{Site, call};

const MD5_OF_HELLO: &str = "\"5d41402abc4b2a76b9719d911017c592\"";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_is_got() {
    let site = Site::new().await;
    let client = &site.client;
    let put = call("PUT", "/default/a")
        .body("hello")
        .header("content-type", "text/plain")
        .header("cache-control", "no-store")
        .header("content-disposition", "inline")
        .header("x-amz-meta-color", "red")
        .header("x-amz-tagging", "a=b&c=d");
    let put = client.send(put).await.ok();
    assert_eq!(put.header("etag"), MD5_OF_HELLO);
    assert!(!put.header("x-amz-checksum-crc64nvme").is_empty(), "{:?}", put.headers);
    for method in ["GET", "HEAD"] {
        let got = client.send(call(method, "/default/a").header("x-amz-checksum-mode", "ENABLED")).await.ok();
        assert_eq!(got.text(), if method == "GET" { "hello" } else { "" });
        assert_eq!((got.header("etag"), got.header("content-length")), (MD5_OF_HELLO, "5"));
        assert_eq!((got.header("content-type"), got.header("cache-control")), ("text/plain", "no-store"));
        assert_eq!((got.header("content-disposition"), got.header("x-amz-meta-color")), ("inline", "red"));
        assert_eq!(got.header("x-amz-checksum-crc64nvme"), put.header("x-amz-checksum-crc64nvme"));
        assert_eq!(
            (got.header("accept-ranges"), got.header("x-amz-checksum-type")),
            ("bytes", "FULL_OBJECT")
        );
        assert!(!got.header("last-modified").is_empty() && !got.header("x-amz-request-id").is_empty());
    }
    let other = call("GET", "/default/a").query("response-content-type", "application/json");
    assert_eq!(client.send(other).await.ok().header("content-type"), "application/json");
    let large = vec![7u8; (9 << 20) + 3];
    client.send(call("PUT", "/default/large").body(large.clone())).await.ok();
    assert!(client.send(call("GET", "/default/large")).await.ok().body == large);
    assert_eq!(client.send(call("GET", "/default/none")).await.outcome(), (404, "NoSuchKey".into()));
    assert_eq!(client.send(call("GET", "/nowhere/none")).await.outcome(), (404, "NoSuchBucket".into()));
    assert_eq!(
        client.send(call("PUT", "/nowhere/none").body("x")).await.outcome(),
        (404, "NoSuchBucket".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a").body("0123456789")).await.ok();
    for (range, content, header) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=0-99", "0123456789", "bytes 0-9/10"),
    ] {
        let got = client.send(call("GET", "/default/a").header("range", range)).await;
        assert_eq!((got.status, got.text().as_str(), got.header("content-range")), (206, content, header));
        let head = client.send(call("HEAD", "/default/a").header("range", range)).await;
        assert_eq!((head.status, head.header("content-length")), (206, content.len().to_string().as_str()));
    }
    let outside = client.send(call("GET", "/default/a").header("range", "bytes=10-")).await;
    assert_eq!(outside.outcome(), (416, "InvalidRange".into()));
    // Conditions, and whether the client goes on with what it has, come before that.
    let etag = client.send(call("HEAD", "/default/a")).await.ok().header("etag").to_owned();
    for (range, name, value, status, length) in [
        ("bytes=10-", "if-none-match", &*etag, 304, ""),
        ("bytes=10-", "if-match", "\"00\"", 412, ""),
        ("bytes=10-", "if-range", &etag, 416, ""),
        ("bytes=10-", "if-range", "\"00\"", 200, "10"),
        ("bytes=2-4", "if-range", &etag, 206, "3"),
        ("bytes=2-4", "if-range", "\"00\"", 200, "10"),
    ] {
        for method in ["GET", "HEAD"] {
            let asked = call(method, "/default/a").header("range", range).header(name, value);
            let answer = client.send(asked).await;
            assert_eq!(answer.status, status, "{method} {range} {name}: {value}");
            let told = if length.is_empty() { "" } else { answer.header("content-length") };
            assert_eq!(told, length, "{method} {range} {name}: {value}");
        }
    }
    assert_eq!(
        client.send(call("GET", "/default/a").query("partNumber", "1")).await.ok().text(),
        "0123456789"
    );
    assert_eq!(client.send(call("GET", "/default/a").query("partNumber", "2")).await.status, 416);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_reads() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a").body("hello")).await.ok();
    let status = async |name: &str, value: &str| {
        client.send(call("GET", "/default/a").header(name, value)).await.status
    };
    assert_eq!(status("if-match", MD5_OF_HELLO).await, 200);
    assert_eq!(status("if-match", "\"00\"").await, 412);
    assert_eq!(status("if-none-match", "\"00\"").await, 200);
    assert_eq!(status("if-none-match", "*").await, 304);
    assert_eq!(status("if-modified-since", "Mon, 01 Jan 2001 00:00:00 GMT").await, 200);
    assert_eq!(status("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT").await, 304);
    assert_eq!(status("if-unmodified-since", "Mon, 01 Jan 2001 00:00:00 GMT").await, 412);
    let unchanged = client.send(call("GET", "/default/a").header("if-none-match", MD5_OF_HELLO)).await;
    assert_eq!((unchanged.status, unchanged.header("etag"), unchanged.body.len()), (304, MD5_OF_HELLO, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_writes() {
    let site = Site::new().await;
    let client = &site.client;
    let put = |name: &str, value: &str| call("PUT", "/default/a").body("hello").header(name, value);
    let failed = (412, "PreconditionFailed".to_owned());
    assert_eq!(client.send(put("if-match", MD5_OF_HELLO)).await.outcome(), (404, "NoSuchKey".into()));
    client.send(put("if-none-match", "*")).await.ok();
    assert_eq!(client.send(put("if-none-match", "*")).await.outcome(), failed);
    client.send(put("if-match", MD5_OF_HELLO)).await.ok();
    client.send(put("if-match", "*")).await.ok();
    assert_eq!(client.send(put("if-match", "\"00\"")).await.outcome(), failed);
    assert_eq!(
        client.send(put("if-none-match", MD5_OF_HELLO)).await.outcome(),
        (501, "NotImplemented".into())
    );
    let remove = |etag: &str| call("DELETE", "/default/a").header("if-match", etag);
    assert_eq!(client.send(remove("\"00\"")).await.outcome(), failed);
    assert_eq!(client.send(remove(MD5_OF_HELLO)).await.status, 204);
    assert_eq!(client.send(call("DELETE", "/default/a")).await.status, 204, "what isn't there is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_who_put_if_absent_one_wins() {
    let site = Site::new().await;
    let puts = (0..100).map(|number| {
        let client = site.client.clone();
        tokio::spawn(async move {
            let put = call("PUT", "/default/once").header("if-none-match", "*").body(format!("{number}"));
            (number, client.send(put).await.status)
        })
    });
    let mut winners = Vec::new();
    for put in puts.collect::<Vec<_>>() {
        match put.await.unwrap() {
            (number, 200) => winners.push(number),
            (_, status) => assert_eq!(status, 412),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(site.client.send(call("GET", "/default/once")).await.text(), winners[0].to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_are_verified_before_anything_changes() {
    let site = Site::new().await;
    let client = &site.client;
    for (name, good, bad) in [
        ("crc32", "NhCmhg==", "NhCmhw=="),
        ("crc32c", "mnG7TA==", "mnG7TQ=="),
        ("crc64nvme", "M3eFcAZSQlc=", "M3eFcAZSQlg="),
        ("sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00=", "qvTGHdzF6KLavt4PO0gs2a6pQ04="),
        (
            "sha256",
            "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
            "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCU=",
        ),
    ] {
        let header = format!("x-amz-checksum-{name}");
        let (path, put) = (format!("/default/{name}"), |sum: &str| {
            call("PUT", &format!("/default/{name}")).body("hello").header(&header, sum)
        });
        assert_eq!(client.send(put(bad)).await.outcome(), (400, "BadDigest".into()), "{name}");
        assert_eq!(client.send(put("AA==")).await.outcome(), (400, "InvalidRequest".into()), "{name}");
        assert_eq!(client.send(call("HEAD", &path)).await.status, 404, "nothing was changed");
        assert_eq!(client.send(put(good)).await.ok().header(&header), good);
        let head = client.send(call("HEAD", &path).header("x-amz-checksum-mode", "ENABLED")).await;
        assert_eq!(head.header(&header), good);
        let attributes = call("GET", &path).query("attributes", "");
        let attributes =
            client.send(attributes.header("x-amz-object-attributes", "Checksum,ObjectSize")).await.ok();
        assert!(attributes.text().contains(good), "{}", attributes.text());
        assert_eq!(attributes.element("ObjectSize"), "5", "{}", attributes.text());
    }
    let md5 = |sum: &str| call("PUT", "/default/md5").body("hello").header("content-md5", sum);
    client.send(md5("XUFAKrxLKna5cZ2REBfFkg==")).await.ok();
    assert_eq!(client.send(md5("XUFAKrxLKna5cZ2REBfFkw==")).await.outcome(), (400, "BadDigest".into()));
    assert_eq!(client.send(md5("short")).await.outcome(), (400, "InvalidDigest".into()));
    let two = call("PUT", "/default/two").body("hello");
    let two = two.header("x-amz-checksum-crc32", "NhCmhg==").header("x-amz-checksum-crc32c", "mnG7TA==");
    assert_eq!(client.send(two).await.outcome(), (400, "InvalidRequest".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_is_a_key() {
    let site = Site::new().await;
    let client = &site.client;
    let longest = "k".repeat(1024);
    for key in [
        "..",
        "../../etc/passwd",
        "a//b",
        "/",
        "//",
        "a/./b",
        "\u{0}",
        "a\u{0}b",
        "ü ä",
        "a+b&c=d?e#f%20",
        &longest,
    ] {
        let path = format!("/default/{key}");
        client.send(call("PUT", &path).body(key)).await.ok();
        assert_eq!(client.send(call("GET", &path)).await.ok().text(), *key);
        let copied =
            call("PUT", "/default/copy").header("x-amz-copy-source", &format!("/default/{}", percent(key)));
        client.send(copied).await.ok();
        assert_eq!(client.send(call("GET", "/default/copy")).await.ok().text(), *key);
        client.send(call("DELETE", &path)).await.ok();
        assert_eq!(client.send(call("GET", &path)).await.status, 404);
    }
    let long = format!("/default/{}", "k".repeat(1025));
    assert_eq!(client.send(call("PUT", &long).body("x")).await.outcome(), (400, "KeyTooLongError".into()));
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn copies() {
    let site = Site::new().await;
    let client = &site.client;
    let put = call("PUT", "/default/a").body("hello").header("content-type", "text/plain");
    client.send(put.header("x-amz-meta-a", "1").header("x-amz-tagging", "t=1")).await.ok();
    let copy = |to: &str| call("PUT", to).header("x-amz-copy-source", "/default/a");
    let copied = client.send(copy("/default/b")).await.ok();
    assert_eq!(copied.element("ETag").replace("&quot;", "\""), MD5_OF_HELLO);
    let got = client.send(call("GET", "/default/b")).await.ok();
    assert_eq!(
        (got.text().as_str(), got.header("content-type"), got.header("x-amz-meta-a")),
        ("hello", "text/plain", "1")
    );
    assert_eq!(got.header("x-amz-tagging-count"), "1");
    let replaced =
        copy("/default/a").header("x-amz-metadata-directive", "REPLACE").header("x-amz-meta-b", "2");
    client.send(replaced).await.ok();
    let got = client.send(call("GET", "/default/a")).await.ok();
    assert_eq!(
        (got.header("x-amz-meta-a"), got.header("x-amz-meta-b"), got.text().as_str()),
        ("", "2", "hello")
    );
    assert_eq!(client.send(copy("/default/a")).await.outcome(), (400, "InvalidRequest".into()));
    let failed = (412, "PreconditionFailed".to_owned());
    let condition = copy("/default/c").header("x-amz-copy-source-if-match", "\"00\"");
    assert_eq!(client.send(condition).await.outcome(), failed);
    let condition = copy("/default/c").header("x-amz-copy-source-if-none-match", MD5_OF_HELLO);
    assert_eq!(client.send(condition).await.outcome(), failed);
    for (name, value) in [("x-amz-metadata-directive", "replace"), ("x-amz-tagging-directive", "NONE")] {
        let odd = client.send(copy("/default/c").header(name, value)).await;
        assert_eq!(odd.outcome(), (400, "InvalidArgument".into()), "{name}: {value}");
    }
    assert_eq!(client.send(call("HEAD", "/default/c")).await.status, 404, "nothing was copied");
    let missing = call("PUT", "/default/c").header("x-amz-copy-source", "/default/none");
    assert_eq!(client.send(missing).await.outcome(), (404, "NoSuchKey".into()));
    let nowhere = call("PUT", "/nowhere/c").header("x-amz-copy-source", "/default/a");
    assert_eq!(client.send(nowhere).await.outcome(), (404, "NoSuchBucket".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_copies_on_what_is_there() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a").body("hello")).await.ok();
    client.send(call("PUT", "/default/there").body("other")).await.ok();
    let copy = |to: &str| call("PUT", to).header("x-amz-copy-source", "/default/a");
    // With a key of its client, the copy is read and put.
    let locked = |to: &str| {
        let copy = copy(to).header("x-amz-server-side-encryption-customer-algorithm", "AES256");
        copy.header("x-amz-server-side-encryption-customer-key", &data_encoding::BASE64.encode(&[1; 32]))
            .header("x-amz-server-side-encryption-customer-key-md5", "4Funlf7OsLF0HL+vKU+fkg==")
    };
    for copy in [&copy as &dyn Fn(&str) -> crate::client::Call, &locked] {
        for (to, name, value, outcome) in [
            ("/default/there", "if-none-match", "*", (412, "PreconditionFailed")),
            ("/default/there", "if-match", "\"00\"", (412, "PreconditionFailed")),
            ("/default/none", "if-match", MD5_OF_HELLO, (404, "NoSuchKey")),
            ("/default/none", "if-none-match", MD5_OF_HELLO, (501, "NotImplemented")),
            ("/default/none", "if-match", "\"odd", (400, "InvalidArgument")),
        ] {
            let refused = client.send(copy(to).header(name, value)).await;
            assert_eq!(refused.outcome(), (outcome.0, outcome.1.to_owned()), "{to} {name}: {value}");
        }
    }
    assert_eq!(client.send(call("GET", "/default/there")).await.ok().text(), "other");
    assert_eq!(client.send(call("HEAD", "/default/none")).await.status, 404);
    client.send(copy("/default/new").header("if-none-match", "*")).await.ok();
    client
        .send(
            copy("/default/new")
                .header("if-match", MD5_OF_HELLO)
                .header("x-amz-metadata-directive", "REPLACE"),
        )
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn tags() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a").body("hello")).await.ok();
    let set = |tags: &[(&str, &str)]| {
        let tags: String = tags
            .iter()
            .map(|(key, value)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"))
            .collect();
        let body = format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
        call("PUT", "/default/a").query("tagging", "").body(body)
    };
    client.send(set(&[("color", "red"), ("size", "xl")])).await.ok();
    let got = client.send(call("GET", "/default/a").query("tagging", "")).await.ok();
    assert_eq!(
        (got.elements("Key"), got.elements("Value")),
        (vec!["color".into(), "size".into()], vec!["red".into(), "xl".into()])
    );
    assert_eq!(client.send(set(&[("a", "1"), ("a", "2")])).await.outcome(), (400, "InvalidTag".into()));
    let many: Vec<(String, &str)> = (0..11).map(|number| (format!("t{number}"), "x")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert_eq!(client.send(set(&many)).await.outcome(), (400, "InvalidTag".into()));
    assert_eq!(client.send(call("DELETE", "/default/a").query("tagging", "")).await.status, 204);
    let got = client.send(call("GET", "/default/a").query("tagging", "")).await.ok();
    assert!(got.elements("Key").is_empty());
    assert_eq!(client.send(call("GET", "/default/a")).await.ok().text(), "hello");
    let missing = client.send(call("GET", "/default/none").query("tagging", "")).await;
    assert_eq!(missing.outcome(), (404, "NoSuchKey".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_removed_at_once() {
    let site = Site::new().await;
    let client = &site.client;
    for key in ["a", "b", "c"] {
        client.send(call("PUT", &format!("/default/{key}")).body("hello")).await.ok();
    }
    let delete = |objects: String, more: &str| {
        call("POST", "/default").query("delete", "").body(format!("<Delete>{objects}{more}</Delete>"))
    };
    let object = |key: &str| format!("<Object><Key>{key}</Key></Object>");
    let done = client.send(delete(object("a") + &object("none"), "")).await.ok();
    assert_eq!(done.elements("Key"), ["a", "none"]);
    let quiet = client.send(delete(object("b"), "<Quiet>true</Quiet>")).await.ok();
    assert!(quiet.elements("Key").is_empty());
    let conditional = "<Object><Key>c</Key><ETag>\"00\"</ETag></Object>".to_owned();
    let refused = client.send(delete(conditional, "")).await.ok();
    assert_eq!(
        (refused.element("Code").as_str(), refused.elements("Key")),
        ("PreconditionFailed", vec!["c".to_owned()])
    );
    // What was promised of the body counts before anything is removed, and so does what can't be looked at.
    let body = format!("<Delete>{}</Delete>", object("c"));
    let unsigned = call("POST", "/default").query("delete", "").body(body).hash("UNSIGNED-PAYLOAD");
    for (name, value, outcome) in [
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==", "BadDigest"),
        ("content-md5", "short", "InvalidDigest"),
        ("x-amz-checksum-crc32", "NhCmhg==", "BadDigest"),
        ("x-amz-checksum-crc64nvme", "M3eFcAZSQlc=", "BadDigest"),
        ("x-amz-checksum-sha256", "AA==", "InvalidRequest"),
    ] {
        let refused = client.send(unsigned.clone().header(name, value)).await;
        assert_eq!(refused.outcome(), (400, outcome.to_owned()), "{name}: {value}");
    }
    let framed = call("POST", "/default").query("delete", "").header("x-amz-decoded-content-length", "8");
    let framed = framed.header("content-md5", "XUFAKrxLKna5cZ2REBfFkg==").chunks(&["<Delete>", ""]);
    assert_eq!(client.send(framed).await.outcome(), (501, "NotImplemented".into()));
    let none = call("POST", "/default")
        .query("delete", "")
        .body("<Delete><Object><Key>none</Key></Object></Delete>");
    client.send(none.hash("UNSIGNED-PAYLOAD").header("content-md5", "EpvYphShtu0A5NGVEQm6CQ==")).await.ok();
    for more in ["<Size>6</Size>", "<LastModifiedTime>Mon, 01 Jan 2001 00:00:00 GMT</LastModifiedTime>"] {
        let object = format!("<Object><Key>c</Key>{more}</Object>");
        let refused = client.send(delete(object, "")).await.ok();
        assert_eq!(refused.element("Code"), "NotImplemented", "{more}");
    }
    let list = client.send(call("GET", "/default")).await.ok();
    assert_eq!(list.elements("Key"), ["c"]);
    let thousand_and_one: String = (0..1001).map(|number| object(&number.to_string())).collect();
    assert_eq!(client.send(delete(thousand_and_one, "")).await.outcome(), (400, "MalformedXML".into()));
    assert_eq!(client.send(delete(String::new(), "")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_be_kept_is_refused() {
    let site = Site::new().await;
    for (name, value) in [
        ("x-amz-acl", "public-read"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-website-redirect-location", "/b"),
        ("x-amz-grant-read", "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\""),
        ("x-amz-grant-full-control", "id=\"somebody\""),
        ("x-amz-grant-write-acp", "id=\"somebody\""),
    ] {
        let begin = call("POST", "/default/a").query("uploads", "").header(name, value);
        assert_eq!(site.client.send(begin).await.outcome(), (501, "NotImplemented".into()), "{name}");
        let copy = call("PUT", "/default/a").header("x-amz-copy-source", "/default/a").header(name, value);
        assert_eq!(site.client.send(copy).await.outcome(), (501, "NotImplemented".into()), "{name}");
        let put = site.client.send(call("PUT", "/default/a").body("x").header(name, value)).await;
        assert_eq!(put.outcome(), (501, "NotImplemented".into()), "{name}");
    }
    let encrypted = call("PUT", "/default/a").body("x").header("x-amz-server-side-encryption", "AES256");
    assert_eq!(site.client.send(encrypted).await.ok().header("x-amz-server-side-encryption"), "AES256");
    let meta = call("PUT", "/default/a").body("x").header("x-amz-meta-long", &"m".repeat(9000));
    assert_eq!(site.client.send(meta).await.outcome(), (400, "MetadataTooLarge".into()));
    let version = call("GET", "/default/a").query("versionId", "nonsense");
    assert_eq!(site.client.send(version).await.outcome(), (400, "InvalidArgument".into()));
}
