//! `pando bucket create|ls|rm`.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::list::print_buckets;
use crate::{
    args,
    control::{Client, message::Request},
    output::Output,
    units,
};

pub(crate) async fn run(command: args::Bucket, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    match command {
        args::Bucket::Create { name } => {
            let what = || format!("can't create bucket {name}");
            client.command(&Request::CreateBucket { name: name.clone() }).await.with_context(what)?;
            let bucket = client.list_buckets(false).await.unwrap_or_default();
            let created = bucket.iter().find(|bucket| bucket.name == name);
            let created = created.map(|bucket| units::time(bucket.created));
            out.either(&json!({ "bucket": name, "created": created }), format!("created {name}"))
        }
        args::Bucket::Ls => {
            let buckets = client.list_buckets(false).await.context("can't list the buckets")?;
            print_buckets(&buckets, false, out)
        }
        args::Bucket::Rm { name } => {
            let what = || format!("can't remove bucket {name}");
            client.command(&Request::RemoveBucket { name: name.clone() }).await.with_context(what)?;
            out.either(&json!({ "bucket": name, "removed": true }), format!("removed {name}"))
        }
    }
}
