//! A model of what is on disk, searched exhaustively: entries at their places, a head whose write and sync are two steps,
//! its second copy, the stored note, the cosigned one, and a start that completes what follows the head. Processes are
//! killed, the power fails with any part of what was not synced kept, and one file, the whole folder, or all records but the
//! cosigned note are restored from an old copy.
//! Controls with one rule removed must be caught. (The sync of the head has none: a head that is lost is completed from
//! the entries.)
//!
//! `model.rs` is the other half: two writers that race for the head.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use stateright::{Checker, HasDiscoveries, Model, Property};

/// The entries of a tree; a root stands for exactly one of these.
type History = Vec<u8>;

/// Places for records on disk.
const PLACES: usize = 4;

/// A piece of a disk: what survives the loss of power for certain, and what was written since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Kept<T> {
    stable: T,
    written: Option<T>,
}

impl<T: Clone> Kept<T> {
    /// What a process reads.
    fn seen(&self) -> &T {
        self.written.as_ref().unwrap_or(&self.stable)
    }

    fn write(&mut self, new: T) {
        self.written = Some(new);
    }

    fn sync(&mut self) {
        if let Some(written) = self.written.take() {
            self.stable = written;
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Process {
    Down,
    /// Its head is durable and has its copy and its note.
    Idle {
        head: History,
    },
    /// The batch is written behind the head.
    Written {
        head: History,
        new: History,
    },
    /// The batch is synced.
    Synced {
        head: History,
        new: History,
    },
    /// The new head is written, not synced.
    HeadWritten {
        head: History,
    },
    /// The new head is durable.
    Committed {
        head: History,
    },
    /// A signature over it was made, and not shown to anybody.
    Signed {
        head: History,
    },
    /// The second copy of the head is durable.
    Copied {
        head: History,
    },
}

impl Process {
    /// The head that the process holds as committed.
    fn committed(&self) -> Option<&History> {
        match self {
            Self::Idle { head }
            | Self::Committed { head }
            | Self::Signed { head }
            | Self::Copied { head } => Some(head),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Machine {
    records: Vec<Kept<Option<u8>>>,
    head: Kept<History>,
    copy: History,
    note: History,
    /// The stored note with the quorum.
    cosigned: History,
    /// What witnesses remember.
    witnessed: History,
    /// What was on disk when everything was in its place: what an operator may restore.
    old: Vec<Snapshot>,
    processes: Vec<Process>,
    /// Index and entry.
    acknowledged: Vec<(usize, u8)>,
    signed: Vec<History>,
    made: u8,
    accidents: u8,
    restored: Option<File>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Snapshot {
    records: Vec<Option<u8>>,
    head: History,
    cosigned: History,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum File {
    Head,
    Copy,
    Note,
    Entries,
    Cosigned,
    /// Head, entries and both notes; the copy lies elsewhere.
    Folder,
    /// Head, copy, entries and note; the cosigned note stays as it is.
    Records,
}

impl File {
    const ALL: [Self; 7] =
        [Self::Head, Self::Copy, Self::Note, Self::Entries, Self::Cosigned, Self::Folder, Self::Records];
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Start(usize),
    /// A batch of so many entries.
    Write(usize, u8),
    /// The next step of the order of writes.
    Advance(usize),
    Acknowledge(usize),
    /// Witnesses cosign what is published.
    Cosign(usize),
    Kill(usize),
    /// Of what is not synced, the pieces whose bit is set are kept.
    PowerLoss(u16),
    /// The file is as it was at an earlier time.
    Restore(File, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// As implemented.
    All,
    /// Entries are not synced before the head.
    NoEntrySync,
    /// A start cuts off what follows the head, in place of completing it.
    NoReplay,
    /// A start does not compare the head with its copy and the note.
    NoCopies,
    /// A start does not compare the head with the cosigned note.
    NoCosigned,
    /// A second process may start beside the first.
    NoLock,
}

struct Disk {
    rules: Rules,
    processes: usize,
    entries: u8,
    accidents: u8,
}

impl Disk {
    /// What a start finds, or nothing when it refuses.
    fn start(&self, machine: &mut Machine, process: usize) -> Option<()> {
        let running = machine.processes.iter().any(|process| *process != Process::Down);
        if running && self.rules != Rules::NoLock {
            return None;
        }
        let head = machine.head.seen().clone();
        let (copy, note) = (&machine.copy, &machine.note);
        let behind = note.len() > copy.len() || copy.len() > head.len() || note.len() > head.len();
        let different = !head.starts_with(copy) || !head.starts_with(note);
        if self.rules != Rules::NoCopies && (behind || different) {
            return None;
        }
        if self.rules != Rules::NoCosigned && !head.starts_with(&machine.cosigned) {
            return None;
        }
        let stored = |place: usize| machine.records.get(place).and_then(|record| *record.seen());
        if (0..head.len()).any(|place| stored(place) != Some(head[place])) {
            return None;
        }
        let mut whole = head.clone();
        while let Some(entry) = stored(whole.len()).filter(|_| self.rules != Rules::NoReplay) {
            whole.push(entry);
        }
        // What cannot be completed is cut off; the cut is durable with the next sync.
        for record in machine.records.iter_mut().skip(whole.len()).filter(|record| record.seen().is_some()) {
            record.write(None);
        }
        machine.processes[process] = match whole.split_at(head.len()) {
            (_, []) => Process::Idle { head },
            (_, new) => Process::Written { head: head.clone(), new: new.to_vec() },
        };
        Some(())
    }

    /// The next step of the order of writes.
    fn advance(&self, machine: &mut Machine, process: usize) -> Option<()> {
        machine.processes[process] = match machine.processes[process].clone() {
            Process::Written { head, new } => {
                if self.rules != Rules::NoEntrySync {
                    machine.records.iter_mut().for_each(Kept::sync);
                }
                Process::Synced { head, new }
            }
            Process::Synced { head, new } => {
                if *machine.head.seen() != head {
                    // The swap is lost, which is fatal.
                    Process::Down
                } else {
                    let head = [head, new].concat();
                    machine.head.write(head.clone());
                    Process::HeadWritten { head }
                }
            }
            Process::HeadWritten { head } => {
                machine.head.sync();
                Process::Committed { head }
            }
            Process::Committed { head } => Process::Signed { head },
            Process::Signed { head } => {
                machine.copy.clone_from(&head);
                // Nobody sees the signature before the copy is durable: from here on it counts.
                if !machine.signed.contains(&head) {
                    machine.signed.push(head.clone());
                    machine.signed.sort();
                }
                Process::Copied { head }
            }
            Process::Copied { head } => {
                machine.note.clone_from(&head);
                let records = machine.records.iter().map(|record| *record.seen()).collect();
                let cosigned = machine.cosigned.clone();
                machine.old.push(Snapshot { records, head: head.clone(), cosigned });
                Process::Idle { head }
            }
            Process::Down | Process::Idle { .. } => return None,
        };
        machine.old.sort();
        machine.old.dedup();
        Some(())
    }
}

impl Model for Disk {
    type State = Machine;
    type Action = Step;

    fn init_states(&self) -> Vec<Machine> {
        vec![Machine {
            records: vec![Kept::default(); PLACES],
            head: Kept::default(),
            copy: Vec::new(),
            note: Vec::new(),
            cosigned: Vec::new(),
            witnessed: Vec::new(),
            old: vec![Snapshot { records: vec![None; PLACES], ..Snapshot::default() }],
            processes: vec![Process::Down; self.processes],
            acknowledged: Vec::new(),
            signed: Vec::new(),
            made: 0,
            accidents: 0,
            restored: None,
        }]
    }

    fn actions(&self, machine: &Machine, steps: &mut Vec<Step>) {
        let accident = machine.accidents < self.accidents;
        for (number, process) in machine.processes.iter().enumerate() {
            match process {
                Process::Down => steps.push(Step::Start(number)),
                Process::Idle { head } => {
                    let witnesses = matches!(self.rules, Rules::All | Rules::NoCosigned);
                    if witnesses && *head != machine.witnessed && head.starts_with(&machine.witnessed) {
                        steps.push(Step::Cosign(number));
                    }
                    steps.extend(
                        (1..=2).filter(|n| machine.made + n <= self.entries).map(|n| Step::Write(number, n)),
                    );
                }
                _ => steps.push(Step::Advance(number)),
            }
            if process.committed().is_some() {
                steps.push(Step::Acknowledge(number));
            }
            if *process != Process::Down && accident {
                steps.push(Step::Kill(number));
            }
        }
        if accident {
            let pieces = machine.records.iter().map(|record| record.written.is_some());
            let pieces: Vec<bool> = pieces.chain([machine.head.written.is_some()]).collect();
            let unsynced = (0..pieces.len()).filter(|at| pieces[*at]).fold(0_u16, |mask, at| mask | 1 << at);
            steps.extend((0..=unsynced).filter(|mask| mask & !unsynced == 0).map(Step::PowerLoss));
        }
        let down = machine.processes.iter().all(|process| *process == Process::Down);
        if down && accident && machine.restored.is_none() {
            for at in 0..machine.old.len() {
                steps.extend(File::ALL.map(|file| Step::Restore(file, at)));
            }
        }
    }

    fn next_state(&self, before: &Machine, step: Step) -> Option<Machine> {
        let mut machine = before.clone();
        match step {
            Step::Start(process) => self.start(&mut machine, process)?,
            Step::Write(process, count) => {
                let Process::Idle { head } = machine.processes[process].clone() else { return None };
                // The head is looked at before anything is written.
                if *machine.head.seen() != head {
                    machine.processes[process] = Process::Down;
                    return Some(machine);
                }
                let new: History = (machine.made..machine.made + count).collect();
                machine.made += count;
                for (offset, entry) in new.iter().enumerate() {
                    machine.records.get_mut(head.len() + offset)?.write(Some(*entry));
                }
                machine.processes[process] = Process::Written { head, new };
            }
            Step::Advance(process) => self.advance(&mut machine, process)?,
            Step::Cosign(process) => {
                let head = machine.processes[process].committed()?.clone();
                machine.witnessed.clone_from(&head);
                machine.cosigned = head;
            }
            Step::Acknowledge(process) => {
                let head = machine.processes[process].committed()?.clone();
                let before = machine.acknowledged.len();
                for promise in head.into_iter().enumerate() {
                    if !machine.acknowledged.contains(&promise) {
                        machine.acknowledged.push(promise);
                    }
                }
                if machine.acknowledged.len() == before {
                    return None;
                }
                machine.acknowledged.sort_unstable();
            }
            Step::Kill(process) => {
                machine.accidents += 1;
                machine.processes[process] = Process::Down;
            }
            Step::PowerLoss(kept) => {
                machine.accidents += 1;
                machine.processes.fill(Process::Down);
                for (at, record) in machine.records.iter_mut().enumerate() {
                    let written = record.written.take();
                    if let Some(written) = written.filter(|_| kept & 1 << at != 0) {
                        record.stable = written;
                    }
                }
                let written = machine.head.written.take();
                if let Some(written) = written.filter(|_| kept & 1 << PLACES != 0) {
                    machine.head.stable = written;
                }
            }
            Step::Restore(file, at) => {
                machine.accidents += 1;
                machine.restored = Some(file);
                let Snapshot { records, head, cosigned } = machine.old[at].clone();
                if matches!(file, File::Head | File::Folder | File::Records) {
                    machine.head = Kept { stable: head.clone(), written: None };
                }
                if matches!(file, File::Entries | File::Folder | File::Records) {
                    let stable = |stable| Kept { stable, written: None };
                    machine.records = records.into_iter().map(stable).collect();
                }
                if matches!(file, File::Note | File::Folder | File::Records) {
                    machine.note.clone_from(&head);
                }
                if matches!(file, File::Cosigned | File::Folder) {
                    machine.cosigned = cosigned;
                }
                if matches!(file, File::Copy | File::Records) {
                    machine.copy = head;
                }
            }
        }
        Some(machine)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            // What was signed and nobody cosigned leaves no trace when all records are replaced by old ones.
            Property::always("no fork", |_, machine: &Machine| {
                let signed = &machine.signed;
                machine.restored == Some(File::Records)
                    || signed.iter().all(|a| signed.iter().all(|b| a.starts_with(b) || b.starts_with(a)))
            }),
            // Entries that an operator replaced by old ones are lost by that; then the log must refuse to start, or know
            // of no signature over them.
            Property::always("nothing acknowledged is lost", |_, machine: &Machine| {
                let replaced = matches!(machine.restored, Some(File::Entries | File::Folder | File::Records));
                let in_head = |head: &History| {
                    machine.acknowledged.iter().all(|(index, entry)| head.get(*index) == Some(entry))
                };
                let stored = |(index, entry): &(usize, u8)| *machine.records[*index].seen() == Some(*entry);
                replaced
                    || machine.acknowledged.iter().all(stored)
                        && machine.processes.iter().all(|process| process.committed().is_none_or(in_head))
            }),
            Property::always("nothing signed is taken back", |_, machine: &Machine| {
                let extends = |head: &History| machine.signed.iter().all(|signed| head.starts_with(signed));
                machine.restored == Some(File::Records)
                    || machine.processes.iter().all(|process| process.committed().is_none_or(extends))
            }),
            Property::always("nothing cosigned is contradicted", |_, machine: &Machine| {
                let extends = |head: &History| head.starts_with(&machine.witnessed);
                machine.processes.iter().all(|process| process.committed().is_none_or(extends))
            }),
            Property::sometimes("a crash is followed by further promises", |_, machine: &Machine| {
                machine.accidents >= 2 && machine.acknowledged.len() >= 3 && machine.signed.len() >= 2
            }),
            Property::sometimes("something that was not committed is completed", |_, machine: &Machine| {
                machine.accidents > 0
                    && machine
                        .processes
                        .iter()
                        .any(|process| matches!(process, Process::Written { new, .. } if !new.is_empty()))
            }),
        ]
    }
}

fn search(rules: Rules, until: HasDiscoveries) -> impl Checker<Disk> {
    let processes = if rules == Rules::NoLock { 2 } else { 1 };
    let disk = Disk { rules, processes, entries: 4, accidents: 2 };
    disk.checker().threads(2).finish_when(until).spawn_bfs().join()
}

#[test]
fn no_crash_and_no_restored_file_forks_the_log_or_loses_an_acknowledged_entry() {
    let checked = search(Rules::All, HasDiscoveries::All);
    checked.assert_properties();
    assert!(checked.unique_state_count() > 1000, "{}", checked.unique_state_count());
}

#[test]
fn each_rule_is_needed() {
    for (rules, broken) in [
        (Rules::NoEntrySync, "nothing acknowledged is lost"),
        (Rules::NoReplay, "nothing acknowledged is lost"),
        (Rules::NoCopies, "no fork"),
        (Rules::NoCosigned, "nothing cosigned is contradicted"),
        (Rules::NoLock, "nothing acknowledged is lost"),
    ] {
        let checked = search(rules, HasDiscoveries::AnyOf([broken].into()));
        assert!(checked.discovery(broken).is_some(), "{rules:?} is not caught: {broken}");
    }
}
