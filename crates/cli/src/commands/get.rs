//! `pando get`: an object, or a range of it, into a file or to stdout as it arrives.

use std::path::Path;

use anyhow::Context as _;

use super::{destination::Destination, marked_stale, note_stale, stat::object_json, transfer::Transfer};
use crate::{
    args,
    control::{Client, message::Request},
    exit::{Failure, Kind},
    output::{self, Output},
    signals::Signals,
    units,
};

pub(crate) async fn run(get: args::Get, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let place = get.from;
    let mut client = Client::connect(data).await?;
    note_stale(get.stale);
    let (bucket, key) = (place.bucket.clone(), place.key.clone());
    let request = Request::Get { bucket, key, range: get.range, stale: get.stale };
    let what = || format!("can't get {place}");
    let (object, range) = client.get(&request).await.with_context(what)?;
    let mut destination = Destination::choose(get.output.as_deref(), &place.key)?;
    if out.json && destination.is_stdout() {
        return Err(Failure::usage("--json needs -o FILE: stdout carries the content").into());
    }
    let length = range.end - range.start;
    let mut transfer = Transfer::show(&place.key, Some(length));
    receive(&mut client, length, &mut destination, &mut transfer).await.with_context(what)?;
    let elapsed = transfer.elapsed();
    drop(transfer);
    let Some(path) = destination.finish()? else { return Ok(()) };
    if out.json {
        let mut value = marked_stale(object_json(&object), get.stale);
        value["start"] = range.start.into();
        value["end"] = range.end.into();
        value["output"] = path.to_string_lossy().into();
        return out.value(&value);
    }
    let (size, rate) = (units::size(length), units::rate(length, elapsed));
    output::note(format_args!("{}: {size} in {} ({rate})", path.display(), units::took(elapsed)));
    Ok(())
}

async fn receive(
    client: &mut Client,
    length: u64,
    destination: &mut Destination,
    transfer: &mut Transfer,
) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    if let Some(pipe) = destination.as_pipe() {
        return client.content_to_pipe(length, pipe, |moved| transfer.advance(moved)).await;
    }
    let is_temporary = destination.is_temporary();
    let content = client.content(length, |piece| {
        destination.write(piece)?;
        transfer.advance(piece.len());
        Ok(())
    });
    // Writing to a file never waits for long, so a signal gets its turn and the temporary file goes. To
    // stdout it may; there is nothing to clean up then, and signals do what they always do.
    if !is_temporary {
        return content.await;
    }
    let mut signals = Signals::new()?;
    tokio::select! {
        done = content => done,
        _ = signals.next() => Err(Failure::new(Kind::Failed, "interrupted").into()),
    }
}
