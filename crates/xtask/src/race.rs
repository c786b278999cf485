//! What each verb costs, beside the programs that do the same, in one run.
//!
//! In each round every program begins with an empty repository, and they take turns at each step, so that
//! whatever else the computer does hits all of them. The memory and room on the disk that nobody had used before
//! cost the first one more: that is another `vrs`, which does not count. Medians of the rounds, and ratios to the best of the
//! others in the same row.

use std::path::Path;
use std::time::Duration;

use crate::measured::{Measured, median_by};
use crate::page_cache::settle;
use crate::programs::{Distance, Place, Program};
use crate::states::States;
use crate::storage::share_of_narrow_line;

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
const RACY: Duration = Duration::from_secs(3);

/// What one program needed for one step, by [`COLUMNS`]; NaN where nothing was measured.
type Cost = [f64; COLUMNS.len()];

const COLUMNS: [&str; 6] = [
    "wall s",
    "CPU s",
    "peak MiB",
    "added MiB",
    "wire MiB",
    "line %",
];
/// The first columns are of every race, the others of one over a line.
const COLUMNS_HERE: usize = 4;

/// Costs of one program, by step and round.
type Costs = [Vec<Cost>; Step::ALL.len()];

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
    let mut names = Vec::new();
    let mut costs: Vec<Costs> = Vec::new();
    for round in 0..rounds {
        let programs = Program::contenders(vrs, distance);
        names = programs
            .iter()
            .map(|one| (one.name(), one.is_peer()))
            .collect();
        costs.resize_with(programs.len(), Costs::default);
        let first = Program::first(vrs, distance);
        for step in Step::of(distance) {
            if let Some(first) = &first {
                step.run(first, states);
            }
            for turn in 0..programs.len() {
                let number = (turn + round) % programs.len();
                if let Some(cost) = step.cost_of(&programs[number], states) {
                    costs[number][step as usize].push(cost);
                }
            }
        }
    }
    let columns = match distance {
        Distance::Here => COLUMNS_HERE,
        Distance::Elsewhere => COLUMNS.len(),
    };
    let tables = Step::of(distance).map(|step| step.table(&names, &costs, columns));
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
        let store = |state, name| {
            states.with(state, || {
                settle();
                program.store_machine(machine, name)
            })
        };
        let restore_after = |prepare: &dyn Fn(), from, to, name, steps_back| {
            let run = || {
                prepare();
                settle();
                program.restore_machine(machine, name, steps_back)
            };
            Some(states.restoring(from, to, run))
        };
        let restore =
            |from, to, name, steps_back| restore_after(&|| (), from, to, name, steps_back);
        let store_old = || {
            std::thread::sleep(RACY);
            program.store_machine(machine, "known");
        };
        match self {
            Self::First => store(0, "first"),
            Self::Next => store(1, "next"),
            Self::Unchanged => store(1, "unchanged"),
            Self::FullRestore => restore(None, 1, "next", 1),
            Self::RestoreOver => restore(Some(1), 0, "first", 2),
            Self::RestoreOverCompacted => restore(Some(2), 0, "first", 2),
            Self::RestoreOverKnown => restore_after(&store_old, Some(1), 0, "first", 3),
        }
    }

    fn table(self, names: &[(&str, bool)], costs: &[Costs], columns: usize) -> String {
        let medians: Vec<_> = costs.iter().map(|of| median(&of[self as usize])).collect();
        let best = best_peer(names, &medians);
        let headings = COLUMNS[..columns].iter();
        let headings: String = headings
            .map(|title| format!("{title:>9} {:<6}", ""))
            .collect();
        let heading = format!("{:<32}{headings}", self.title());
        let mut rows = vec![heading.trim_end().to_owned()];
        for ((name, _), median) in names.iter().zip(&medians) {
            if let Some(cost) = median {
                rows.push(row(name, &cost[..columns], &best));
            }
        }
        rows.join("\n")
    }
}

fn cost(measured: &Measured, added_bytes: u64, passed_bytes: [u64; 2], is_narrow: bool) -> Cost {
    const MIB: f64 = 1_048_576.0;
    let usage = measured.usage;
    let seconds = measured.wall_time.as_secs_f64();
    [
        seconds,
        usage
            .processor_time
            .map_or(f64::NAN, |time| time.as_secs_f64()),
        usage.peak_bytes.map_or(f64::NAN, |peak| peak as f64 / MIB),
        added_bytes as f64 / MIB,
        (passed_bytes[0] + passed_bytes[1]) as f64 / MIB,
        if is_narrow {
            100.0 * share_of_narrow_line(passed_bytes, seconds)
        } else {
            f64::NAN
        },
    ]
}

/// Each figure by itself.
fn median(costs: &[Cost]) -> Option<Cost> {
    if costs.is_empty() {
        return None;
    }
    Some(std::array::from_fn(|column| {
        let all: Vec<f64> = costs.iter().map(|cost| cost[column]).collect();
        median_by(&all, f64::total_cmp)
    }))
}

/// The lowest of each figure; infinite where there is none.
fn best_peer(names: &[(&str, bool)], medians: &[Option<Cost>]) -> Cost {
    let peers = names
        .iter()
        .zip(medians)
        .filter(|((_, is_peer), _)| *is_peer);
    let peers = peers.filter_map(|(_, median)| *median);
    peers.fold([f64::INFINITY; COLUMNS.len()], |best, cost| {
        std::array::from_fn(|column| best[column].min(cost[column]))
    })
}

/// More is better in the last column, so it has no ratios.
fn row(name: &str, cost: &[f64], best: &Cost) -> String {
    let cells = cost.iter().enumerate().map(|(column, figure)| {
        if figure.is_nan() {
            return format!("{:>16}", "");
        }
        let has_ratio = best[column].is_finite() && best[column] > 0.0;
        if has_ratio && column + 1 < COLUMNS.len() {
            format!(
                "{figure:>9.1} {:<6}",
                format!("({:.2})", figure / best[column])
            )
        } else {
            format!("{figure:>9.1} {:<6}", "")
        }
    });
    let line = format!("  {name:<30}{}", cells.collect::<String>());
    line.trim_end().to_owned()
}
