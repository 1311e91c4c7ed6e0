//! `pando ls`: buckets, or the objects of one, page by page as they arrive.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::{marked_stale, note_stale};
use crate::{
    args,
    control::{
        Client,
        message::{Bucket, ListRequest, Object, Page},
        pages::Pages,
    },
    output::Output,
    units,
};

pub(crate) async fn run(ls: args::Ls, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    note_stale(ls.stale);
    let Some(place) = &ls.place else {
        let buckets = client.list_buckets(ls.stale).await.context("can't list the buckets")?;
        return print_buckets(&buckets, ls.long, ls.stale, out);
    };
    let request = ListRequest {
        bucket: place.bucket.clone(),
        prefix: place.key.clone(),
        delimiter: (!ls.recursive).then(|| "/".to_owned()),
        after: None,
        stale: ls.stale,
    };
    let mut pages = Pages::new(client, request);
    while let Some(page) = pages.next().await.with_context(|| format!("can't list {place}"))? {
        print_page(&page, &place.bucket, &ls, out)?;
        out.flush()?;
    }
    Ok(())
}

/// The buckets, a line each.
pub(super) fn print_buckets(
    buckets: &[Bucket],
    long: bool,
    stale: bool,
    out: &mut Output,
) -> anyhow::Result<()> {
    for bucket in buckets {
        let created = units::time(bucket.created);
        let line = if long { format!("{created}  {}", bucket.name) } else { bucket.name.clone() };
        let value = json!({ "bucket": bucket.name, "created": created });
        out.either(&marked_stale(value, stale), line)?;
    }
    Ok(())
}

/// Objects and common prefixes, merged in their order.
fn print_page(page: &Page, bucket: &str, ls: &args::Ls, out: &mut Output) -> anyhow::Result<()> {
    let mut prefixes = page.prefixes.iter().peekable();
    for object in &page.objects {
        while let Some(prefix) = prefixes.next_if(|prefix| **prefix < object.key) {
            print_prefix(bucket, prefix, ls, out)?;
        }
        print_object(object, ls, out)?;
    }
    prefixes.try_for_each(|prefix| print_prefix(bucket, prefix, ls, out))
}

fn print_object(object: &Object, ls: &args::Ls, out: &mut Output) -> anyhow::Result<()> {
    let modified = units::time(object.modified);
    if out.json {
        let value = json!({
            "bucket": object.bucket,
            "key": object.key,
            "size": object.size,
            "blake3": object.blake3,
            "etag": object.etag,
            "modified": modified,
        });
        return out.value(&marked_stale(value, ls.stale));
    }
    match ls.long {
        true => {
            out.line(format!("{:>10}  {modified}  {}  {}", units::size(object.size), object.etag, object.key))
        }
        false => out.line(&object.key),
    }
}

fn print_prefix(bucket: &str, prefix: &str, ls: &args::Ls, out: &mut Output) -> anyhow::Result<()> {
    if out.json {
        return out.value(&marked_stale(json!({ "bucket": bucket, "prefix": prefix }), ls.stale));
    }
    match ls.long {
        true => out.line(format!("{:>10}  {:20}  {:32}  {prefix}", "-", "", "")),
        false => out.line(prefix),
    }
}
