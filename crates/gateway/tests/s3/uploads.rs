//! Uploads in parts.

use crate::client::{Answer, Client, Site, call};

const LEAST: usize = 5 << 20;

async fn begin(client: &Client) -> String {
    let begun = client
        .send(call("POST", "/default/big").query("uploads", "").header("content-type", "video/webm"))
        .await;
    begun.ok().element("UploadId")
}

async fn put_part(client: &Client, id: &str, number: u32, body: &[u8]) -> Answer {
    let put = call("PUT", "/default/big").query("partNumber", &number.to_string()).query("uploadId", id);
    client.send(put.body(body)).await
}

async fn complete(client: &Client, id: &str, parts: &[(u32, &str)]) -> Answer {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    client.send(call("POST", "/default/big").query("uploadId", id).body(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_from_begin_to_end() {
    let site = Site::new().await;
    let client = &site.client;
    let id = begin(client).await;
    let (one, two) = (vec![1u8; LEAST + 1], vec![2u8; 10]);
    let second = put_part(client, &id, 2, &two).await.ok();
    let first = put_part(client, &id, 1, &one).await.ok();
    let parts = client.send(call("GET", "/default/big").query("uploadId", &id)).await.ok();
    assert_eq!(parts.elements("PartNumber"), ["1", "2"]);
    assert_eq!(parts.elements("Size"), [one.len().to_string(), "10".to_owned()]);
    let page = call("GET", "/default/big").query("uploadId", &id).query("max-parts", "1");
    let page = client.send(page).await.ok();
    assert_eq!(
        (page.element("IsTruncated").as_str(), page.element("NextPartNumberMarker").as_str()),
        ("true", "1")
    );
    let uploads = client.send(call("GET", "/default").query("uploads", "")).await.ok();
    assert_eq!(
        (uploads.elements("Key"), uploads.elements("UploadId")),
        (vec!["big".to_owned()], vec![id.clone()])
    );

    let parts = [(1, first.header("etag")), (2, second.header("etag"))];
    let done = complete(client, &id, &parts).await.ok();
    let etag = done.element("ETag").replace("&quot;", "\"");
    assert!(etag.ends_with("-2\""), "{etag}");
    let got = client.send(call("GET", "/default/big")).await.ok();
    assert!(got.body == [one, two].concat());
    assert_eq!((got.header("etag"), got.header("content-type")), (etag.as_str(), "video/webm"));
    let range = call("GET", "/default/big").header("range", &format!("bytes={}-{}", LEAST - 1, LEAST + 3));
    assert_eq!(client.send(range).await.body, [1, 1, 2, 2, 2]);
    let again = complete(client, &id, &parts).await.ok();
    assert_eq!(again.element("ETag"), done.element("ETag"), "a repeated request is answered again");
    let late = put_part(client, &id, 3, b"late").await;
    assert_eq!(late.outcome(), (404, "NoSuchUpload".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_copied() {
    let site = Site::new().await;
    let client = &site.client;
    let source: Vec<u8> = (0..LEAST + 1000).map(|index| (index % 251) as u8).collect();
    client.send(call("PUT", "/default/source").body(source.clone())).await.ok();
    let id = begin(client).await;
    let copy = |number: &str, range: Option<&str>| {
        let copy = call("PUT", "/default/big").query("partNumber", number).query("uploadId", &id);
        let copy = copy.header("x-amz-copy-source", "/default/source");
        match range {
            Some(range) => copy.header("x-amz-copy-source-range", range),
            None => copy,
        }
    };
    let whole = client.send(copy("1", None)).await.ok().element("ETag").replace("&quot;", "\"");
    let some =
        client.send(copy("2", Some("bytes=100-199"))).await.ok().element("ETag").replace("&quot;", "\"");
    let outside = client.send(copy("3", Some("bytes=100-99999999"))).await;
    assert_eq!(outside.outcome(), (416, "InvalidRange".into()));
    assert_eq!(client.send(copy("3", Some("bytes=5"))).await.outcome(), (400, "InvalidArgument".into()));
    complete(client, &id, &[(1, &whole), (2, &some)]).await.ok();
    let got = client.send(call("GET", "/default/big")).await.ok();
    assert!(got.body == [&source, &source[100..200]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused() {
    let site = Site::new().await;
    let client = &site.client;
    let id = begin(client).await;
    let one = put_part(client, &id, 1, b"one").await.ok();
    let two = put_part(client, &id, 2, b"two").await.ok();
    let (one, two) = (one.header("etag"), two.header("etag"));
    let outcome = async |parts: &[(u32, &str)]| complete(client, &id, parts).await.outcome();
    assert_eq!(outcome(&[(1, one), (2, two)]).await, (400, "EntityTooSmall".into()));
    assert_eq!(outcome(&[(2, two), (1, one)]).await, (400, "InvalidPartOrder".into()));
    assert_eq!(outcome(&[(1, two)]).await, (400, "InvalidPart".into()));
    assert_eq!(outcome(&[(7, two)]).await, (400, "InvalidPart".into()));
    assert_eq!(outcome(&[]).await, (400, "MalformedXML".into()));
    for number in [0, 10_001] {
        assert_eq!(put_part(client, &id, number, b"x").await.outcome(), (400, "InvalidArgument".into()));
    }
    assert_eq!(put_part(client, "nonsense", 1, b"x").await.outcome(), (404, "NoSuchUpload".into()));
    let nowhere = client.send(call("POST", "/nowhere/big").query("uploads", "")).await;
    assert_eq!(nowhere.outcome(), (404, "NoSuchBucket".into()));
    let exists = call("POST", "/default/big").query("uploadId", &id).header("if-match", "\"00\"");
    let body = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{one}</ETag></Part></CompleteMultipartUpload>"
    );
    assert_eq!(client.send(exists.body(body)).await.outcome(), (412, "PreconditionFailed".into()));
    assert_eq!(client.send(call("DELETE", "/default/big").query("uploadId", &id)).await.status, 204);
    let gone = client.send(call("DELETE", "/default/big").query("uploadId", &id)).await;
    assert_eq!(gone.outcome(), (404, "NoSuchUpload".into()));
    assert_eq!(client.send(call("GET", "/default/big")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_listed_as_folders() {
    let site = Site::new().await;
    let client = &site.client;
    // The last character there is does not hide what follows it.
    let odd = format!("c/{}z", char::MAX);
    for key in ["a/1", "a/2", "b", "c/x", "c/y", &odd, "d/e/f"] {
        client.send(call("POST", &format!("/default/{key}")).query("uploads", "")).await.ok();
    }
    client.send(call("POST", "/default/b").query("uploads", "")).await.ok();
    let list = |query: &[(&str, &str)]| {
        let list = call("GET", "/default").query("uploads", "").query("delimiter", "/");
        query.iter().fold(list, |list, (name, value)| list.query(name, value))
    };
    let prefixes = |answer: &Answer| -> Vec<String> {
        answer.elements("Prefix").into_iter().filter(|prefix| !prefix.is_empty()).collect()
    };
    let all = client.send(list(&[])).await.ok();
    assert_eq!(prefixes(&all), ["a/", "c/", "d/"].map(String::from).to_vec());
    assert_eq!(all.elements("Key"), ["b", "b"]);
    assert_eq!(all.element("IsTruncated"), "false");
    let inside = client.send(list(&[("prefix", "d/")])).await.ok();
    assert!(prefixes(&inside).contains(&"d/e/".to_owned()) && inside.elements("Key").is_empty());
    // One entry at a time.
    let (mut seen, mut key, mut id) = (Vec::new(), String::new(), String::new());
    loop {
        let mut query = vec![("max-uploads", "1"), ("key-marker", &*key), ("upload-id-marker", &*id)];
        query.retain(|(_, value)| !value.is_empty());
        let page = client.send(list(&query)).await.ok();
        let mut entries: Vec<String> = prefixes(&page);
        entries.extend(page.elements("Key"));
        assert_eq!(entries.len(), 1, "{}", page.text());
        seen.extend(entries);
        if page.element("IsTruncated") != "true" {
            break;
        }
        let next = (page.element("NextKeyMarker"), page.element("NextUploadIdMarker"));
        assert_ne!(next.0, "");
        (key, id) = next;
    }
    assert_eq!(seen, ["a/", "b", "b", "c/", "d/"]);
    let after = client.send(list(&[("key-marker", "a/1")])).await.ok();
    assert_eq!(prefixes(&after).first().cloned(), Some("c/".to_owned()), "one within is past it");
}
