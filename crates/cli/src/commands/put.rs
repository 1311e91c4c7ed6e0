//! `pando put`: a file or stdin becomes an object.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::Context as _;
use serde_json::json;

use super::{content_type, transfer::Transfer};
use crate::{
    args::{self, Place},
    control::{
        Client,
        message::{Put, PutRequest},
    },
    exit::Failure,
    output::Output,
    units,
};

pub(crate) async fn run(put: args::Put, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let to = with_name(put.to, &put.file)?;
    let (source, size) = open(&put.file)?;
    let client = Client::connect(data).await?;
    let content_type = put.content_type.or_else(|| content_type::guess(&to.key).map(str::to_owned));
    let request = PutRequest {
        bucket: to.bucket.clone(),
        key: to.key.clone(),
        if_absent: put.if_absent,
        if_match: put.if_match,
        content_type,
        meta: put.meta,
    };
    let mut transfer = Transfer::show(&to.key, size);
    let stored = client.put(request, source, |sent| transfer.advance(sent)).await;
    let elapsed = transfer.elapsed();
    drop(transfer);
    let stored = stored.with_context(|| format!("can't put {to}"))?;
    if out.json {
        return out.value(&json!({
            "bucket": to.bucket,
            "key": to.key,
            "size": stored.size,
            "blake3": stored.blake3,
            "etag": stored.etag,
            "copies": stored.copies,
            "wanted": stored.wanted,
        }));
    }
    out.line(format!("stored    {to}"))?;
    let (size, rate) = (units::size(stored.size), units::rate(stored.size, elapsed));
    out.line(format!("size      {size} in {} ({rate})", units::took(elapsed)))?;
    if let Some(hash) = &stored.blake3 {
        out.line(format!("BLAKE3    {hash}"))?;
    }
    out.line(format!("copies    {}", copies(&stored)))
}

/// How many copies there are, and what becomes of those that are not there yet.
fn copies(stored: &Put) -> String {
    let (copies, wanted) = (stored.copies, stored.wanted);
    let ordinal = |number| match number {
        2 => "second",
        3 => "third",
        4 => "fourth",
        5 => "fifth",
        _ => "last",
    };
    match wanted.saturating_sub(copies) {
        0 => format!("{copies} of {wanted} copies"),
        1 => format!("{copies} of {wanted} copies; the {} follows when its node is back", ordinal(wanted)),
        missing => format!("{copies} of {wanted} copies; {missing} follow when their nodes are back"),
    }
}

/// The place with the file's name, if its key is a folder.
fn with_name(to: Place, file: &Path) -> anyhow::Result<Place> {
    if !to.key.is_empty() && !to.key.ends_with('/') {
        return Ok(to);
    }
    if is_stdin(file) {
        return Err(Failure::usage(format!("stdin has no name: write {to}NAME")).into());
    }
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        Failure::usage(format!("{} has no name that can be a key: write {to}NAME", file.display()))
    })?;
    Ok(Place { key: to.key + name, ..to })
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

type Source = Box<dyn Read + Send>;

/// What to read, and how much it is, if that can be known.
fn open(path: &Path) -> anyhow::Result<(Source, Option<u64>)> {
    if is_stdin(path) {
        return Ok((Box::new(io::stdin()), None));
    }
    let what = || format!("can't read {}", path.display());
    let file = File::open(path).with_context(what)?;
    let metadata = file.metadata().with_context(what)?;
    if metadata.is_dir() {
        return Err(Failure::usage("it is a folder; put takes one file")).with_context(what);
    }
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(key: &str) -> Place {
        Place { bucket: "default".into(), key: key.into() }
    }

    #[test]
    fn a_folder_gets_the_files_name() {
        let name = |key: &str, file: &str| with_name(place(key), Path::new(file)).map(|place| place.key);
        assert_eq!(name("", "/tmp/a.txt").unwrap(), "a.txt");
        assert_eq!(name("x/", "a.txt").unwrap(), "x/a.txt");
        assert_eq!(name("x", "a.txt").unwrap(), "x");
        assert_eq!(name("x", "-").unwrap(), "x");
        assert!(name("x/", "-").is_err() && name("", "..").is_err());
    }

    #[test]
    fn copies_are_said_in_words() {
        let say =
            |have, wanted| copies(&Put { size: 0, blake3: None, etag: String::new(), copies: have, wanted });
        assert_eq!(say(3, 3), "3 of 3 copies");
        assert_eq!(say(2, 3), "2 of 3 copies; the third follows when its node is back");
        assert_eq!(say(3, 5), "3 of 5 copies; 2 follow when their nodes are back");
    }
}
