//! What a program that uses the crate `object_store` does with S3, against a server:
//! `object-store-client WRITE_ENDPOINT READ_ENDPOINT KEY SECRET BUCKET`. One line a step; exits with 0 only if all held.
//! What was written through one endpoint is read through the other. The bucket must be there.

use std::{env, fmt::Debug, process::ExitCode, time::Duration};

use futures_util::TryStreamExt as _;
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    UpdateVersion, WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder, Checksum, S3CopyIfNotExists},
    path::Path,
};

type Outcome = Result<(), String>;

/// Steps that fail don't end the run, so that all are seen.
struct Steps {
    failed: u32,
}

impl Steps {
    fn step(&mut self, what: &str, outcome: Outcome) {
        match outcome {
            Ok(()) => println!("ok      object_store: {what}"),
            Err(why) => {
                self.failed += 1;
                println!("FAILED  object_store: {what}: {why}");
            }
        }
    }
}

fn fails<T: Debug>(result: Result<T, Error>, expected: fn(&Error) -> bool) -> Outcome {
    match result {
        Ok(value) => Err(format!("succeeded with {value:?}")),
        Err(error) if expected(&error) => Ok(()),
        Err(error) => Err(format!("another error: {error:?}")),
    }
}

fn holds(condition: bool, otherwise: impl Debug) -> Outcome {
    if condition { Ok(()) } else { Err(format!("{otherwise:?}")) }
}

fn why<T>(result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| format!("{error:?}"))
}

struct Case {
    writer: AmazonS3,
    reader: AmazonS3,
    checked: AmazonS3,
    multipart_copies: AmazonS3,
    prefix: &'static str,
}

impl Case {
    fn at(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }

