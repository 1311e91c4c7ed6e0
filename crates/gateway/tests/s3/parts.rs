//! Single parts of objects, and what is told of them.

use crate::client::{Client, Site, call};

const LEAST: usize = 5 << 20;

/// An object of three parts.
async fn put(client: &Client) -> [Vec<u8>; 3] {
    let parts = [vec![1u8; LEAST + 1], vec![2u8; LEAST], vec![3u8; 10]];
    let id = client.send(call("POST", "/default/big").query("uploads", "")).await.ok().element("UploadId");
    let mut listed = String::new();
    // Numbers with gaps: parts are counted as they follow each other.
    for (number, part) in [2, 5, 9].iter().zip(&parts) {
        let put = call("PUT", "/default/big").query("partNumber", &number.to_string()).query("uploadId", &id);
        let etag = client.send(put.body(part.clone())).await.ok().header("etag").to_owned();
        listed += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    let body = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
    client.send(call("POST", "/default/big").query("uploadId", &id).body(body)).await.ok();
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn single_parts_are_read() {
    let site = Site::new().await;
    let client = &site.client;
    let parts = put(client).await;
    let part = |method, key: &str, number: &str| call(method, key).query("partNumber", number);
    let size: usize = parts.iter().map(Vec::len).sum();
    let mut start = 0;
    for (number, content) in (1..).zip(&parts) {
        let range = format!("bytes {start}-{}/{size}", start + content.len() - 1);
        let got = client.send(part("GET", "/default/big", &number.to_string())).await.ok();
        assert!(got.body == *content, "part {number}");
        let head = client.send(part("HEAD", "/default/big", &number.to_string())).await.ok();
        assert_eq!(head.header("content-length"), content.len().to_string());
        for answer in [&got, &head] {
            assert_eq!((answer.status, answer.header("content-range")), (206, &*range));
            assert_eq!(answer.header("x-amz-mp-parts-count"), "3");
        }
        start += content.len();
    }
    let past = client.send(part("GET", "/default/big", "4")).await;
    assert_eq!(past.outcome(), (416, "InvalidPartNumber".into()));
    assert_eq!(client.send(part("HEAD", "/default/big", "4")).await.status, 416);
    for bad in ["0", "-1"] {
        let refused = client.send(part("GET", "/default/big", bad)).await;
        assert_eq!(refused.outcome(), (400, "InvalidArgument".into()), "{bad}");
    }
    let both = part("GET", "/default/big", "1").header("range", "bytes=0-1");
    assert_eq!(client.send(both).await.outcome(), (400, "InvalidRequest".into()));
    let missing = client.send(part("GET", "/default/none", "1")).await;
    assert_eq!(missing.outcome(), (404, "NoSuchKey".into()));
    // What was put in one piece has one part.
    client.send(call("PUT", "/default/one").body("hello")).await.ok();
    let one = client.send(part("GET", "/default/one", "1")).await;
    assert_eq!((one.status, one.text().as_str(), one.header("content-range")), (206, "hello", "bytes 0-4/5"));
    assert_eq!(one.header("x-amz-mp-parts-count"), "");
    assert_eq!(client.send(part("GET", "/default/one", "2")).await.status, 416);
    client.send(call("PUT", "/default/empty")).await.ok();
    let empty = client.send(part("GET", "/default/empty", "1")).await;
    assert_eq!((empty.status, empty.text().as_str(), empty.header("content-length")), (200, "", "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_listed_with_the_attributes() {
    let site = Site::new().await;
    let client = &site.client;
    let parts = put(client).await;
    let attributes = |path: &str| {
        call("GET", path).query("attributes", "").header("x-amz-object-attributes", "ObjectParts,ObjectSize")
    };
    let all = client.send(attributes("/default/big")).await.ok();
    assert_eq!(all.elements("PartNumber"), ["1", "2", "3"]);
    assert_eq!(all.elements("Size"), parts.each_ref().map(|part| part.len().to_string()));
    assert_eq!((all.element("IsTruncated").as_str(), all.element("PartsCount").as_str()), ("false", "3"));
    let two = attributes("/default/big").header("x-amz-max-parts", "2");
    let page = client.send(two.clone()).await.ok();
    assert_eq!(page.elements("PartNumber"), ["1", "2"]);
    assert_eq!(page.element("IsTruncated"), "true");
    let next = page.element("NextPartNumberMarker");
    let page = client.send(two.header("x-amz-part-number-marker", &next)).await.ok();
    assert_eq!(
        (page.elements("PartNumber"), page.element("IsTruncated")),
        (vec!["3".into()], "false".into())
    );
    let far = attributes("/default/big").header("x-amz-part-number-marker", "77");
    assert!(client.send(far).await.ok().elements("PartNumber").is_empty());
    client.send(call("PUT", "/default/one").body("hello")).await.ok();
    let one = client.send(attributes("/default/one")).await.ok();
    assert!(!one.text().contains("ObjectParts") && one.element("ObjectSize") == "5", "{}", one.text());
}
