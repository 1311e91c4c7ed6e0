//! Registers: prepare, accept, learn, read. Lists of them: `listed.rs`.
//!
//! The rules are [`pando_core::register::Acceptor`]'s; this file shows it what is stored, inside the
//! writer's transaction, and stores what it decides. The fence is checked in the same transaction or
//! snapshot: a question asked under another layout version than the durable one is not answered.
//!
//! Most promises change nothing on the disk, and need not wait for the writer to sync what others write: a
//! prepare is answered from a snapshot ([`promise_now`]) if nothing is on its way to the same register, and
//! if the ceiling that its promise rests on is durable. Everything else goes through the writer.

use pando_core::{
    id::Partition,
    name::RegisterName,
    register::{
        Accepted, Ballot, LayoutVersion, Refusal, Stored,
        acceptor::{AcceptOutcome, LearnOutcome, Prepared},
    },
};
use redb::ReadTransaction;

use crate::{
    error::Error,
    group::Group,
    index::{ANY_VOID, META, REGISTERS, VOID},
    purge, rows,
    shared::{Shared, lock},
    store::Store,
};

/// The answer to a prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// Promised; this was accepted before.
    Promised(Option<Accepted>),
    /// Refused.
    Refused(Refusal),
    /// Asked under another layout version than this one, which is known here.
    Fenced(LayoutVersion),
}

/// The answer to an accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Accepted, durably.
    Accepted,
    /// Refused.
    Refused(Refusal),
    /// Asked under another layout version than this one, which is known here.
    Fenced(LayoutVersion),
}

/// The answer to a learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learn {
    /// This or something later is stored, durably.
    Learned,
    /// Nothing is stored, and this is not above what was purged: it must be settled above.
    Refused(Refusal),
    /// Told under another layout version than this one, which is known here.
    Fenced(LayoutVersion),
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadReply {
    /// What was accepted.
    Value {
        /// The value and its ballot.
        accepted: Option<Accepted>,
        /// Ballots at or below this counter would be refused here.
        height: u64,
    },
    /// Asked under another layout version than this one, which is known here.
    Fenced(LayoutVersion),
}

/// A page of an ordered whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paged<T> {
    /// The next entries.
    Page {
        /// In order.
        entries: Vec<T>,
        /// Whether there are more after the last of them.
        more: bool,
    },
    /// Asked under another layout version than this one, which is known here.
    Fenced(LayoutVersion),
}

impl Store {
    /// A proposer asks for a promise; see [`pando_core::register::Acceptor::prepare`].
    pub async fn prepare(
        &self,
        layout: LayoutVersion,
        name: RegisterName,
        ballot: Ballot,
    ) -> Result<Prepare, Error> {
        rows::check_name(&name)?;
        check_ballot(layout, ballot)?;
        self.shared.check()?;
        if self.shared.is_below_ceiling(ballot.counter) {
            let (shared, name) = (self.shared.clone(), name.clone());
            let promise = move || promise_now(&shared, layout, &name, ballot);
            let promised = self.shared.brief.run(promise).await??;
            if let Some(accepted) = promised {
                return Ok(Prepare::Promised(accepted));
            }
        }
        let (prepared, ceiling) = self.change(1, move |group| prepare(group, layout, &name, ballot)).await?;
        if let Some(ceiling) = ceiling {
            self.shared.ceiling_is_durable(ceiling);
        }
        Ok(prepared)
    }

    /// A proposer asks to accept a value.
    pub async fn accept(
        &self,
        layout: LayoutVersion,
        name: RegisterName,
        accepted: Accepted,
    ) -> Result<Accept, Error> {
        rows::check_accepted(&name, &accepted)?;
        check_ballot(layout, accepted.ballot)?;
        // What comes out of the writer, and with it the mark, is let go after the commit.
        let mark = self.shared.mark_changing(&name);
        let changed = self.change(2, move |group| Ok((accept(group, layout, &name, &accepted)?, mark)));
        Ok(changed.await?.0)
    }

    /// Someone who knows says that a value was chosen.
    pub async fn learn(
        &self,
        layout: LayoutVersion,
        name: RegisterName,
        accepted: Accepted,
    ) -> Result<Learn, Error> {
        rows::check_accepted(&name, &accepted)?;
        let mark = self.shared.mark_changing(&name);
        let changed = self.change(2, move |group| Ok((learn(group, layout, &name, &accepted)?, mark)));
        Ok(changed.await?.0)
    }

    /// What is accepted, durably, and how high a settling ballot must go.
    pub async fn read(&self, layout: LayoutVersion, name: RegisterName) -> Result<ReadReply, Error> {
        self.glance(move |shared, txn| {
            if let Some(known) = fence(txn, layout, Some(name.partition()))? {
                return Ok(ReadReply::Fenced(known));
            }
            let accepted = stored(txn, &name)?;
            let height = lock(&shared.acceptor).height(&name, held(txn, &name, accepted.as_ref())?);
            Ok(ReadReply::Value { accepted, height })
        })
        .await
    }

    /// Whatever is here, whichever layout it is asked under.
    pub async fn peek(&self, name: RegisterName) -> Result<Option<Accepted>, Error> {
        self.glance(move |_, txn| stored(txn, &name)).await
    }
}

