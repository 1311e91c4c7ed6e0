//! `pando key create|ls|rm`: access keys for the S3 gateway. A secret is shown once, when its key is made.

use std::path::Path;

use anyhow::Context as _;
use pando_core::access::{Grants, Right};
use serde_json::{Value, json};

use super::table::table;
use crate::{
    args,
    control::{
        Client,
        keys::{Key, word},
        message::Request,
    },
    output::{self, Output},
    units,
};

pub(crate) async fn run(command: args::Key, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    match command {
        args::Key::Create(create) => {
            let grants = grants(&create);
            let made = client.create_key(create.name, grants).await;
            let (key, secret) = made.context("can't create an access key")?;
            output::note("pando: the secret is not shown again");
            let mut value = json_of(&key);
            value["secret"] = secret.clone().into();
            let of_whom = describe(&key.grants);
            out.either(&value, format!("access key  {}\nsecret      {secret}\ngood for    {of_whom}", key.id))
        }
        args::Key::Ls => {
            let keys = client.list_keys().await.context("can't list the access keys")?;
            if out.json {
                return keys.iter().try_for_each(|key| out.value(&json_of(key)));
            }
            let row = |key: &Key| {
                vec![key.id.clone(), units::time(key.created), describe(&key.grants), key.name.clone()]
            };
            table(&keys.iter().map(row).collect::<Vec<_>>()).iter().try_for_each(|line| out.line(line))
        }
        args::Key::Rm { id } => {
            let what = || format!("can't remove access key {id}");
            let request = Request::RemoveKey { id: id.clone() };
            client.command(&request, "pando key ls").await.with_context(what)?;
            out.either(&json!({ "key": id, "removed": true }), format!("removed {id}"))
        }
    }
}

/// Without any bucket, a key is good for all of them.
fn grants(create: &args::KeyCreate) -> Grants {
    let of = |buckets: &[String], right: Right| {
        buckets.iter().map(|bucket| (bucket.clone(), right)).collect::<Vec<_>>()
    };
    let named =
        [of(&create.read, Right::Read), of(&create.write, Right::Write), of(&create.owner, Right::Owner)]
            .concat();
    if named.is_empty() { Grants::All } else { Grants::Buckets(named) }
}

fn describe(grants: &Grants) -> String {
    match grants {
        Grants::All => "all buckets".to_owned(),
        Grants::Buckets(named) => {
            let each = named.iter().map(|(bucket, right)| format!("{}:{bucket}", word(*right)));
            each.collect::<Vec<_>>().join(" ")
        }
    }
}

fn json_of(key: &Key) -> Value {
    let grants = match &key.grants {
        Grants::All => Value::from("all"),
        Grants::Buckets(named) => {
            named.iter().map(|(bucket, right)| json!({ "bucket": bucket, "right": word(*right) })).collect()
        }
    };
    json!({ "key": key.id, "name": key.name, "created": units::time(key.created), "grants": grants })
}
