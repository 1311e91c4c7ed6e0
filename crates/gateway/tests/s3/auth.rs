//! Who gets in, and who doesn't.

use crate::client::{Client, Site, call};

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a").body("hello")).await.ok();
    let denied = (403, "AccessDenied".to_owned());
    for anonymous in [
        call("GET", "/"),
        call("GET", "/default/a"),
        call("PUT", "/default/b").body("x"),
        call("PUT", "/new"),
    ] {
        assert_eq!(client.send_as_is(anonymous).await.outcome(), denied);
    }
    let wrong = Client { secret: "0".repeat(64), ..client.clone() };
    assert_eq!(wrong.send(call("GET", "/default/a")).await.outcome(), (403, "SignatureDoesNotMatch".into()));
    for id in ["PNDOABCDEFGHIJ234567", "AKIAIOSFODNN7EXAMPLE", "x"] {
        let unknown = Client { id: id.to_owned(), ..client.clone() };
        assert_eq!(
            unknown.send(call("GET", "/default/a")).await.outcome(),
            (403, "InvalidAccessKeyId".into())
        );
    }
    for ahead in [-16 * 60, 16 * 60] {
        let skewed = Client { ahead, ..client.clone() };
        assert_eq!(
            skewed.send(call("GET", "/default/a")).await.outcome(),
            (403, "RequestTimeTooSkewed".into())
        );
    }
    let added = call("PUT", "/default/b").body("x").unsigned("x-amz-meta-evil", "yes");
    assert_eq!(client.send(added).await.outcome(), denied, "every x-amz header is signed");
    let old = call("GET", "/default/a").unsigned("authorization", "AWS key:signature");
    assert_eq!(client.send_as_is(old).await.outcome(), (400, "InvalidRequest".into()));
    assert_eq!(client.send(call("GET", "/default/b")).await.status, 404, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_removed_is_refused_soon() {
    let site = Site::new().await;
    let other = site.client(pando_node::core::access::Grants::All).await;
    other.send(call("GET", "/")).await.ok();
    site.node.remove_key(&other.id).await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while other.send(call("GET", "/")).await.status == 200 {
        assert!(tokio::time::Instant::now() < deadline, "it is still let in");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(other.send(call("GET", "/")).await.outcome(), (403, "InvalidAccessKeyId".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn presigned_urls() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a b").body("hello")).await.ok();
    let get = call("GET", "/default/a b");
    assert_eq!(client.send_as_is(client.presign(&get, "60")).await.ok().text(), "hello");
    let ranged = client.presign(&get, "60").unsigned("range", "bytes=1-2");
    assert_eq!(client.send_as_is(ranged).await.text(), "el");
    let put = client.presign(&call("PUT", "/default/put"), "60").body("by url");
    client.send_as_is(put).await.ok();
    assert_eq!(client.send(call("GET", "/default/put")).await.text(), "by url");
    for expires in ["604801", "0", "x"] {
        let refused = client.send_as_is(client.presign(&get, expires)).await;
        assert_eq!(refused.outcome(), (400, "AuthorizationQueryParametersError".into()), "{expires}");
    }
    let expired = Client { ahead: -120, ..client.clone() };
    let refused = client.send_as_is(expired.presign(&get, "60")).await;
    assert_eq!(refused.outcome(), (403, "AccessDenied".into()));
    let other = client.presign(&get, "60").query("versionId", "null");
    assert_eq!(client.send_as_is(other).await.outcome(), (403, "SignatureDoesNotMatch".into()));
    let with_header = client.presign(&call("PUT", "/default/put"), "60").unsigned("x-amz-meta-a", "b");
    assert_eq!(client.send_as_is(with_header).await.outcome(), (403, "AccessDenied".into()));
    // A URL to put one object does not copy another one, however its query is spelled.
    let copy =
        client.presign(&call("PUT", "/default/put"), "60").unsigned("x-amz-copy-source", "/default/a b");
    let spelled = copy.respell("X-Amz-Signature", "%58-Amz-Signature");
    assert_eq!(client.send_as_is(spelled).await.outcome(), (403, "AccessDenied".into()));
    let long = client.presign(&get, "604801").respell("X-Amz-Expires", "X-Amz-%45xpires");
    assert_eq!(client.send_as_is(long).await.outcome(), (400, "AuthorizationQueryParametersError".into()));
    assert_eq!(client.send(call("GET", "/default/put")).await.text(), "by url", "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_what_was_signed() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a").body("old")).await.ok();
    let large = vec![1u8; 300_000];
    for body in [b"new".to_vec(), large] {
        let put = call("PUT", "/default/a").body(body.clone()).hash(&"0".repeat(64));
        assert_eq!(client.send(put).await.outcome(), (400, "XAmzContentSHA256Mismatch".into()));
        assert_eq!(client.send(call("GET", "/default/a")).await.text(), "old");
        client.send(call("PUT", "/default/b").body(body).hash("UNSIGNED-PAYLOAD")).await.ok();
    }
    // A declared length that does not come: the connection ends early, and nothing changes.
    let short = call("PUT", "/default/a").body("ne").unsigned("content-length", "3").hash("UNSIGNED-PAYLOAD");
    let (client_2, short) = (client.clone(), short);
    let sent = tokio::time::timeout(std::time::Duration::from_millis(500), client_2.send(short)).await;
    assert!(sent.is_err(), "it waits for the rest");
    assert_eq!(client.send(call("GET", "/default/a")).await.text(), "old");
}

/// One chunk of the format `aws-chunked`, unsigned.
fn chunks(body: &str, trailer: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n{trailer}\r\n", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_checked_before_the_commit() {
    let site = Site::new().await;
    let client = &site.client;
    let put = |name: &str, trailer: &str| {
        call("PUT", "/default/a")
            .header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", "5")
            .header("x-amz-trailer", name)
            .hash("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .body(chunks("hello", trailer))
    };
    let wrong = client.send(put("x-amz-checksum-crc32", "x-amz-checksum-crc32:NhCmhw==\r\n")).await;
    assert_eq!(wrong.outcome(), (400, "BadDigest".into()));
    let missing = client.send(put("x-amz-checksum-crc32", "")).await;
    assert_eq!(missing.outcome(), (400, "MalformedTrailerError".into()), "{}", missing.text());
    let other = client.send(put("x-amz-checksum-crc32", "x-amz-checksum-sha1:NhCmhg==\r\n")).await;
    assert_eq!(other.outcome(), (400, "MalformedTrailerError".into()));
    assert_eq!(
        client.send(put("x-amz-meta-a", "x-amz-meta-a:b\r\n")).await.outcome(),
        (400, "InvalidRequest".into())
    );
    assert_eq!(client.send(call("GET", "/default/a")).await.status, 404, "nothing was put");
    let longer = put("x-amz-checksum-crc32", "").body("6\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.send(longer).await.status, 400, "a chunk that is not as long as it says");
    let good = client.send(put("x-amz-checksum-crc32", "x-amz-checksum-crc32:NhCmhg==\r\n")).await.ok();
    assert_eq!(good.header("x-amz-checksum-crc32"), "NhCmhg==");
    let got = client.send(call("GET", "/default/a")).await.ok();
    assert_eq!((got.text().as_str(), got.header("content-encoding")), ("hello", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_end_early_change_nothing() {
    let site = Site::new().await;
    let client = &site.client;
    let id = client.send(call("POST", "/default/part").query("uploads", "")).await.ok().element("UploadId");
    let part = call("PUT", "/default/part").query("partNumber", "1").query("uploadId", &id);
    for put in [call("PUT", "/default/a"), part] {
        let put = put.header("x-amz-decoded-content-length", "10");
        // The framing of the request is whole, that of its content is not.
        for cut in [&["hello"][..], &["hello", ""]] {
            let refused = client.send(put.clone().chunks(cut)).await;
            assert_eq!(refused.outcome(), (400, "IncompleteBody".into()), "{cut:?}");
        }
        client.send(put.chunks(&["hello", "world", ""])).await.ok();
    }
    assert_eq!(client.send(call("GET", "/default/a")).await.ok().text(), "helloworld");
    let odd = call("PUT", "/default/a").header("x-amz-decoded-content-length", "10x").chunks(&["a", ""]);
    assert_eq!(client.send(odd).await.outcome(), (400, "InvalidArgument".into()));
}
