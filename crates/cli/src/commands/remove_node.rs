//! `pando remove`: a node that is gone is no member any more; what it held is copied from the others.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::{
    args,
    control::{Client, message::Request},
    output::Output,
};

pub(crate) async fn run(remove: args::Remove, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let what = || format!("can't remove node {}", remove.node);
    let (force, accept_loss) = (remove.force, remove.accept_loss);
    let request = Request::RemoveNode { node: remove.node.clone(), force, accept_loss };
    let member = client.membership(&request).await.with_context(what)?;
    let line = format!(
        "removed node {}: what it held is copied from the others; `pando status` shows how far that is",
        member.short
    );
    out.either(&json!({ "id": member.id, "removed": true }), line)
}
