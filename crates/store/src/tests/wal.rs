//! The log under the index: whatever is written, in whatever order, and wherever the power goes, what is there afterwards
//! is what was there at the last sync that succeeded, or at the one that was cut off.

use proptest::prelude::*;
use redb::StorageBackend as _;

use super::*;
use crate::tests::crash_disk::{CrashDisk, CrashFile, Cut};

const LIMIT: usize = 24 * BLOCK;

#[derive(Clone, Debug)]
enum Step {
    /// Offset, length, and what is written.
    Write(u16, u16, u8),
    Grow(u16),
    Shrink(u16),
    Sync,
    /// Closed and opened again.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u16..60_000, prop_oneof![Just(BLOCK as u16), 1u16..20_000], 1u8..255)
            .prop_map(|(at, len, fill)| Step::Write(at, len, fill)),
        // As the index writes: whole blocks.
        6 => (0u16..16, 1u16..4, 1u8..255)
            .prop_map(|(at, len, fill)| Step::Write(at * BLOCK as u16, len * BLOCK as u16, fill)),
        1 => any::<u16>().prop_map(Step::Grow),
        1 => any::<u16>().prop_map(Step::Shrink),
        5 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

fn open(disk: &CrashDisk) -> io::Result<Logged<CrashFile>> {
    Logged::open(disk.file(0), disk.file(1), LIMIT)
}

fn content(logged: &Logged<CrashFile>) -> Vec<u8> {
    let mut bytes = vec![0; logged.len().unwrap() as usize];
    logged.read(0, &mut bytes).unwrap();
    bytes
}

/// What should be there.
#[derive(Default)]
struct Model {
    current: Vec<u8>,
    synced: Vec<u8>,
    /// The sync that was cut off would have made this of it.
    cut_off: Option<Vec<u8>>,
    /// More was written at once than the log holds: of what is not synced some may be there.
    spilled: bool,
}

/// Does the steps until the power goes.
fn run(steps: &[Step], disk: &CrashDisk, model: &mut Model) -> io::Result<()> {
    let mut logged = open(disk)?;
    let mut unsynced = 0;
    for step in steps {
        match step {
            Step::Write(at, len, fill) => {
                let (at, len) = (usize::from(*at), usize::from(*len));
                let data: Vec<u8> = (0..len).map(|n| fill.wrapping_add(n as u8)).collect();
                if at + len > model.current.len() {
                    model.current.resize(at + len, 0);
                    logged.set_len((at + len) as u64)?;
                }
                model.current[at..at + len].copy_from_slice(&data);
                logged.write(at as u64, &data)?;
                unsynced += len.div_ceil(BLOCK) + 1;
                model.spilled |= (1 + unsynced) * BLOCK > LIMIT;
            }
            Step::Grow(by) => {
                model.current.resize(model.current.len() + usize::from(*by), 0);
                logged.set_len(model.current.len() as u64)?;
            }
            Step::Shrink(by) => {
                // The index shrinks only what it does not use by its last sync.
                let len = model.synced.len().max(model.current.len().saturating_sub(usize::from(*by)));
                model.current.truncate(len);
                logged.set_len(model.current.len() as u64)?;
            }
            Step::Sync => {
                model.cut_off = Some(model.current.clone());
                logged.sync_data()?;
                model.synced = model.cut_off.take().expect("just set");
                (unsynced, model.spilled) = (0, false);
            }
            Step::Reopen => {
                model.cut_off = Some(model.current.clone());
                logged.sync_data()?;
                model.synced = model.cut_off.take().expect("just set");
                (unsynced, model.spilled) = (0, false);
                logged.close()?;
                logged = open(disk)?;
            }
        }
        assert!(content(&logged) == model.current, "{step:?}");
    }
    logged.close()
}

/// Whether the bytes are what they were, apart from what was added after their end.
fn same(found: &[u8], wanted: &[u8]) -> bool {
    found.len() >= wanted.len() && found[..wanted.len()] == *wanted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_synced_is_there_wherever_the_power_goes(steps in proptest::collection::vec(step(), 1..40)) {
        for fuel in 0.. {
            let (disk, mut model) = (CrashDisk::default(), Model::default());
            disk.set_fuel(fuel);
            let outcome = run(&steps, &disk, &mut model);
            if !disk.is_dead() {
                outcome.unwrap();
                break;
            }
            for cut in Cut::ALL {
                let after = disk.after(cut);
                let found = content(&open(&after).unwrap());
                let is_old = same(&found, &model.synced);
                let is_new = model.cut_off.as_ref().is_some_and(|new| same(&found, new));
                prop_assert!(is_old || is_new || model.spilled, "after {fuel} syncs, {cut:?}");
                // And again, from where that left off.
                prop_assert!(content(&open(&after.after(cut)).unwrap()) == found);
            }
        }
    }

    #[test]
    fn a_log_of_anything_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..3 * BLOCK), is_a_record: bool) {
        let disk = CrashDisk::default();
        let log = disk.file(1);
        log.write(0, &bytes).unwrap();
        if is_a_record {
            log.write(0, MAGIC).unwrap();
        }
        let logged = open(&disk).unwrap();
        prop_assert!(content(&logged).is_empty());
        logged.set_len(5000).unwrap();
        logged.write(100, b"written").unwrap();
        logged.sync_data().unwrap();
        drop(logged);
        prop_assert_eq!(&content(&open(&disk.after(Cut::Lost)).unwrap())[100..107], b"written");
    }
}

