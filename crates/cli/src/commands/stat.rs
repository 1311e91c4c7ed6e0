//! `pando stat`: what is known of an object.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{marked_stale, note_stale};
use crate::{
    args,
    control::{Client, message::Object},
    output::Output,
    units,
};

pub(crate) async fn run(stat: args::Stat, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    note_stale(stat.stale);
    let place = &stat.object;
    let object = client.stat(&place.bucket, &place.key, stat.stale).await;
    let object = object.with_context(|| format!("can't stat {place}"))?;
    if out.json {
        return out.value(&marked_stale(object_json(&object), stat.stale));
    }
    out.line(format!("object    {}/{}", object.bucket, object.key))?;
    out.line(format!("size      {} ({} bytes)", units::size(object.size), object.size))?;
    let hash = object.blake3.as_deref().unwrap_or("not known: it was put together of parts");
    out.line(format!("BLAKE3    {hash}"))?;
    out.line(format!("ETag      {}", object.etag))?;
    out.line(format!("modified  {}", units::time(object.modified)))?;
    if let Some(content_type) = &object.content_type {
        out.line(format!("type      {content_type}"))?;
    }
    for (name, value) in &object.meta {
        out.line(format!("meta      {name}={value}"))?;
    }
    Ok(())
}

/// An object as programs read it.
pub(super) fn object_json(object: &Object) -> Value {
    let meta = object.meta.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    json!({
        "bucket": object.bucket,
        "key": object.key,
        "size": object.size,
        "blake3": object.blake3,
        "etag": object.etag,
        "modified": units::time(object.modified),
        "content_type": object.content_type,
        "meta": meta.collect::<Map<_, _>>(),
    })
}
