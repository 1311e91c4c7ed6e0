//! S3 over TLS, and buckets in host names.

use std::{fs, path::Path, sync::Arc};

use pando_gateway::{Gateway, Options, StartError};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
    version::TLS13,
};

use crate::client::{Site, call};

/// Writes a certificate for `localhost` and its key.
fn certificate(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    fs::write(&chain, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (chain, key)
}

fn trusts(chain: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(chain).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_protocol_versions(&[&TLS13]).unwrap().with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_tls() {
    let folder = TempDir::new().unwrap();
    let (chain, key) = certificate(folder.path());
    let site = Site::with(Some((chain.clone(), key))).await;
    assert!(site.gateway.s3_url().unwrap().starts_with("https://"));
    let mut client = site.client.clone();
    client.tls = Some(trusts(&chain));
    let content = vec![7; 3_000_000];
    client.send(call("PUT", "/default/a").body(content.clone())).await.ok();
    assert!(client.send(call("GET", "/default/a")).await.ok().body == content);
    assert_eq!(client.send_as_is(call("GET", "/health")).await.ok().text(), "ok\n");
    assert_eq!(client.send_as_is(call("GET", "/default/a")).await.outcome(), (403, "AccessDenied".into()));
    // Who does not speak TLS hears nothing of use.
    let mut plain = TcpStream::connect(client.address).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_files_are_told() {
    let folder = TempDir::new().unwrap();
    let (chain, key) = certificate(folder.path());
    fs::create_dir(folder.path().join("other")).unwrap();
    let (_, other_key) = certificate(&folder.path().join("other"));
    let text = folder.path().join("text");
    fs::write(&text, "no certificate").unwrap();
    let missing = folder.path().join("missing.pem");
    let site = Site::new().await;
    for (tls, told) in [
        ((missing.clone(), key.clone()), &missing),
        ((chain.clone(), missing.clone()), &missing),
        ((text.clone(), key.clone()), &text),
        ((chain.clone(), text.clone()), &text),
        ((chain.clone(), chain.clone()), &chain),
        ((chain.clone(), other_key.clone()), &chain),
    ] {
        let options =
            Options { s3: Some(([127, 0, 0, 1], 0).into()), tls: Some(tls.clone()), ..Options::default() };
        match Gateway::start(site.node.clone(), options).await {
            Err(StartError::Tls { path, why }) => assert!(path == *told && !why.is_empty(), "{tls:?}: {why}"),
            other => panic!("{tls:?}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_in_host_names_are_buckets_everywhere() {
    let site = Site::new().await;
    let client = &site.client;
    let host = |call: crate::client::Call| call.header("host", "films.s3.example:9000");
    client.send(host(call("PUT", "/"))).await.ok();
    client.send(host(call("PUT", "/a/b c").body("hello"))).await.ok();
    assert_eq!(client.send(call("GET", "/films/a/b c")).await.ok().text(), "hello");
    let copy = call("PUT", "/copy").header("x-amz-copy-source", "/films/a/b%20c");
    client.send(host(copy)).await.ok();
    let list = client.send(host(call("GET", "/").query("list-type", "2").query("prefix", "a/"))).await.ok();
    assert_eq!((list.elements("Key"), list.element("Name")), (vec!["a/b c".to_owned()], "films".to_owned()));
    // The domain itself, and names outside of it, are path style.
    for (name, keys) in [("s3.example", 2), ("S3.EXAMPLE:80", 2), ("localhost:9000", 2)] {
        let list = client.send(call("GET", "/films").header("host", name)).await.ok();
        assert_eq!(list.elements("Key").len(), keys, "{name}");
    }
    let missing = client.send(call("GET", "/a").header("host", "none.s3.example")).await;
    assert_eq!(missing.outcome(), (404, "NoSuchBucket".into()));
    for key in ["/a/b c", "/copy"] {
        assert_eq!(client.send(host(call("DELETE", key))).await.status, 204);
    }
    assert_eq!(client.send(host(call("DELETE", "/"))).await.status, 204);
}
