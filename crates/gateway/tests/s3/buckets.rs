//! Buckets and lists.

use pando_node::core::access::{Grants, Right};

use crate::client::{Site, call};

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_made_listed_and_removed() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/photos")).await.ok();
    assert_eq!(client.send(call("PUT", "/photos")).await.outcome(), (409, "BucketAlreadyOwnedByYou".into()));
    let head = client.send(call("HEAD", "/photos")).await.ok();
    assert_eq!(head.header("x-amz-bucket-region"), "us-east-1");
    assert_eq!(client.send(call("HEAD", "/nowhere")).await.status, 404);
    let all = client.send(call("GET", "/")).await.ok();
    assert_eq!(all.elements("Name"), ["default", "photos"]);
    let location = client.send(call("GET", "/photos").query("location", "")).await.ok();
    assert!(location.text().contains("LocationConstraint"), "{}", location.text());
    client.send(call("GET", "/photos").query("versioning", "")).await.ok();
    let acl = client.send(call("GET", "/photos").query("acl", "")).await.ok();
    assert_eq!(acl.element("Permission"), "FULL_CONTROL");

    client.send(call("PUT", "/photos/a").body("x")).await.ok();
    assert_eq!(client.send(call("DELETE", "/photos")).await.outcome(), (409, "BucketNotEmpty".into()));
    client.send(call("DELETE", "/photos/a")).await.ok();
    assert_eq!(client.send(call("DELETE", "/photos")).await.status, 204);
    assert_eq!(client.send(call("DELETE", "/photos")).await.outcome(), (404, "NoSuchBucket".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_buckets_are_refused() {
    let site = Site::new().await;
    let client = &site.client;
    for name in ["/ab", "/Photos", "/a..b", "/192.168.0.1"] {
        assert_eq!(
            client.send(call("PUT", name)).await.outcome(),
            (400, "InvalidBucketName".into()),
            "{name}"
        );
    }
    let public = client.send(call("PUT", "/public").header("x-amz-acl", "public-read-write")).await;
    assert_eq!(public.outcome(), (501, "NotImplemented".into()));
    let locked = call("PUT", "/locked").header("x-amz-bucket-object-lock-enabled", "true");
    assert_eq!(client.send(locked).await.outcome(), (501, "NotImplemented".into()));
    let other =
        call("GET", "/default").query("list-type", "2").header("x-amz-expected-bucket-owner", "123456789012");
    assert_eq!(client.send(other).await.outcome(), (403, "AccessDenied".into()));
    for unknown in ["replication", "inventory", "website", "accelerate"] {
        let answer = client.send(call("GET", "/default").query(unknown, "")).await;
        assert_eq!(answer.outcome(), (501, "NotImplemented".into()), "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages_prefixes_and_encodings() {
    let site = Site::new().await;
    let client = &site.client;
    for key in ["a", "b/1", "b/2", "c d", "e"] {
        client.send(call("PUT", &format!("/default/{key}")).body("x")).await.ok();
    }
    let v2 = || call("GET", "/default").query("list-type", "2");
    let all = client.send(v2()).await.ok();
    assert_eq!(all.elements("Key"), ["a", "b/1", "b/2", "c d", "e"]);
    assert_eq!((all.element("KeyCount").as_str(), all.element("IsTruncated").as_str()), ("5", "false"));
    assert_eq!(all.elements("Size"), ["1"; 5]);
    let etag = all.element("ETag").replace("&quot;", "\"");
    assert_eq!(etag, "\"9dd4e461268c8034f5c8564e155c67a6\"", "the MD5 of x");
    let folded = client.send(v2().query("delimiter", "/")).await.ok();
    assert_eq!(folded.elements("Key"), ["a", "c d", "e"]);
    assert!(folded.text().contains("<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>"));
    let encoded = client.send(v2().query("prefix", "c ").query("encoding-type", "url")).await.ok();
    assert_eq!(
        (encoded.elements("Key"), encoded.element("Prefix")),
        (vec!["c%20d".to_owned()], "c%20".to_owned())
    );

    let mut keys = Vec::new();
    let mut page = client.send(v2().query("max-keys", "2")).await.ok();
    loop {
        keys.extend(page.elements("Key"));
        let token = page.element("NextContinuationToken");
        if token.is_empty() {
            break;
        }
        page = client.send(v2().query("max-keys", "2").query("continuation-token", &token)).await.ok();
    }
    assert_eq!(keys, ["a", "b/1", "b/2", "c d", "e"]);
    let after = client.send(v2().query("start-after", "b/1")).await.ok();
    assert_eq!(after.elements("Key"), ["b/2", "c d", "e"]);
    let none = client.send(v2().query("max-keys", "0")).await.ok();
    assert_eq!((none.elements("Key").len(), none.element("IsTruncated").as_str()), (0, "false"));

    let first = client.send(call("GET", "/default").query("max-keys", "2")).await.ok();
    assert_eq!(first.elements("Key"), ["a", "b/1"]);
    let marker = first.element("NextMarker");
    let second = client.send(call("GET", "/default").query("marker", &marker)).await.ok();
    assert_eq!(second.elements("Key"), ["b/2", "c d", "e"]);

    for (name, value) in [("max-keys", "-1"), ("continuation-token", "!"), ("encoding-type", "base64")] {
        assert_eq!(client.send(v2().query(name, value)).await.status, 400, "{name}={value}");
    }
    let nowhere = client.send(call("GET", "/nowhere").query("list-type", "2").query("max-keys", "0")).await;
    assert_eq!(nowhere.outcome(), (404, "NoSuchBucket".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_see_and_do_what_they_were_granted() {
    let site = Site::new().await;
    for bucket in ["/photos", "/mail", "/other"] {
        site.client.send(call("PUT", bucket)).await.ok();
    }
    site.client.send(call("PUT", "/mail/a").body("secret")).await.ok();
    let grants = vec![("photos".to_owned(), Right::Write), ("mail".to_owned(), Right::Read)];
    let limited = site.client(Grants::Buckets(grants)).await;
    assert_eq!(limited.send(call("GET", "/")).await.ok().elements("Name"), ["mail", "photos"]);
    limited.send(call("PUT", "/photos/a").body("x")).await.ok();
    assert_eq!(limited.send(call("GET", "/mail/a")).await.ok().text(), "secret");
    let denied = (403, "AccessDenied".to_owned());
    assert_eq!(limited.send(call("PUT", "/mail/a").body("x")).await.outcome(), denied);
    assert_eq!(limited.send(call("DELETE", "/mail/a")).await.outcome(), denied);
    assert_eq!(limited.send(call("GET", "/other/a")).await.outcome(), denied);
    assert_eq!(limited.send(call("DELETE", "/photos")).await.outcome(), denied);
    assert_eq!(limited.send(call("PUT", "/new")).await.outcome(), denied);
    site.client.send(call("PUT", "/other/a").body("x")).await.ok();
    let copy = call("PUT", "/photos/b").header("x-amz-copy-source", "/other/a");
    assert_eq!(limited.send(copy).await.outcome(), denied, "the source must be readable");
    let copy = call("PUT", "/photos/b").header("x-amz-copy-source", "/mail/a");
    limited.send(copy).await.ok();
}