    async fn reads(&self, name: &str, expected: &[u8]) -> Outcome {
        let got = why(why(self.reader.get(&self.at(name)).await)?.bytes().await)?;
        holds(
            got == expected,
            format!("{name} reads {} bytes, other than the {} put", got.len(), expected.len()),
        )
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, String> {
        let listed: Vec<_> = why(self.reader.list(Some(&self.at(prefix))).try_collect().await)?;
        Ok(listed.iter().map(|meta| meta.location.filename().unwrap_or("").to_owned()).collect())
    }

    async fn create(&self) -> Outcome {
        let new = || PutOptions::from(PutMode::Create);
        why(self.writer.put_opts(&self.at("new"), "first".into(), new()).await)?;
        fails(self.writer.put_opts(&self.at("new"), "second".into(), new()).await, |error| {
            matches!(error, Error::AlreadyExists { .. })
        })?;
        fails(self.reader.put_opts(&self.at("new"), "third".into(), new()).await, |error| {
            matches!(error, Error::AlreadyExists { .. })
        })?;
        self.reads("new", b"first").await
    }

    async fn update(&self) -> Outcome {
        let first = why(self.writer.put(&self.at("changed"), "one".into()).await)?;
        let update =
            |e_tag: Option<String>| PutOptions::from(PutMode::Update(UpdateVersion { e_tag, version: None }));
        let second =
            why(self.reader.put_opts(&self.at("changed"), "two".into(), update(first.e_tag.clone())).await)?;
        holds(second.e_tag != first.e_tag, "the e_tag did not change")?;
        let stale =
            self.writer.put_opts(&self.at("changed"), "three".into(), update(first.e_tag.clone())).await;
        fails(stale, |error| matches!(error, Error::Precondition { .. }))?;
        let nothing = self.writer.put_opts(&self.at("never"), "three".into(), update(first.e_tag)).await;
        fails(nothing, |error| matches!(error, Error::Precondition { .. }))?;
        self.reads("changed", b"two").await
    }

    async fn conditional_get(&self) -> Outcome {
        let at = self.at("changed");
        let meta = why(self.reader.head(&at).await)?;
        let options = |same: Option<String>, other: Option<String>| {
            let mut options = GetOptions::default();
            (options.if_match, options.if_none_match) = (same, other);
            options
        };
        why(self.reader.get_opts(&at, options(meta.e_tag.clone(), None)).await)?;
        fails(self.reader.get_opts(&at, options(Some("\"0\"".to_owned()), None)).await, |error| {
            matches!(error, Error::Precondition { .. })
        })?;
        fails(self.reader.get_opts(&at, options(None, meta.e_tag)).await, |error| {
            matches!(error, Error::NotModified { .. })
        })?;
        let since = GetOptions { if_modified_since: Some(meta.last_modified), ..GetOptions::default() };
        fails(self.reader.get_opts(&at, since).await, |error| matches!(error, Error::NotModified { .. }))
    }

    async fn list(&self) -> Outcome {
        for number in 0..5 {
            why(self.writer.put(&self.at(&format!("list/{number}")), vec![number].into()).await)?;
        }
        why(self.writer.put(&self.at("list/deeper/6"), "6".into()).await)?;
        holds(self.names("list").await? == ["0", "1", "2", "3", "4", "6"], self.names("list").await?)?;
        let after = self.reader.list_with_offset(Some(&self.at("list")), &self.at("list/2"));
        let after: Vec<_> = why(after.try_collect().await)?;
        holds(after.len() == 3, &after)?;
        let level = why(self.reader.list_with_delimiter(Some(&self.at("list"))).await)?;
        holds(level.objects.len() == 5 && level.common_prefixes == [self.at("list/deeper")], &level)
    }

    async fn ranges(&self) -> Outcome {
        let bytes: Vec<u8> = (0..100_000u32).map(|number| (number % 251) as u8).collect();
        let at = self.at("ranges");
        why(self.writer.put(&at, bytes.clone().into()).await)?;
        holds(why(self.reader.get_range(&at, 70_000..70_010).await)? == bytes[70_000..70_010], "one range")?;
        holds(why(self.reader.get_range(&at, 99_999..200_000).await)? == bytes[99_999..], "past the end")?;
        let several = why(self.reader.get_ranges(&at, &[0..10, 50_000..50_001]).await)?;
        holds(several[0] == bytes[..10] && several[1] == bytes[50_000..50_001], "two ranges")?;
        let last = GetOptions { range: Some(object_store::GetRange::Suffix(7)), ..GetOptions::default() };
        let last = why(why(self.reader.get_opts(&at, last).await)?.bytes().await)?;
        holds(last == bytes[99_993..], "the end")
    }

    async fn multipart(&self, store: &AmazonS3, name: &str) -> Outcome {
        let bytes: Vec<u8> = (0..12u32 * 1024 * 1024).map(|number| (number % 65_521) as u8).collect();
        let upload = why(store.put_multipart(&self.at(name)).await)?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, 5 * 1024 * 1024);
        writer.write(&bytes);
        why(writer.finish().await)?;
        self.reads(name, &bytes).await
    }

    async fn abort(&self) -> Outcome {
        let mut upload = why(self.writer.put_multipart(&self.at("aborted")).await)?;
        why(upload.put_part(vec![1; 5 * 1024 * 1024].into()).await)?;
        why(upload.abort().await)?;
        fails(self.reader.head(&self.at("aborted")).await, |error| matches!(error, Error::NotFound { .. }))
    }

    async fn copy(&self) -> Outcome {
        why(self.writer.put(&self.at("a"), "a".into()).await)?;
        why(self.reader.copy(&self.at("a"), &self.at("b")).await)?;
        self.reads("a", b"a").await?;
        self.reads("b", b"a").await?;
        why(self.writer.rename(&self.at("b"), &self.at("c d+e%")).await)?;
        self.reads("c d+e%", b"a").await?;
        fails(self.reader.head(&self.at("b")).await, |error| matches!(error, Error::NotFound { .. }))?;
        fails(self.writer.copy(&self.at("never"), &self.at("b")).await, |error| {
            matches!(error, Error::NotFound { .. })
        })
    }

    /// Without configuration, `object_store` refuses this for S3 by itself.
    async fn copy_if_not_exists(&self) -> Outcome {
        let refused = self.writer.copy_if_not_exists(&self.at("a"), &self.at("b")).await;
        fails(refused, |error| matches!(error, Error::NotSupported { .. } | Error::NotImplemented { .. }))
    }

