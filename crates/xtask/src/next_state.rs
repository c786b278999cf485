//! What the next snapshot of a machine in use costs where vrs need not look for what changed, beside the other
//! programs; with a saved state, and powered off.
//!
//! The states are those of the race, but the machine goes from the first to the second where it is, on an XFS of
//! its own, which only root may mount. The tracked take must read no more than what changed, and what it stored
//! is restored and compared.

use std::path::Path;

use vrs_testkit::LoopDisk;

use crate::comparison::{Contender, heading, rows};
use crate::live_machine::LiveMachine;
use crate::measured::MIB;
use crate::page_cache::{forget, settle};
use crate::programs::{Distance, Program};
use crate::states::States;
use crate::tracked::{COLUMNS, Cost, READ, XFS_OPTIONS, cost};

/// Beside what the states take.
const ROOM_BYTES: u64 = 1 << 30;

/// The states have no saved states afterwards.
///
/// # Panics
/// When a program fails, a tracked take reads more than it has to or stores something else than there is, or
/// nobody may mount an XFS.
#[must_use]
pub fn table(vrs: &Path, states: &mut States, rounds: usize) -> String {
    let mut lines = vec![heading("next state, tracked (XFS)", &COLUMNS)];
    lines.push("with the saved state".to_owned());
    lines.extend(rows(&COLUMNS, &race(vrs, states, rounds)));
    states.power_off();
    lines.push("powered off".to_owned());
    lines.extend(rows(&COLUMNS, &race(vrs, states, rounds)));
    lines.join("\n")
}

fn race(vrs: &Path, states: &States, rounds: usize) -> Vec<Contender<{ COLUMNS.len() }>> {
    let mut contenders = Vec::new();
    for number in 0..rounds {
        let programs = Program::trackers(vrs);
        let first = Program::first(vrs, Distance::Here).expect("one that begins");
        let costs = round(&programs, &first, states, number);
        if contenders.is_empty() {
            contenders.extend(programs.iter().map(Contender::of));
        }
        for (contender, cost) in contenders.iter_mut().zip(costs) {
            contender.push(cost);
        }
    }
    contenders
}

/// What each of the programs, of which the first one tracks, needs for the second state.
fn round(programs: &[Program], first: &Program, states: &States, number: usize) -> Vec<Cost> {
    // vrs keeps a clone only where there is room for all of the image once more.
    let room_bytes = states.bytes() + ROOM_BYTES;
    let disk = LoopDisk::mount_with_room("xfs", XFS_OPTIONS, room_bytes);
    let machine = LiveMachine::new(states, disk.path());
    for program in programs.iter().chain([first]) {
        store(program, &machine, "first");
    }
    let changed_bytes = machine.advance();
    store(first, &machine, "next");
    let mut costs = vec![[f64::NAN; COLUMNS.len()]; programs.len()];
    for turn in 0..programs.len() {
        let at = (turn + number) % programs.len();
        costs[at] = store(&programs[at], &machine, "next");
    }
    let read_bytes = costs[0][READ] * MIB;
    assert!(
        read_bytes <= changed_bytes as f64,
        "{read_bytes} bytes were read, {changed_bytes} changed"
    );
    machine.remove();
    programs[0].restore_machine(machine.place(), "next", 0);
    states.require(1, &machine.image());
    costs
}

fn store(program: &Program, machine: &LiveMachine<'_>, name: &str) -> Cost {
    let place = machine.place();
    settle(&[place.folder, &program.storage().path()]);
    let measured = program.store_machine(place, name);
    let measured = measured.expect("a program that stores").flushed();
    forget(&program.storage().path());
    cost(&measured)
}
