//! `pando rm`: removes objects; one that can't be removed does not stop the others.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::{
    args,
    control::{Client, message::Request},
    output::{self, Output},
};

pub(crate) async fn run(rm: args::Rm, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let mut failed: Option<anyhow::Error> = None;
    for place in &rm.objects {
        let request = Request::Remove { bucket: place.bucket.clone(), key: place.key.clone() };
        match client.command(&request).await.with_context(|| format!("can't remove {place}")) {
            Ok(()) => out.either(
                &json!({ "bucket": place.bucket, "key": place.key, "removed": true }),
                format!("removed {place}"),
            )?,
            Err(error) => {
                // The last failure is the command's; those before it are reported here.
                if let Some(earlier) = failed.replace(error) {
                    output::error(&earlier);
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
