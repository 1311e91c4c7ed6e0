//! `pando bucket create|ls|rm`.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::list::print_buckets;
use crate::{
    args,
    control::{Client, message::Request},
    output::Output,
};

pub(crate) async fn run(command: args::Bucket, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    match command {
        args::Bucket::Create { name } => {
            let what = || format!("can't create bucket {name}");
            let request = Request::CreateBucket { name: name.clone() };
            client.command(&request, "pando ls").await.with_context(what)?;
            out.either(&json!({ "bucket": name }), format!("created {name}"))
        }
        args::Bucket::Ls => {
            let buckets = client.list_buckets(false).await.context("can't list the buckets")?;
            print_buckets(&buckets, false, false, out)
        }
        args::Bucket::Rm { name } => {
            let what = || format!("can't remove bucket {name}");
            let request = Request::RemoveBucket { name: name.clone() };
            client.command(&request, "pando ls").await.with_context(what)?;
            out.either(&json!({ "bucket": name, "removed": true }), format!("removed {name}"))
        }
    }
}
