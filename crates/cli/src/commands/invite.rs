//! `pando invite`: a ticket, alone on stdout.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::{args, control::Client, output::Output};

pub(crate) async fn run(invite: args::Invite, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let ticket = client.invite(invite.expires).await.context("can't invite")?;
    out.either(&json!({ "ticket": ticket }), &ticket)
}
