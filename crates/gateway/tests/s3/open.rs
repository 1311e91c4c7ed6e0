//! What is open to those who have no access key, and to pages in browsers.

use pando_gateway::{Address, Gateway, Link, Options};

use crate::client::{Answer, Call, Client, Site, call};

fn denied() -> (u16, String) {
    (403, "AccessDenied".to_owned())
}

fn acl(canned: &str) -> Call {
    call("PUT", "/default").query("acl", "").header("x-amz-acl", canned)
}

fn list(bucket: &str) -> Call {
    call("GET", bucket).query("list-type", "2")
}

/// Without a signature.
async fn stranger(client: &Client, call: Call) -> Answer {
    client.send_as_is(call).await
}

#[tokio::test(flavor = "multi_thread")]
async fn anyone_reads_and_lists_a_public_bucket_and_does_nothing_else() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/open").header("x-amz-acl", "public-read")).await.ok();
    let put = call("PUT", "/open/a/b.html").header("content-type", "text/html; charset=utf-8");
    let put = put.header("cache-control", "max-age=60").body("<p>hello</p>");
    let etag = client.send(put).await.ok().header("etag").to_owned();

    let got = stranger(client, call("GET", "/open/a/b.html")).await.ok();
    assert_eq!(got.text(), "<p>hello</p>");
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "max-age=60"),
        ("accept-ranges", "bytes"),
        ("content-length", "12"),
        ("etag", &etag),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    assert!(got.header("last-modified").ends_with("GMT"), "{:?}", got.headers);
    let part = stranger(client, call("GET", "/open/a/b.html").header("range", "bytes=3-7")).await;
    assert_eq!((part.status, part.text().as_str()), (206, "hello"));
    assert_eq!(part.header("content-range"), "bytes 3-7/12");
    let parts = |range: &str| call("GET", "/open/a/b.html").header("range", range);
    let whole = stranger(client, parts("bytes=0-1,3-4")).await;
    assert_eq!((whole.status, whole.body.len()), (200, 12), "several ranges are none");
    assert_eq!(stranger(client, parts("bytes=12-")).await.outcome(), (416, "InvalidRange".into()));
    let modified = got.header("last-modified");
    for (condition, status) in [(etag.as_str(), 206), (modified, 206), ("\"other\"", 200)] {
        let resumed = stranger(client, parts("bytes=3-7").header("if-range", condition)).await;
        assert_eq!(resumed.status, status, "{condition}");
        let expected = if status == 206 { "hello" } else { "<p>hello</p>" };
        assert_eq!(resumed.text(), expected, "{condition}");
    }
    let same = stranger(client, call("GET", "/open/a/b.html").header("if-none-match", &etag)).await;
    assert_eq!((same.status, same.body.len(), same.header("cache-control")), (304, 0, "max-age=60"));
    let head = stranger(client, call("HEAD", "/open/a/b.html")).await.ok();
    assert_eq!(head.header("content-length"), "12");
    assert_eq!(stranger(client, list("/open")).await.ok().elements("Key"), ["a/b.html"]);
    assert_eq!(stranger(client, call("GET", "/open")).await.ok().elements("Key"), ["a/b.html"]);
    stranger(client, call("HEAD", "/open")).await.ok();
    stranger(client, call("GET", "/open").query("location", "")).await.ok();
    let missing = stranger(client, call("GET", "/open/none")).await;
    assert_eq!(missing.outcome(), (404, "NoSuchKey".into()), "who may list may know");

    for refused in [
        call("PUT", "/open/x").body("x"),
        call("DELETE", "/open/a/b.html"),
        call("POST", "/open").query("delete", "").body("<Delete><Object><Key>a</Key></Object></Delete>"),
        call("PUT", "/open").query("acl", "").header("x-amz-acl", "public-read"),
        call("DELETE", "/open"),
        call("GET", "/"),
        call("GET", "/open").query("acl", ""),
        call("GET", "/open").query("policy", ""),
        call("GET", "/open").query("uploads", ""),
        call("GET", "/open").query("versions", ""),
        call("GET", "/open/a/b.html").query("tagging", ""),
        call("GET", "/open/a/b.html").query("attributes", "").header("x-amz-object-attributes", "ETag"),
        call("GET", "/open/a/b.html").query("versionId", "null"),
        call("POST", "/open/x").query("uploads", ""),
        call("GET", "/default/a"),
        list("/default"),
        call("GET", "/nowhere/a"),
        list("/nowhere"),
    ] {
        let answer = stranger(client, refused.clone()).await;
        assert_eq!(answer.outcome(), denied(), "{refused:?}");
    }
    for name in ["response-content-type", "response%2Dcontent-disposition"] {
        let name = name.replace("%2D", "-");
        let chosen = stranger(client, call("GET", "/open/a/b.html").query(&name, "text/html")).await;
        assert_eq!(chosen.outcome(), (400, "InvalidRequest".into()));
    }
    let signed = call("GET", "/open/a/b.html").query("response-content-type", "text/plain");
    assert_eq!(client.send(signed).await.ok().header("content-type"), "text/plain");
}

