//! What each verb costs, beside the programs that do the same, in one run.
//!
//! In each round every program begins with an empty repository, and they take turns at each step, so that
//! whatever else the computer does hits all of them. The memory and room on the disk that nobody had used before
//! cost the first one more: that is another `vrs`, which does not count. Medians of the rounds, and ratios to the best of the
//! others in the same row.

use std::path::Path;
use std::time::Duration;

use crate::comparison::{Column, Contender, heading, rows};
use crate::measured::{MIB, Measured};
use crate::page_cache::{forget, settle};
use crate::programs::{Distance, Place, Program};
use crate::states::States;
use crate::storage::{Storage, share_of_narrow_line};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    First,
    Next,
    Unchanged,
    FullRestore,
    RestoreOver,
    RestoreOverCompacted,
    RestoreOverKnown,
}

/// Files that changed less than that before they were read could change once more without a trace in their times.
pub(crate) const RACY: Duration = Duration::from_secs(3);

/// What one program needed for one step, by [`COLUMNS`]; NaN where nothing was measured.
type Cost = [f64; COLUMNS.len()];

const COLUMNS: [Column; 6] = [
    column("wall s"),
    column("CPU s"),
    column("peak MiB"),
    column("added MiB"),
    column("wire MiB"),
    Column {
        has_ratio: false,
        ..column("line %")
    },
];
/// The first columns are of every race, the others of one over a line.
const COLUMNS_HERE: usize = 4;

const fn column(title: &'static str) -> Column {
    Column {
        title,
        decimals: 1,
        has_ratio: true,
    }
}

/// Repositories in folders.
///
/// # Panics
/// When a program fails, or restores something else than it stored.
#[must_use]
pub fn here(vrs: &Path, states: &States, rounds: usize) -> String {
    table(vrs, states, rounds, Distance::Here)
}

/// Repositories on servers, behind a line on which an answer takes 20 ms. It carries 20 Mbit/s each way,
/// except when a whole machine passes.
///
/// # Panics
/// When a program fails, or restores something else than it stored.
#[must_use]
pub fn elsewhere(vrs: &Path, states: &States, rounds: usize) -> String {
    table(vrs, states, rounds, Distance::Elsewhere)
}

fn table(vrs: &Path, states: &States, rounds: usize, distance: Distance) -> String {
    let mut steps: [Vec<Contender<_>>; Step::ALL.len()] = Default::default();
    for round in 0..rounds {
        let programs = Program::contenders(vrs, distance);
        let first = Program::first(vrs, distance);
        for step in Step::of(distance) {
            let contenders = &mut steps[step as usize];
            if contenders.is_empty() {
                contenders.extend(programs.iter().map(Contender::of));
            }
            if let Some(first) = &first {
                step.run(first, states);
            }
            for turn in 0..programs.len() {
                let number = (turn + round) % programs.len();
                if let Some(cost) = step.cost_of(&programs[number], states) {
                    contenders[number].push(cost);
                }
            }
        }
    }
    let columns = match distance {
        Distance::Here => &COLUMNS[..COLUMNS_HERE],
        Distance::Elsewhere => &COLUMNS,
    };
    let tables = Step::of(distance).map(|step| {
        let heading = heading(step.title(), columns);
        let rows = rows(columns, &steps[step as usize]);
        std::iter::once(heading).chain(rows).collect::<Vec<_>>()
    });
    let tables = tables.map(|lines| lines.join("\n"));
    tables.collect::<Vec<_>>().join("\n\n")
}

impl Step {
    /// In the order in which they are made.
    const ALL: [Self; 7] = [
        Self::First,
        Self::Next,
        Self::Unchanged,
        Self::FullRestore,
        Self::RestoreOver,
        Self::RestoreOverCompacted,
        Self::RestoreOverKnown,
    ];

    fn of(distance: Distance) -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter();
        all.filter(move |step| distance == Distance::Here || !step.is_only_here())
    }

    /// Where the blocks of an image lie, and who read it when, makes no difference to what passes a line.
    const fn is_only_here(self) -> bool {
        matches!(self, Self::RestoreOverCompacted | Self::RestoreOverKnown)
    }

    const fn title(self) -> &'static str {
        match self {
            Self::First => "first snapshot",
            Self::Next => "next snapshot",
            Self::Unchanged => "unchanged",
            Self::FullRestore => "full restore",
            Self::RestoreOver => "restore over the next state",
            Self::RestoreOverCompacted => "the same, compacted before",
            Self::RestoreOverKnown => "the same, stored just before",
        }
    }

    /// Whether no whole machine passes.
    const fn is_small(self) -> bool {
        !matches!(self, Self::First | Self::FullRestore)
    }

    fn cost_of(self, program: &Program, states: &States) -> Option<Cost> {
        let storage = program.storage();
        let (bytes, passed) = (program.repository_bytes(), storage.passed_bytes());
        storage.narrow(self.is_small());
        let measured = self.run(program, states);
        storage.narrow(false);
        let after = storage.passed_bytes();
        let passed = [after[0] - passed[0], after[1] - passed[1]];
        let added = program.repository_bytes().saturating_sub(bytes);
        Some(cost(&measured?, added, passed, self.is_small()))
    }

    fn run(self, program: &Program, states: &States) -> Option<Measured> {
        let settings = states.settings();
        let machine = Place {
            folder: states.machine_folder(),
            settings: &settings,
        };
        let settle = || settle(&[machine.folder, &program.storage().path()]);
        let flushed = |measured: Measured| match program.storage() {
            Storage::Folder(_) => measured.flushed(),
            Storage::Elsewhere(_) => measured,
        };
        let store = |state, name| {
            states.with(state, || {
                settle();
                program.store_machine(machine, name).map(flushed)
            })
        };
        let restore_after = |prepare: &dyn Fn(), from, to, name, steps_back| {
            let run = || {
                prepare();
                settle();
                flushed(program.restore_machine(machine, name, steps_back))
            };
            Some(states.restoring(from, to, run))
        };
        let restore =
            |from, to, name, steps_back| restore_after(&|| (), from, to, name, steps_back);
        let store_old = || {
            std::thread::sleep(RACY);
            program.store_machine(machine, "known");
        };
        let measured = match self {
            Self::First => store(0, "first"),
            Self::Next => store(1, "next"),
            Self::Unchanged => store(1, "unchanged"),
            Self::FullRestore => restore(None, 1, "next", 1),
            Self::RestoreOver => restore(Some(1), 0, "first", 2),
            Self::RestoreOverCompacted => restore(Some(2), 0, "first", 2),
            Self::RestoreOverKnown => restore_after(&store_old, Some(1), 0, "first", 3),
        };
        forget(&program.storage().path());
        measured
    }
}

fn cost(measured: &Measured, added_bytes: u64, passed_bytes: [u64; 2], is_narrow: bool) -> Cost {
    let seconds = measured.wall_seconds();
    let peak_bytes = measured.usage.peak_bytes;
    [
        seconds,
        measured.processor_seconds(),
        peak_bytes.map_or(f64::NAN, |peak| peak as f64 / MIB),
        added_bytes as f64 / MIB,
        (passed_bytes[0] + passed_bytes[1]) as f64 / MIB,
        if is_narrow {
            100.0 * share_of_narrow_line(passed_bytes, seconds)
        } else {
            f64::NAN
        },
    ]
}
