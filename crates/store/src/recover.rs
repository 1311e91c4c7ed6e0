//! What is done at every start: chunks that were on their way in or out when the last process ended.
//!
//! The table of unsettled chunks names every file that may not match the index. A file that was arriving
//! was synced before it could be renamed, so if it is in its place it is whole: its folder is synced
//! (the last process may have been killed before it did) and it counts. If it is not, it never
//! arrived: nobody was told that it had. A file that was leaving goes. Either way what is needed and not here is
//! owed to this node: see `chunks.rs`.

use crate::{
    error::Error,
    group::{Group, Wrote},
    index::ARRIVING,
    purge,
    shared::Shared,
};

pub(crate) fn run(shared: &Shared) -> Result<(), Error> {
    unsettled(shared)?;
    while cleared(shared)? {}
    Ok(())
}

/// Clears some of the registers away that were on their way out.
fn cleared(shared: &Shared) -> Result<bool, Error> {
    let txn = shared.begin_write()?;
    let mut group = Group::open(&txn, shared)?;
    let more = purge::clear(&mut group)?;
    group.finish()?;
    if more {
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok(more)
}

fn unsettled(shared: &Shared) -> Result<(), Error> {
    let txn = shared.begin_write()?;
    let mut group = Group::open(&txn, shared)?;
    for (id, way) in group.unsettled()? {
        let needed = !group.references(&id, 1)?.is_empty();
        let wanted = way == ARRIVING && needed;
        let file = shared.folder.read(&id)?;
        match file {
            Some(file) if wanted => {
                let len =
                    file.metadata().map_err(|error| Error::io(format!("measure chunk {id}"), error))?.len();
                shared.folder.sync_placed(&id)?;
                group.arrived(&id, len)?;
                continue;
            }
            // A file that can't be removed stays noted, for the next start.
            Some(_) if shared.folder.unlink(&[id]).is_empty() => continue,
            _ => {}
        }
        if needed {
            group.owe(shared.node, &id)?;
        }
        group.left(&id)?;
    }
    match group.finish()? {
        Wrote::Nothing => Ok(txn.abort()?),
        Wrote::Lazily | Wrote::Durably => Ok(txn.commit()?),
    }
}