#[tokio::test(flavor = "multi_thread")]
async fn access_control_lists_tell_the_truth() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a").body("hello")).await.ok();
    let of = |path: &str| call("GET", path).query("acl", "");
    assert_eq!(client.send(of("/default")).await.ok().elements("Permission"), ["FULL_CONTROL"]);
    assert_eq!(stranger(client, call("GET", "/default/a")).await.outcome(), denied());

    client.send(acl("public-read")).await.ok();
    for path in ["/default", "/default/a"] {
        let shown = client.send(of(path)).await.ok();
        assert_eq!(shown.elements("Permission"), ["FULL_CONTROL", "READ"], "{path}");
        assert_eq!(shown.element("URI"), "http://acs.amazonaws.com/groups/global/AllUsers");
    }
    stranger(client, call("GET", "/default/a")).await.ok();

    // What is shown is taken back: as it is, and without its grant to anyone.
    let shown = client.send(of("/default")).await.text();
    let shown = &shown[shown.find("<AccessControlPolicy").unwrap()..];
    let put = |body: &str| call("PUT", "/default").query("acl", "").body(body);
    client.send(acl("private")).await.ok();
    assert_eq!(stranger(client, call("GET", "/default/a")).await.outcome(), denied());
    client.send(put(shown)).await.ok();
    stranger(client, call("GET", "/default/a")).await.ok();
    let at = shown.rfind("<Grant>").unwrap();
    let end = shown.rfind("</Grant>").unwrap() + "</Grant>".len();
    let private = format!("{}{}", &shown[..at], &shown[end..]);
    client.send(put(&private)).await.ok();
    assert_eq!(stranger(client, call("GET", "/default/a")).await.outcome(), denied());

    let not_implemented = (501, "NotImplemented".to_owned());
    for canned in ["public-read-write", "authenticated-read"] {
        assert_eq!(client.send(acl(canned)).await.outcome(), not_implemented, "{canned}");
        let made = client.send(call("PUT", "/made").header("x-amz-acl", canned)).await;
        assert_eq!(made.outcome(), not_implemented, "{canned}");
    }
    assert_eq!(client.send(call("HEAD", "/made")).await.status, 404, "nothing was made");
    assert_eq!(client.send(acl("whatever")).await.outcome(), (400, "InvalidArgument".into()));
    let other = shown.replace("AllUsers", "AuthenticatedUsers");
    assert_eq!(client.send(put(&other)).await.outcome(), not_implemented);
    assert_eq!(client.send(put(&shown.replace(">READ<", ">WRITE<"))).await.outcome(), not_implemented);
    let neither = call("PUT", "/default").query("acl", "");
    assert_eq!(client.send(neither).await.outcome(), (400, "MissingSecurityHeader".into()));
    let both = acl("private").body(shown);
    assert_eq!(client.send(both).await.outcome(), (400, "InvalidRequest".into()));
    let grant = call("PUT", "/default").query("acl", "").header("x-amz-grant-read", "uri=x");
    assert_eq!(client.send(grant).await.outcome(), not_implemented);
    let of_object = call("PUT", "/default/b").header("x-amz-acl", "public-read").body("x");
    assert_eq!(client.send(of_object).await.outcome(), not_implemented, "objects have none of their own");
    let nowhere = call("PUT", "/nowhere").query("acl", "").header("x-amz-acl", "private");
    assert_eq!(client.send(nowhere).await.outcome(), (404, "NoSuchBucket".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_open_prefixes() {
    let site = Site::new().await;
    let client = &site.client;
    for key in ["pub/a", "secret"] {
        client.send(call("PUT", &format!("/default/{key}")).body(key)).await.ok();
    }
    let of = |what: &str| call("GET", "/default").query(what, "");
    let none = (404, "NoSuchBucketPolicy".to_owned());
    assert_eq!(client.send(of("policy")).await.outcome(), none);
    assert_eq!(client.send(of("policyStatus")).await.outcome(), none);
    let policy = r#"{ "Version": "2012-10-17", "Statement": [ { "Effect": "Allow", "Principal": {"AWS": "*"},
        "Action": "s3:GetObject", "Resource": "arn:aws:s3:::default/pub/*" } ] }"#;
    let put = |text: &str| call("PUT", "/default").query("policy", "").body(text);
    assert_eq!(client.send(put(policy)).await.status, 204);
    assert_eq!(client.send(of("policy")).await.ok().text(), policy, "word for word");
    assert_eq!(client.send(of("policyStatus")).await.ok().element("IsPublic"), "true");

    assert_eq!(stranger(client, call("GET", "/default/pub/a")).await.ok().text(), "pub/a");
    // Who may not list is not told what is there.
    for hidden in ["/default/pub/none", "/default/secret", "/default/none"] {
        for method in ["GET", "HEAD"] {
            assert_eq!(stranger(client, call(method, hidden)).await.status, 403, "{method} {hidden}");
        }
        assert_eq!(stranger(client, call("GET", hidden)).await.outcome(), denied(), "{hidden}");
    }
    for hidden in [list("/default"), call("HEAD", "/default"), of("location")] {
        assert_eq!(stranger(client, hidden).await.status, 403);
    }
    let shown = |path: &str| call("GET", path).query("acl", "");
    assert_eq!(client.send(shown("/default/pub/a")).await.elements("Permission").len(), 2);
    assert_eq!(client.send(shown("/default/secret")).await.elements("Permission").len(), 1);
    assert_eq!(client.send(shown("/default")).await.elements("Permission").len(), 1);

    // List and policy grant apart from each other.
    client.send(acl("public-read")).await.ok();
    assert_eq!(client.send(call("DELETE", "/default").query("policy", "")).await.status, 204);
    stranger(client, call("GET", "/default/secret")).await.ok();
    client.send(put(&policy.replace("pub/*", "*"))).await.ok();
    client.send(acl("private")).await.ok();
    stranger(client, call("GET", "/default/secret")).await.ok();
    assert_eq!(stranger(client, list("/default")).await.outcome(), denied());
    client.send(call("DELETE", "/default").query("policy", "")).await.ok();
    assert_eq!(stranger(client, call("GET", "/default/pub/a")).await.outcome(), denied());

    let deny = client.send(put(&policy.replace("Allow", "Deny"))).await;
    assert_eq!(deny.outcome(), (501, "NotImplemented".into()));
    assert!(deny.text().contains("supported are"), "{}", deny.text());
    for bad in [policy.replace("default", "other"), "{".to_owned(), String::new()] {
        assert_eq!(client.send(put(&bad)).await.outcome(), (400, "MalformedPolicy".into()), "{bad}");
    }
    assert_eq!(client.send(of("policy")).await.outcome(), none, "nothing was kept");
    let nowhere = call("PUT", "/nowhere").query("policy", "").body(policy.replace("default", "nowhere"));
    assert_eq!(client.send(nowhere).await.outcome(), (404, "NoSuchBucket".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_to_public_objects_are_their_plain_address() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a b").body("hello")).await.ok();
    let address = Address::parse(&client.address.to_string(), false).unwrap();
    let valid = std::time::Duration::from_secs(60);
    let share = || pando_gateway::share(&site.node, ("default", "a b"), valid, &address);
    let link = share().await.unwrap();
    assert!(link.until.is_some() && link.url.contains("X-Amz-Expires=60&"), "{}", link.url);
    client.send(acl("public-read")).await.ok();
    let plain = Link { url: format!("{address}/default/a%20b"), until: None };
    assert_eq!(share().await.unwrap(), plain);
    let missing = pando_gateway::share(&site.node, ("default", "none"), valid, &address).await;
    assert!(matches!(missing, Err(pando_node::Error::NotFound { .. })), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_gateways_follow_soon() {
    let site = Site::new().await;
    site.client.send(call("PUT", "/default/a").body("hello")).await.ok();
    let options = Options { s3: Some(([127, 0, 0, 1], 0).into()), ..Options::default() };
    let second = Gateway::start(site.node.clone(), options).await.unwrap();
    let there = Client { address: second.s3_addr().unwrap(), ..site.client.clone() };
    for (canned, status) in [("public-read", 200), ("private", 403)] {
        // The other one remembers how it was.
        stranger(&there, call("GET", "/default/a")).await;
        site.client.send(acl(canned)).await.ok();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while stranger(&there, call("GET", "/default/a")).await.status != status {
            assert!(tokio::time::Instant::now() < deadline, "{canned} is not followed");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    second.stop().await;
}

fn cors(rules: &str) -> Call {
    let body = format!("<CORSConfiguration>{rules}</CORSConfiguration>");
    call("PUT", "/default").query("cors", "").body(body)
}

const RULES: &str = "<CORSRule><ID>app</ID><AllowedOrigin>https://*.example</AllowedOrigin>\
    <AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod><AllowedHeader>x-amz-*</AllowedHeader>\
    <AllowedHeader>Content-Type</AllowedHeader><ExposeHeader>ETag</ExposeHeader>\
    <MaxAgeSeconds>600</MaxAgeSeconds></CORSRule>\
    <CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>HEAD</AllowedMethod></CORSRule>";

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_which_pages_may() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a").body("hello")).await.ok();
    let get = || call("GET", "/default").query("cors", "");
    let none = (404, "NoSuchCORSConfiguration".to_owned());
    assert_eq!(client.send(get()).await.outcome(), none);
    let preflight = |origin: &str, method: &str| {
        let asks = call("OPTIONS", "/default/a").header("access-control-request-method", method);
        asks.header("origin", origin)
    };
    let forbidden = (403, "AccessForbidden".to_owned());
    let early = stranger(client, preflight("https://app.example", "PUT")).await;
    assert_eq!(early.outcome(), forbidden, "there are no rules");
    client.send(cors(RULES)).await.ok();
    let shown = client.send(get()).await.ok();
    assert_eq!(shown.elements("AllowedMethod"), ["GET", "PUT", "HEAD"]);
    assert_eq!((shown.element("ID").as_str(), shown.element("MaxAgeSeconds").as_str()), ("app", "600"));

    let asks = preflight("https://app.example", "PUT")
        .header("access-control-request-headers", "content-type, X-Amz-Date");
    let told = stranger(client, asks).await.ok();
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "content-type, x-amz-date"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "ETag"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(told.header(name), value, "{name}");
    }
    assert!(told.header("vary").contains("Origin") && told.body.is_empty());
    let refused = preflight("https://app.example", "GET").header("access-control-request-headers", "range");
    for refused in [
        refused,
        preflight("https://app.example", "DELETE"),
        preflight("https://other.invalid", "GET"),
        call("OPTIONS", "/nowhere/a").header("access-control-request-method", "GET").header("origin", "x"),
    ] {
        assert_eq!(stranger(client, refused.clone()).await.outcome(), forbidden, "{refused:?}");
    }
    for bad in [
        call("OPTIONS", "/default/a").header("access-control-request-method", "GET"),
        call("OPTIONS", "/default/a").header("origin", "https://app.example"),
    ] {
        assert_eq!(stranger(client, bad).await.outcome(), (400, "BadRequest".into()));
    }

    // The request itself, also when it is refused, so that a page can show why.
    let from = |path: &str| call("GET", path).header("origin", "https://app.example");
    for (answer, status) in [
        (client.send(from("/default/a")).await, 200),
        (client.send(from("/default/none")).await, 404),
        (stranger(client, from("/default/a")).await, 403),
    ] {
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (status, "https://app.example")
        );
        assert!(answer.header("vary").contains("Origin"));
        assert_eq!(answer.header("access-control-expose-headers"), "ETag");
    }
    let head = call("HEAD", "/default/a").header("origin", "https://other.invalid");
    assert_eq!(client.send(head).await.ok().header("access-control-allow-origin"), "*");
    let other = client.send(call("GET", "/default/a").header("origin", "https://other.invalid")).await.ok();
    assert_eq!(other.header("access-control-allow-origin"), "");
    let without = client.send(call("GET", "/default/a")).await.ok();
    assert!(without.header("vary").contains("Origin"), "a cache must tell them apart");
    assert_eq!(without.header("access-control-allow-origin"), "");

    assert_eq!(client.send(call("DELETE", "/default").query("cors", "")).await.status, 204);
    assert_eq!(client.send(get()).await.outcome(), none);
    assert_eq!(client.send(from("/default/a")).await.ok().header("vary"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_cors_rules_are_refused() {
    let site = Site::new().await;
    let rule = |inner: &str| format!("<CORSRule>{inner}</CORSRule>");
    let good = "<AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>";
    let with = |more: &str| rule(&format!("{good}{more}"));
    for (rules, code) in [
        (String::new(), "MalformedXML"),
        (rule("<AllowedOrigin>*</AllowedOrigin>"), "MalformedXML"),
        (rule("<AllowedMethod>GET</AllowedMethod>"), "MalformedXML"),
        (with("").repeat(101), "MalformedXML"),
        (rule(&good.replace("GET", "PATCH")), "InvalidRequest"),
        (rule(&good.replace('*', "https://*.*")), "InvalidRequest"),
        (rule(&good.replace('*', "")), "InvalidRequest"),
        (with("<AllowedHeader>a*b*</AllowedHeader>"), "InvalidRequest"),
        (with("<ExposeHeader>*</ExposeHeader>"), "InvalidRequest"),
        (with("<ExposeHeader>a b</ExposeHeader>"), "InvalidRequest"),
        (with("<MaxAgeSeconds>-1</MaxAgeSeconds>"), "InvalidRequest"),
        (with(&format!("<ID>{}</ID>", "i".repeat(256))), "InvalidRequest"),
    ] {
        let refused = site.client.send(cors(&rules)).await;
        assert_eq!(refused.outcome(), (400, code.to_owned()), "{rules}: {}", refused.text());
    }
    site.client.send(cors(&with("").repeat(100))).await.ok();
    let nowhere = call("PUT", "/nowhere")
        .query("cors", "")
        .body(format!("<CORSConfiguration>{}</CORSConfiguration>", with("")));
    assert_eq!(site.client.send(nowhere).await.outcome(), (404, "NoSuchBucket".into()));
}
