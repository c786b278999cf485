//! What each verb costs, beside the programs that do the same, in one run.
//!
//! In each round every program begins with an empty repository, and they take turns at each step, so that
//! whatever else the computer does hits all of them. Medians of the rounds, and ratios to the best of the
//! others in the same row.

use std::path::Path;

use crate::limits;
use crate::measured::Measured;
use crate::programs::{Place, Program};
use crate::states::{Size, States};

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Step {
    First,
    Next,
    Unchanged,
    FullRestore,
    RestoreOver,
}

/// What one program needed for one step.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    wall_seconds: f64,
    processor_seconds: f64,
    peak_mebibytes: f64,
    /// By how much the repository grew.
    added_mebibytes: f64,
}

/// Costs of one program, by step and round.
type Costs = [Vec<Cost>; Step::ALL.len()];

/// Measures everything and returns a table.
///
/// # Panics
/// When a program fails, or restores something else than it stored.
#[must_use]
pub fn table(vrs: &Path, size: Size, rounds: usize) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let states = States::make(folder.path(), size);
    let mut names = Vec::new();
    let mut costs: Vec<Costs> = Vec::new();
    for round in 0..rounds {
        let programs = Program::contenders(vrs);
        names = programs
            .iter()
            .map(|one| (one.name(), one.is_peer()))
            .collect();
        costs.resize_with(programs.len(), Costs::default);
        for step in Step::ALL {
            for turn in 0..programs.len() {
                let number = (turn + round) % programs.len();
                let cost = step.cost_of(&programs[number], &states);
                costs[number][step as usize].push(cost);
            }
        }
    }
    let medians: Vec<Vec<Cost>> = costs
        .iter()
        .map(|of| of.iter().map(|all| median(all)).collect())
        .collect();
    let mut rows = vec![heading(size, rounds)];
    for step in Step::ALL {
        rows.push(format!("\n{:<32}{COLUMNS}", step.title()));
        let step = step as usize;
        let best = best_peer(&names, &medians, step);
        rows.extend(
            names
                .iter()
                .zip(&medians)
                .map(|((name, _), of)| row(name, of[step], best)),
        );
    }
    rows.push(format!("\n{}", limits::table(&states.image(1))));
    rows.join("\n")
}

fn heading(size: Size, rounds: usize) -> String {
    format!(
        "A disk of {} MiB and a memory of {} MiB; medians of {rounds}, in brackets as a part of the best other's",
        size.disk_mebibytes, size.memory_mebibytes
    )
}

impl Step {
    /// In the order in which they are made.
    const ALL: [Self; 5] = [
        Self::First,
        Self::Next,
        Self::Unchanged,
        Self::FullRestore,
        Self::RestoreOver,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::First => "first snapshot",
            Self::Next => "next snapshot",
            Self::Unchanged => "unchanged",
            Self::FullRestore => "full restore",
            Self::RestoreOver => "restore over the next state",
        }
    }

    fn cost_of(self, program: &Program, states: &States) -> Cost {
        let settings = states.settings();
        let machine = Place {
            folder: states.machine_folder(),
            settings: &settings,
        };
        let store = |state, name| states.with(state, || program.store_machine(machine, name));
        let before = program.repository_bytes();
        let measured = match self {
            Self::First => store(0, "first"),
            Self::Next => store(1, "next"),
            Self::Unchanged => store(1, "unchanged"),
            Self::FullRestore => {
                states.restoring(None, 1, || program.restore_machine(machine, "next", 1))
            }
            Self::RestoreOver => {
                states.restoring(Some(1), 0, || program.restore_machine(machine, "first", 2))
            }
        };
        Cost::of(&measured, program.repository_bytes().saturating_sub(before))
    }
}

impl Cost {
    fn of(measured: &Measured, added_bytes: u64) -> Self {
        let usage = measured.usage;
        Self {
            wall_seconds: measured.wall_time.as_secs_f64(),
            processor_seconds: usage.processor_time.map_or(0.0, |time| time.as_secs_f64()),
            peak_mebibytes: usage.peak_bytes.unwrap_or(0) as f64 / 1_048_576.0,
            added_mebibytes: added_bytes as f64 / 1_048_576.0,
        }
    }

    const fn figures(self) -> [f64; 4] {
        [
            self.wall_seconds,
            self.processor_seconds,
            self.peak_mebibytes,
            self.added_mebibytes,
        ]
    }
}

/// Each figure by itself.
fn median(costs: &[Cost]) -> Cost {
    let figure = |number: usize| {
        let mut all: Vec<f64> = costs.iter().map(|cost| cost.figures()[number]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Cost {
        wall_seconds: figure(0),
        processor_seconds: figure(1),
        peak_mebibytes: figure(2),
        added_mebibytes: figure(3),
    }
}

/// The lowest of each figure.
fn best_peer(names: &[(&str, bool)], medians: &[Vec<Cost>], step: usize) -> [f64; 4] {
    let peers = names
        .iter()
        .zip(medians)
        .filter(|((_, is_peer), _)| *is_peer);
    peers.fold([f64::INFINITY; 4], |best, (_, of)| {
        let figures = of[step].figures();
        std::array::from_fn(|number| best[number].min(figures[number]))
    })
}

const COLUMNS: &str = "        wall s          CPU s       peak MiB      added MiB";

fn row(name: &str, cost: Cost, best: [f64; 4]) -> String {
    let cells = cost.figures().into_iter().zip(best).map(|(figure, best)| {
        let ratio = if best.is_finite() && best > 0.0 {
            format!("({:.2})", figure / best)
        } else {
            String::new()
        };
        format!("{figure:>7.1} {ratio:<7}")
    });
    format!("  {name:<32}{}", cells.collect::<String>())
}