/// Promises, if that changes nothing on the disk; what was accepted before. `None`: the writer must decide. The
/// ballot is below the durable ceiling.
///
/// The order of calls for one register is kept: with the acceptor locked, either no accept or learn of it is on its
/// way, and the snapshot shows all that came before; or one is (marked before it was queued, until it is committed),
/// and the writer decides. One that is queued later meets the promise. A purge or a newer layout that the snapshot
/// does not show yet came after, and the accept that follows meets that.
fn promise_now(
    shared: &Shared,
    layout: LayoutVersion,
    name: &RegisterName,
    ballot: Ballot,
) -> Result<Option<Option<Accepted>>, Error> {
    let mut acceptor = lock(&shared.acceptor);
    if shared.is_changing(name) {
        return Ok(None);
    }
    let txn = shared.snapshot()?;
    match fence(&txn, layout, Some(name.partition())) {
        Ok(None) => {}
        Ok(Some(_)) | Err(Error::Settling) => return Ok(None),
        Err(error) => return Err(error),
    }
    let accepted = stored(&txn, name)?;
    let held = held(&txn, name, accepted.as_ref())?;
    match acceptor.prepare(name, ballot, held) {
        Prepared::Promised { raise_ceiling: None } => Ok(Some(accepted)),
        // Refused, which changed nothing.
        Prepared::Refused(_) => Ok(None),
        Prepared::Promised { raise_ceiling: Some(_) } => {
            unreachable!("the durable ceiling is above the ballot, and the acceptor's is no lower")
        }
    }
}

/// What decisions about a register rest on.
fn held(txn: &ReadTransaction, name: &RegisterName, accepted: Option<&Accepted>) -> Result<Stored, Error> {
    Ok(match accepted {
        Some(accepted) => Stored::Value(accepted.ballot),
        None => Stored::Absent { purged: purge::floor(txn, name.partition())? },
    })
}

/// The answer, and the ceiling that is durable with it if it was raised.
fn prepare(
    group: &mut Group<'_>,
    layout: LayoutVersion,
    name: &RegisterName,
    ballot: Ballot,
) -> Result<(Prepare, Option<u64>), Error> {
    let known = group.shared.known_layout();
    if known != layout && !pando_core::mutant("stale-layout-accepted") {
        return Ok((Prepare::Fenced(known), None));
    }
    group.check_void(name.partition())?;
    let (accepted, stored) = group.stored(name)?;
    let prepared = lock(&group.shared.acceptor).prepare(name, ballot, stored);
    match prepared {
        Prepared::Promised { raise_ceiling } => {
            if let Some(ceiling) = raise_ceiling {
                group.put_ceiling(ceiling)?;
            }
            Ok((Prepare::Promised(accepted), raise_ceiling))
        }
        Prepared::Refused(refusal) => Ok((Prepare::Refused(refusal), None)),
    }
}

fn accept(
    group: &mut Group<'_>,
    layout: LayoutVersion,
    name: &RegisterName,
    accepted: &Accepted,
) -> Result<Accept, Error> {
    let known = group.shared.known_layout();
    if known != layout && !pando_core::mutant("stale-layout-accepted") {
        return Ok(Accept::Fenced(known));
    }
    group.check_void(name.partition())?;
    let (_, stored) = group.stored(name)?;
    group.check_room()?;
    let outcome = lock(&group.shared.acceptor).accept(name, accepted.ballot, stored);
    match outcome {
        AcceptOutcome::Write => {
            group.put_accepted(name, accepted)?;
            Ok(Accept::Accepted)
        }
        AcceptOutcome::Already => Ok(Accept::Accepted),
        AcceptOutcome::Refused(refusal) => Ok(Accept::Refused(refusal)),
    }
}

fn learn(
    group: &mut Group<'_>,
    layout: LayoutVersion,
    name: &RegisterName,
    accepted: &Accepted,
) -> Result<Learn, Error> {
    let known = group.shared.known_layout();
    if known != layout {
        return Ok(Learn::Fenced(known));
    }
    group.check_void(name.partition())?;
    let (_, stored) = group.stored(name)?;
    group.check_room()?;
    let outcome = lock(&group.shared.acceptor).learn(name, accepted.ballot, stored);
    match outcome {
        LearnOutcome::Write => group.put_accepted(name, accepted)?,
        LearnOutcome::Already => {}
        LearnOutcome::Refused(refusal) => return Ok(Learn::Refused(refusal)),
    }
    Ok(Learn::Learned)
}

/// A ballot is used under its own layout version only.
fn check_ballot(layout: LayoutVersion, ballot: Ballot) -> Result<(), Error> {
    if ballot.layout == layout {
        Ok(())
    } else {
        Err(Error::Malformed { what: "a ballot of another layout version than its message's" })
    }
}

/// The layout version known, if it is not `layout`. [`Error::Settling`] if registers of the partition (of any, without
/// one) are being cleared away. The snapshot says both: what was known before or after it does not matter.
pub(crate) fn fence(
    txn: &ReadTransaction,
    layout: LayoutVersion,
    partition: Option<Partition>,
) -> Result<Option<LayoutVersion>, Error> {
    let meta = txn.open_table(META)?;
    let known = match meta.get("layout_version")? {
        Some(row) => rows::decode_number("layout_version", row.value())?,
        None => 0,
    };
    if known != layout.0 {
        return Ok(Some(LayoutVersion(known)));
    }
    if meta.get(ANY_VOID)?.is_some() {
        let void = txn.open_table(VOID)?;
        let is_settling = match partition {
            Some(partition) => void.get(partition.number())?.is_some(),
            None => true,
        };
        if is_settling {
            return Err(Error::Settling);
        }
    }
    Ok(None)
}

fn stored(txn: &ReadTransaction, name: &RegisterName) -> Result<Option<Accepted>, Error> {
    let row = txn.open_table(REGISTERS)?.get(name.as_bytes())?;
    row.map(|row| rows::decode_accepted(name.as_bytes(), row.value())).transpose()
}