#[test]
fn the_format_is_this() {
    let disk = CrashDisk::default();
    let logged = open(&disk).unwrap();
    logged.set_len(3 * BLOCK as u64).unwrap();
    logged.write(2 * BLOCK as u64 - 1, b"ab").unwrap();
    logged.sync_data().unwrap();
    let mut log = vec![0; disk.lens()[1]];
    disk.file(1).read(0, &mut log).unwrap();
    assert_eq!(log.len(), 3 * BLOCK, "a head, and two blocks");
    assert_eq!(log[..8], *b"pandowal");
    assert_eq!(log[8..40], [0; 32]);
    let mut said = log.clone();
    said.drain(40..72);
    assert_eq!(log[40..72], *blake3::hash(&said).as_bytes());
    assert_eq!(number(&log, 72), 3 * BLOCK as u64);
    assert_eq!(log[80..84], [2, 0, 0, 0]);
    assert_eq!((number(&log, 84), number(&log, 92)), (1, 2));
    assert_eq!((log[2 * BLOCK - 1], log[2 * BLOCK]), (b'a', b'b'));
    assert!(log[100..BLOCK].iter().all(|byte| *byte == 0));
}

#[test]
fn a_block_that_is_written_often_goes_to_the_file_once() {
    let disk = CrashDisk::default();
    let logged = open(&disk).unwrap();
    logged.set_len(8 * BLOCK as u64).unwrap();
    let before = disk.syncs();
    for round in 0..10u8 {
        logged.write(0, &[round; BLOCK]).unwrap();
        logged.sync_data().unwrap();
    }
    assert_eq!(disk.syncs() - before, 10, "each is one sync, of the log");
    let mut block = [0; BLOCK];
    disk.file(0).read(0, &mut block).unwrap();
    assert_eq!(block, [0; BLOCK], "the file has none of it yet");
    for _ in 0..4 {
        logged.write(0, &[99; BLOCK]).unwrap();
        logged.sync_data().unwrap();
    }
    assert!(disk.syncs() - before > 14, "the log was full");
    logged.read(0, &mut block).unwrap();
    assert_eq!(block, [99; BLOCK]);
}

/// The index writes from threads that read, too.
#[test]
fn who_writes_while_another_syncs_is_in_the_next_record() {
    let disk = CrashDisk::default();
    let logged = open(&disk).unwrap();
    logged.set_len(8 * BLOCK as u64).unwrap();
    for pending in [false, true] {
        if pending {
            logged.write(0, &[1; BLOCK]).unwrap();
        }
        let mut held = disk.hold_next_sync();
        std::thread::scope(|threads| {
            let syncing = threads.spawn(|| logged.sync_data());
            held.came.blocking_recv().unwrap();
            let (began, begins) = std::sync::mpsc::channel();
            let logged = &logged;
            let writing = threads.spawn(move || {
                began.send(()).unwrap();
                logged.write(BLOCK as u64, &[2; BLOCK])
            });
            begins.recv().unwrap();
            // However far it is by now.
            held.go.send(()).unwrap();
            syncing.join().unwrap().unwrap();
            writing.join().unwrap().unwrap();
        });
        logged.sync_data().unwrap();
        logged.write(2 * BLOCK as u64, &[3; BLOCK]).unwrap();
        logged.sync_data().unwrap();
        let found = content(&open(&disk.after(Cut::Lost)).unwrap());
        assert!(found[BLOCK..2 * BLOCK] == [2; BLOCK] && found[2 * BLOCK..3 * BLOCK] == [3; BLOCK]);
        assert!(content(&logged) == found);
    }
}

#[test]
fn many_who_write_at_once_lose_nothing() {
    const THREADS: u64 = 4;
    let disk = CrashDisk::default();
    let logged = open(&disk).unwrap();
    logged.set_len(THREADS * 4 * BLOCK as u64).unwrap();
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let logged = &logged;
            threads.spawn(move || {
                for round in 0..200u64 {
                    let at = (thread * 4 + round % 4) * BLOCK as u64;
                    logged.write(at, &[round as u8; BLOCK]).unwrap();
                    let mut back = [0; BLOCK];
                    logged.read(at, &mut back).unwrap();
                    assert!(back == [round as u8; BLOCK], "a block of its own");
                    if round % 7 == thread {
                        logged.sync_data().unwrap();
                    }
                }
            });
        }
    });
    logged.sync_data().unwrap();
    assert!(content(&open(&disk.after(Cut::Lost)).unwrap()) == content(&logged));
}

#[test]
fn after_a_failure_nothing_is_synced() {
    let disk = CrashDisk::default();
    let logged = open(&disk).unwrap();
    logged.set_len(BLOCK as u64).unwrap();
    logged.write(0, &[1; BLOCK]).unwrap();
    disk.set_fuel(0);
    assert!(logged.sync_data().is_err());
    disk.revive();
    assert!(logged.sync_data().is_err() && logged.write(0, &[2; BLOCK]).is_err() && logged.close().is_err());
}
