//! A model of the commit protocol, searched exhaustively: two writers, power losses, no order of steps forks the log or
//! loses an acknowledged entry. Two controls with one rule removed must be caught.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use stateright::{Checker, Model, Property};

/// An entry: which writer, its how-manieth.
type Entry = (usize, u8);
/// A history of the log; two histories fork when neither begins with the other.
type History = Vec<Entry>;

/// What a writer does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Writer {
    /// Not running.
    Down,
    /// Knows the head it read.
    Idle { base: History },
    /// Has written its batch behind the base.
    Written { base: History, batch: Entry },
    /// The batch is synced.
    Synced { base: History, batch: Entry },
    /// The head was swapped; the batch may be acknowledged, the head signed.
    Committed { head: History },
    /// The note over this head is signed and stored.
    Signed { head: History },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Log {
    /// Entries on disk by (history before it, entry): what was written, and whether a power loss leaves it.
    data: Vec<(History, Entry, bool)>,
    /// The head file: always durable, changed by compare-and-swap only.
    head: History,
    writers: Vec<Writer>,
    acknowledged: Vec<Entry>,
    signed: Vec<History>,
    made: u8,
    losses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Start(usize),
    Write(usize),
    Sync(usize),
    Commit(usize),
    Acknowledge(usize),
    Sign(usize),
    Continue(usize),
    Stop(usize),
    PowerLoss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// As implemented.
    All,
    /// The head is signed before it is committed.
    SignFirst,
    /// Entries are not synced before the commit.
    NoSync,
}

struct Protocol {
    rules: Rules,
    writers: usize,
    entries: u8,
    losses: u8,
}

impl Model for Protocol {
    type State = Log;
    type Action = Step;

    fn init_states(&self) -> Vec<Log> {
        vec![Log {
            data: Vec::new(),
            head: Vec::new(),
            writers: vec![Writer::Down; self.writers],
            acknowledged: Vec::new(),
            signed: Vec::new(),
            made: 0,
            losses: 0,
        }]
    }

    fn actions(&self, log: &Log, steps: &mut Vec<Step>) {
        for (w, writer) in log.writers.iter().enumerate() {
            match writer {
                Writer::Down => steps.push(Step::Start(w)),
                Writer::Idle { .. } if log.made < self.entries => steps.push(Step::Write(w)),
                Writer::Idle { .. } => {}
                Writer::Written { .. } => steps.push(Step::Sync(w)),
                Writer::Synced { .. } => steps.push(Step::Commit(w)),
                Writer::Committed { .. } => steps.extend([Step::Acknowledge(w), Step::Sign(w)]),
                Writer::Signed { .. } => steps.push(Step::Continue(w)),
            }
            if self.rules == Rules::SignFirst && matches!(writer, Writer::Synced { .. }) {
                steps.push(Step::Sign(w));
            }
            if *writer != Writer::Down && log.losses < self.losses {
                steps.push(Step::Stop(w));
            }
        }
        if log.losses < self.losses {
            steps.push(Step::PowerLoss);
        }
    }

    fn next_state(&self, before: &Log, step: Step) -> Option<Log> {
        let mut log = before.clone();
        match step {
            Step::Start(w) => {
                // A start that does not find what the head covers refuses.
                let whole = (0..log.head.len()).all(|n| {
                    log.data.iter().any(|(base, entry, _)| *base == log.head[..n] && *entry == log.head[n])
                });
                if !whole {
                    return None;
                }
                log.writers[w] = Writer::Idle { base: log.head.clone() };
            }
            Step::Write(w) => {
                let Writer::Idle { base } = log.writers[w].clone() else { return None };
                let batch = (w, log.made);
                log.made += 1;
                log.data.push((base.clone(), batch, false));
                log.writers[w] = Writer::Written { base, batch };
            }
            Step::Sync(w) => {
                let Writer::Written { base, batch } = log.writers[w].clone() else { return None };
                if self.rules != Rules::NoSync {
                    for (_, entry, durable) in &mut log.data {
                        *durable |= *entry == batch;
                    }
                }
                log.writers[w] = Writer::Synced { base, batch };
            }
            Step::Commit(w) => {
                let Writer::Synced { base, batch } = log.writers[w].clone() else { return None };
                // Losing the swap is fatal: all state in memory is dropped.
                log.writers[w] = if log.head == base {
                    log.head.push(batch);
                    Writer::Committed { head: log.head.clone() }
                } else {
                    Writer::Down
                };
            }
            Step::Acknowledge(w) => {
                let Writer::Committed { head } = &log.writers[w] else { return None };
                let entry = *head.last()?;
                if log.acknowledged.contains(&entry) {
                    return None;
                }
                log.acknowledged.push(entry);
            }
            Step::Sign(w) => {
                let head = match log.writers[w].clone() {
                    Writer::Committed { head } => {
                        log.writers[w] = Writer::Signed { head: head.clone() };
                        head
                    }
                    // Only the control without the rule comes here.
                    Writer::Synced { base, batch } => [base, vec![batch]].concat(),
                    _ => return None,
                };
                if !log.signed.contains(&head) {
                    log.signed.push(head);
                    log.signed.sort();
                }
            }
            Step::Continue(w) => {
                let Writer::Signed { head } = log.writers[w].clone() else { return None };
                log.writers[w] = Writer::Idle { base: head };
            }
            Step::Stop(w) => {
                log.losses += 1;
                log.writers[w] = Writer::Down;
            }
            Step::PowerLoss => {
                log.losses += 1;
                log.writers.fill(Writer::Down);
                log.data.retain(|(_, _, durable)| *durable);
            }
        }
        Some(log)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no fork", |_, log: &Log| {
                log.signed.iter().all(|a| log.signed.iter().all(|b| a.starts_with(b) || b.starts_with(a)))
            }),
            Property::always("nothing signed is taken back", |_, log: &Log| {
                log.signed.iter().all(|signed| log.head.starts_with(signed))
            }),
            Property::always("nothing acknowledged is lost", |_, log: &Log| {
                log.acknowledged.iter().all(|entry| {
                    let place = log.head.iter().position(|stored| stored == entry);
                    place.is_some_and(|n| {
                        log.data.iter().any(|(base, stored, _)| stored == entry && *base == log.head[..n])
                    })
                })
            }),
            Property::sometimes("several entries are acknowledged and signed", |_, log: &Log| {
                log.acknowledged.len() >= 2 && log.signed.len() >= 2
            }),
        ]
    }
}

fn search(rules: Rules) -> impl Checker<Protocol> {
    Protocol { rules, writers: 2, entries: 3, losses: 2 }.checker().threads(2).spawn_bfs().join()
}

#[test]
fn no_order_of_steps_forks_the_log_or_loses_an_acknowledged_entry() {
    let checked = search(Rules::All);
    checked.assert_properties();
    assert!(checked.unique_state_count() > 1000, "{}", checked.unique_state_count());
}

#[test]
fn signing_before_the_commit_is_caught() {
    search(Rules::SignFirst).assert_any_discovery("no fork");
}

#[test]
fn a_missing_sync_is_caught() {
    search(Rules::NoSync).assert_any_discovery("nothing acknowledged is lost");
}
