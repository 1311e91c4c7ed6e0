//! `pando rm`: removes objects; one that can't be removed does not stop the others.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::{
    args,
    control::{Client, message::Request},
    exit::{Kind, kind_of},
    output::{self, Output},
};

pub(crate) async fn run(rm: args::Rm, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let mut failed: Option<anyhow::Error> = None;
    for (number, place) in rm.objects.iter().enumerate() {
        let request = Request::Remove { bucket: place.bucket.clone(), key: place.key.clone() };
        let removed = client.command(&request, "pando stat").await;
        match removed.with_context(|| format!("can't remove {place}")) {
            Ok(()) => out.either(
                &json!({ "bucket": place.bucket, "key": place.key, "removed": true }),
                format!("removed {place}"),
            )?,
            Err(error) => failed = Some(worse(failed, error)),
        }
        if client.is_lost() {
            let left = rm.objects[number + 1..].iter().map(ToString::to_string).collect::<Vec<_>>();
            if !left.is_empty() {
                output::note(format_args!("pando: not attempted: {}", left.join(", ")));
            }
            break;
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The failure that the command ends with: the last, but not knowing comes before all. The other one is
/// reported here.
fn worse(earlier: Option<anyhow::Error>, error: anyhow::Error) -> anyhow::Error {
    let Some(earlier) = earlier else { return error };
    let (report, keep) = match kind_of(&earlier) {
        Kind::Unknown => (error, earlier),
        _ => (earlier, error),
    };
    output::error(&report);
    keep
}