    /// A multipart upload whose one part is a copy, completed with `If-None-Match: *`.
    async fn copy_if_not_exists_by_multipart(&self) -> Outcome {
        let store = &self.multipart_copies;
        why(store.put(&self.at("a2"), "other".into()).await)?;
        why(store.copy_if_not_exists(&self.at("a"), &self.at("once")).await)?;
        fails(store.copy_if_not_exists(&self.at("a2"), &self.at("once")).await, |error| {
            matches!(error, Error::AlreadyExists { .. })
        })?;
        self.reads("once", b"a").await
    }

    async fn attributes(&self) -> Outcome {
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, "text/x-test"),
            (Attribute::CacheControl, "max-age=7"),
            (Attribute::Metadata("colour".into()), "blue"),
        ]);
        let options = PutOptions { attributes: attributes.clone(), ..PutOptions::default() };
        why(self.writer.put_opts(&self.at("attributes"), "x".into(), options).await)?;
        let got = why(self.reader.get(&self.at("attributes")).await)?.attributes;
        holds(got == attributes, got)
    }

    async fn checksum(&self) -> Outcome {
        why(self.checked.put(&self.at("checked"), "checked".into()).await)?;
        self.reads("checked", b"checked").await?;
        self.multipart(&self.checked, "checked-parts").await
    }

    async fn delete(&self) -> Outcome {
        why(self.writer.delete(&self.at("new")).await)?;
        fails(self.reader.get(&self.at("new")).await, |error| matches!(error, Error::NotFound { .. }))?;
        let all = self.writer.list(Some(&self.at(""))).map_ok(|meta| meta.location);
        let all: Vec<_> = why(all.try_collect().await)?;
        let stream = Box::pin(futures_util::stream::iter(all.clone().into_iter().map(Ok)));
        let gone: Vec<_> = why(self.writer.delete_stream(stream).try_collect().await)?;
        holds(!gone.is_empty() && gone.len() == all.len(), &gone)?;
        holds(self.names("").await?.is_empty(), self.names("").await?)
    }
}

async fn run(case: &Case) -> u32 {
    let mut steps = Steps { failed: 0 };
    steps.step("put_opts Create once, not twice", case.create().await);
    steps.step("put_opts Update with the right e_tag, not with another", case.update().await);
    steps.step("get_opts if_match, if_none_match, if_modified_since", case.conditional_get().await);
    steps.step("list, with an offset, with a delimiter", case.list().await);
    steps.step("get_range, get_ranges, a suffix", case.ranges().await);
    steps.step("put_multipart", case.multipart(&case.writer, "parts").await);
    steps.step("put_multipart aborted", case.abort().await);
    steps.step("copy, rename", case.copy().await);
    steps.step("copy_if_not_exists refused by default", case.copy_if_not_exists().await);
    steps.step("copy_if_not_exists as multipart", case.copy_if_not_exists_by_multipart().await);
    steps.step("attributes", case.attributes().await);
    steps.step("with SHA-256 checksums", case.checksum().await);
    steps.step("delete, delete_stream", case.delete().await);
    steps.failed
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [write, read, key, secret, bucket] = arguments.as_slice() else {
        eprintln!("object-store-client WRITE_ENDPOINT READ_ENDPOINT KEY SECRET BUCKET");
        return ExitCode::from(2);
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("no TLS");
        return ExitCode::FAILURE;
    }
    let builder = |endpoint: &str| {
        AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_access_key_id(key)
            .with_secret_access_key(secret)
            .with_bucket_name(bucket)
            .with_region("us-east-1")
            .with_allow_http(true)
    };
    let build = |builder: AmazonS3Builder| builder.build().unwrap_or_else(|error| panic!("{error}"));
    let case = Case {
        writer: build(builder(write)),
        reader: build(builder(read)),
        checked: build(builder(write).with_checksum_algorithm(Checksum::SHA256)),
        multipart_copies: build(builder(write).with_copy_if_not_exists(S3CopyIfNotExists::Multipart)),
        prefix: "object_store",
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limited = async { tokio::time::timeout(Duration::from_secs(120), run(&case)).await };
    match runtime.block_on(limited) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(_) => {
            println!("FAILED  object_store: not done within 120 s");
            ExitCode::FAILURE
        }
    }
}
