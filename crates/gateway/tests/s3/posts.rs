//! Uploads by HTML forms.

use data_encoding::BASE64;
use pando_node::core::access::{Grants, Right};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::client::{Answer, Call, Client, Site, answer, call};

const LINE: &str = "----WebKitFormBoundary7MA4YWxk";

/// A form in the making.
#[derive(Clone)]
struct Form<'a> {
    client: &'a Client,
    path: &'static str,
    expires: &'static str,
    conditions: Vec<String>,
    fields: Vec<(String, String)>,
    /// Fields that no condition covers.
    extra: Vec<(String, String)>,
    filename: &'static str,
    file: Vec<u8>,
    signature: Option<&'static str>,
}

impl<'a> Form<'a> {
    fn new(client: &'a Client) -> Self {
        Self {
            client,
            path: "/default",
            expires: "2999-01-01T00:00:00.000Z",
            conditions: vec![r#"{"bucket": "default"}"#.to_owned()],
            fields: Vec::new(),
            extra: Vec::new(),
            filename: "photo.png",
            file: b"hello".to_vec(),
            signature: None,
        }
    }

    /// A field, and the condition that it is just so.
    fn field(mut self, name: &str, value: &str) -> Self {
        self.conditions.push(format!("{{{name:?}: {value:?}}}"));
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A field that the policy does not say anything of.
    fn extra(mut self, name: &str, value: &str) -> Self {
        self.extra.push((name.to_owned(), value.to_owned()));
        self
    }

    fn condition(mut self, condition: &str) -> Self {
        self.conditions.push(condition.to_owned());
        self
    }

    fn call(self) -> Call {
        let stamp = self.client.stamp();
        let credential = format!("{}/{}/us-east-1/s3/aws4_request", self.client.id, &stamp[..8]);
        let expires = self.expires;
        let mut form = self
            .field("x-amz-algorithm", "AWS4-HMAC-SHA256")
            .field("x-amz-credential", &credential)
            .field("x-amz-date", &stamp);
        let policy =
            format!("{{\"expiration\": {expires:?}, \"conditions\": [{}]}}", form.conditions.join(","));
        let policy = BASE64.encode(policy.as_bytes());
        let signature = form.client.sign_text(&stamp[..8], &policy);
        form.fields.append(&mut form.extra);
        form.fields.push(("Policy".to_owned(), policy));
        form.fields.push(("X-Amz-Signature".to_owned(), form.signature.map_or(signature, str::to_owned)));
        let mut body = Vec::new();
        for (name, value) in &form.fields {
            let part =
                format!("--{LINE}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend(part.into_bytes());
        }
        let head = format!(
            "--{LINE}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             Content-Type: image/png\r\n\r\n",
            form.filename
        );
        body.extend([head.as_bytes(), &form.file, format!("\r\n--{LINE}\r\n").as_bytes()].concat());
        body.extend(b"Content-Disposition: form-data; name=\"submit\"\r\n\r\nUpload\r\n");
        body.extend(format!("--{LINE}--\r\n").into_bytes());
        let post = call("POST", form.path).body(body);
        post.unsigned("content-type", &format!("multipart/form-data; boundary={LINE}"))
    }

    async fn send(self) -> Answer {
        let client = self.client;
        client.send_as_is(self.call()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_put_objects() {
    let site = Site::new().await;
    let client = &site.client;
    let form = Form::new(client)
        .condition(r#"["starts-with", "$key", "in/"]"#)
        .extra("Key", "in/${filename}")
        .condition(r#"["starts-with", "$Content-Type", "image/"]"#)
        .extra("Content-Type", "image/png")
        .field("x-amz-meta-Author", "me")
        .field("Cache-Control", "no-store")
        .extra("x-ignore-this", "x");
    let done = form.clone().send().await;
    assert_eq!((done.status, done.header("etag")), (204, "\"5d41402abc4b2a76b9719d911017c592\""));
    let got = client.send(call("GET", "/default/in/photo.png")).await.ok();
    assert_eq!((got.text().as_str(), got.header("content-type")), ("hello", "image/png"));
    assert_eq!((got.header("x-amz-meta-author"), got.header("cache-control")), ("me", "no-store"));
    let path = Form { filename: "C:\\pictures\\my <cat>.png", ..form.clone() };
    let done = path.field("success_action_status", "201").send().await;
    assert_eq!((done.status, done.element("Bucket").as_str()), (201, "default"));
    assert_eq!(done.element("Key"), "in/my &lt;cat&gt;.png", "{}", done.text());
    let location = format!("http://{}/default/in/my%20%3Ccat%3E.png", client.address);
    assert_eq!((done.header("location"), done.element("Location")), (&*location, location.clone()));
    assert_eq!(client.send(call("GET", "/default/in/my <cat>.png")).await.ok().text(), "hello");
    let done = form.clone().field("success_action_status", "200").send().await;
    assert_eq!((done.status, done.text().as_str()), (200, ""));
    let done = form.clone().field("success_action_redirect", "https://example.org/done?a=1#x").send().await;
    let address = "https://example.org/done?a=1&bucket=default&key=in/photo.png\
                   &etag=%225d41402abc4b2a76b9719d911017c592%22";
    assert_eq!((done.status, done.header("location")), (303, address));
    let odd = form.field("success_action_redirect", "javascript:alert(1)").send().await;
    assert_eq!(odd.status, 204);
    let page = client.send_as_is(call("GET", "/metrics")).await.ok().text();
    assert!(page.contains("operation=\"PostObject\",status=\"204\"} 2"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_any_size_with_a_bucket_in_the_host_name() {
    let site = Site::new().await;
    let client = &site.client;
    for len in [0, 65_536, 9_000_000] {
        let file: Vec<u8> = (0..len).map(|index| [b'\r', b'\n', b'-', index as u8][index % 4]).collect();
        let form = Form { file: file.clone(), path: "/", ..Form::new(client) };
        let form = form.field("key", "film").condition(&format!("[\"content-length-range\", {len}, {len}]"));
        let done = client.send_as_is(form.call().unsigned("host", "default.s3.example:80")).await;
        assert_eq!(done.status, 204, "{}", done.text());
        assert_eq!(done.header("location"), "http://default.s3.example:80/film");
        assert!(client.send(call("GET", "/default/film")).await.ok().body == file, "{len}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_does_not_allow_is_refused() {
    let site = Site::new().await;
    let client = &site.client;
    let form = || Form::new(client).field("key", "a");
    let denied = (403, "AccessDenied".to_owned());
    for (why, form) in [
        ("expired", Form { expires: "2020-01-01T00:00:00.000Z", ..form() }),
        ("not covered", form().extra("x-amz-meta-a", "b")),
        ("not equal", form().condition(r#"["eq", "$acl", "private"]"#)),
        ("other start", form().condition(r#"["starts-with", "$key", "b"]"#)),
        ("other bucket", form().field("bucket", "elsewhere")),
        ("no bucket", Form { conditions: Vec::new(), ..Form::new(client) }.field("key", "a")),
        (
            "other type",
            form()
                .condition(r#"["starts-with", "$Content-Type", "image/"]"#)
                .extra("content-type", "image/png,text/html"),
        ),
    ] {
        let answer = form.send().await;
        assert_eq!(answer.outcome(), denied, "{why}: {}", answer.text());
    }
    for (code, form) in [
        ("EntityTooLarge", form().condition(r#"["content-length-range", 0, 4]"#)),
        ("EntityTooSmall", form().condition(r#"["content-length-range", 6, 9]"#)),
        (
            "EntityTooLarge",
            Form { file: vec![1; 1_000_000], ..form().condition(r#"["content-length-range", 0, 999999]"#) },
        ),
        ("InvalidPolicyDocument", form().condition("1")),
        ("InvalidPolicyDocument", Form { expires: "tomorrow", ..form() }),
        ("UserKeyMustBeSpecified", Form::new(client)),
        (
            "InvalidArgument",
            form().condition(r#"["starts-with", "$cache-control", "a"]"#).extra("cache-control", "a\u{1}b"),
        ),
        ("InvalidArgument", form().field("x-amz-meta-a b", "c")),
        ("InvalidArgument", form().field("KEY", "b")),
        ("BadDigest", form().field("x-amz-checksum-crc32", "NhCmhw==")),
    ] {
        let answer = form.send().await;
        assert_eq!(answer.outcome(), (400, code.to_owned()), "{}", answer.text());
    }
    for (name, value) in [
        ("acl", "public-read"),
        ("x-amz-grant-read", "id=x"),
        ("x-amz-website-redirect-location", "/b"),
        ("tagging", "<x/>"),
    ] {
        assert_eq!(
            form().field(name, value).send().await.outcome(),
            (501, "NotImplemented".into()),
            "{name}"
        );
    }
    let nowhere =
        Form { path: "/nowhere", conditions: vec![r#"{"bucket": "nowhere"}"#.into()], ..Form::new(client) };
    assert_eq!(nowhere.field("key", "a").send().await.outcome(), (404, "NoSuchBucket".into()));
    let to_key = Form { path: "/default/a", ..form() };
    assert_eq!(to_key.send().await.outcome(), (405, "MethodNotAllowed".into()));
    assert_eq!(client.send(call("HEAD", "/default/a")).await.status, 404, "nothing was put");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_not_sign_is_refused() {
    let site = Site::new().await;
    let client = &site.client;
    fn form(client: &Client) -> Form<'_> {
        Form::new(client).field("key", "a")
    }
    let wrong = Form { signature: Some("00"), ..form(client) };
    assert_eq!(wrong.send().await.outcome(), (403, "SignatureDoesNotMatch".into()));
    let mut other = client.clone();
    other.secret = "0".repeat(64);
    assert_eq!(form(&other).send().await.outcome(), (403, "SignatureDoesNotMatch".into()));
    other.id = "PNDOAAAAAAAAAAAAAAAA".to_owned();
    assert_eq!(form(&other).send().await.outcome(), (403, "InvalidAccessKeyId".into()));
    let reader = site.client(Grants::Buckets(vec![("default".to_owned(), Right::Read)])).await;
    assert_eq!(form(&reader).send().await.outcome(), (403, "AccessDenied".into()));
    for ahead in [-8 * 24 * 3600, 3600] {
        let mut late = client.clone();
        late.ahead = ahead;
        assert_eq!(form(&late).send().await.outcome(), (403, "AccessDenied".into()), "{ahead}");
    }
    // Forms are made long before they are sent.
    let mut earlier = client.clone();
    earlier.ahead = -6 * 24 * 3600;
    assert_eq!(form(&earlier).send().await.status, 204);
    let unsigned = |fields: &[(&str, &str)]| {
        let fields: String = fields
            .iter()
            .map(|(name, value)| {
                format!("--{LINE}\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n")
            })
            .collect();
        let file =
            format!("--{LINE}\r\nContent-Disposition: form-data; name=file\r\n\r\nhello\r\n--{LINE}--\r\n");
        let post = call("POST", "/default").body(fields + &file);
        post.unsigned("content-type", &format!("multipart/form-data; boundary={LINE}"))
    };
    let anonymous = client.send_as_is(unsigned(&[("key", "a")])).await;
    assert_eq!(anonymous.outcome(), (403, "AccessDenied".into()));
    let version_2 = [("key", "a"), ("AWSAccessKeyId", "x"), ("policy", "e30="), ("signature", "x")];
    assert_eq!(client.send_as_is(unsigned(&version_2)).await.outcome(), (400, "InvalidRequest".into()));
    let no_boundary = call("POST", "/default").unsigned("content-type", "multipart/form-data").body("x");
    assert_eq!(client.send_as_is(no_boundary).await.outcome(), (400, "MalformedPOSTRequest".into()));
    // To `s3s` these are forms, whose files it would hold in memory.
    for (kind, code, why) in [
        ("multipart/form-data+x; boundary=b", "MalformedPOSTRequest", "Content-Type is another"),
        ("Multipart/Form-Data+x; boundary=b", "MalformedPOSTRequest", "Content-Type is another"),
        ("multipart/form-data; boundary=b; a=\"é\"", "AccessDenied", "a form needs a policy"),
    ] {
        let body = "--b\r\nContent-Disposition: form-data; name=file\r\n\r\nhello\r\n--b--\r\n";
        let refused = client.send_as_is(call("POST", "/any").unsigned("content-type", kind).body(body)).await;
        assert_eq!(refused.element("Code"), code, "{kind}");
        assert!(refused.text().contains(why), "{kind}: {}", refused.text());
    }
    let doubly = form(client).call().unsigned(
        "authorization",
        "AWS4-HMAC-SHA256 Credential=a/20260101/b/s3/aws4_request, SignedHeaders=host, Signature=0",
    );
    assert_eq!(client.send_as_is(doubly).await.outcome(), (400, "InvalidRequest".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_ends_early_changes_nothing() {
    let site = Site::new().await;
    let client = &site.client;
    for len in [100, 500_000] {
        let form = Form { file: vec![1; len], ..Form::new(client) };
        let (head, body) = client.head_of(&form.field("key", "cut").call());
        let mut stream = TcpStream::connect(client.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body[..body.len() - 200]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        if !bytes.is_empty() {
            assert_eq!(answer(&bytes).outcome(), (400, "IncompleteBody".into()));
        }
        assert_eq!(client.send(call("HEAD", "/default/cut")).await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_may_bring_a_key() {
    let site = Site::new().await;
    let client = &site.client;
    let key = BASE64.encode(&[1; 32]);
    let names =
        ["algorithm", "key", "key-md5"].map(|what| format!("x-amz-server-side-encryption-customer-{what}"));
    let values = ["AES256", &key, "4Funlf7OsLF0HL+vKU+fkg=="];
    let form =
        names.iter().zip(values).fold(Form::new(client), |form, (name, value)| form.field(name, value));
    let done = form.field("key", "locked").send().await;
    assert_eq!((done.status, done.header(&names[0])), (204, "AES256"), "{}", done.text());
    assert_eq!(client.send(call("GET", "/default/locked")).await.status, 400);
    let get = names
        .iter()
        .zip(values)
        .fold(call("GET", "/default/locked"), |get, (name, value)| get.header(name, value));
    assert_eq!(client.send(get).await.ok().text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_make_versions() {
    let site = Site::new().await;
    let client = &site.client;
    let body = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    let form = |content: &str| Form { file: content.into(), ..Form::new(client).field("key", "a") };
    assert_eq!(form("never").send().await.ok().header("x-amz-version-id"), "");
    client.send(call("PUT", "/default").query("versioning", "").body(body)).await.ok();
    let old = form("old").send().await.ok();
    form("new").send().await.ok();
    let old = call("GET", "/default/a").query("versionId", old.header("x-amz-version-id"));
    assert_eq!(client.send(old).await.ok().text(), "old");
    assert_eq!(client.send(call("GET", "/default/a")).await.ok().text(), "new");
}
