//! `pando share`: a link by which anyone may read one object for a while.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::{
    args,
    control::{Client, message::Request},
    output::{self, Output},
    units,
};

pub(crate) async fn run(share: args::Share, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let place = &share.object;
    let request = Request::Share {
        bucket: place.bucket.clone(),
        key: place.key.clone(),
        valid_secs: share.expires.as_secs(),
        address: share.address,
    };
    let link = client.share(&request).await.with_context(|| format!("can't share {place}"))?;
    if link.here_only {
        output::note(
            "pando: this link works on this machine only, as S3 does: `pando up --s3 IP:PORT` serves it to others, \
             --address says where they reach it",
        );
    }
    let value = json!({
        "bucket": place.bucket,
        "key": place.key,
        "url": link.url,
        "public": link.until.is_none(),
        "expires": link.until.map(|until| units::time(until * 1000)),
    });
    out.either(&value, &link.url)
}
