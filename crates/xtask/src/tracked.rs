//! What a take costs that need not look for what changed, on two disks of which the guest uses as much, and
//! beside the other programs.
//!
//! Only where files can be cloned: on an XFS of its own, which only root may mount.

use std::path::Path;

use serde_json::Value;
use vrs_testkit::{LoopDisk, SampleDisk};

use crate::comparison::{Column, Contender, heading, rows};
use crate::measured::{MIB, Measured};
use crate::programs::{Place, Program};
use crate::scene::Scene;

const USED_MEBIBYTES: u64 = 256;
/// Measured so often; the median counts.
pub const REPEATS: u64 = 3;
const GIB: u64 = 1 << 30;
/// XFS reserves as much room again behind a large file that grows.
pub(crate) const XFS_OPTIONS: &str = "allocsize=64k";

pub(crate) const COLUMNS: [Column; 3] = [
    Column {
        title: "wall s",
        decimals: 2,
        has_ratio: true,
    },
    Column {
        title: "CPU s",
        decimals: 2,
        has_ratio: true,
    },
    Column {
        title: "read MiB",
        decimals: 1,
        has_ratio: false,
    },
];
/// The column of what vrs says that it read; of the others it is not known.
pub(crate) const READ: usize = 2;

/// What one program needed, by [`COLUMNS`].
pub(crate) type Cost = [f64; COLUMNS.len()];

/// Takes of a disk of so many gibibytes, and of one five times as large.
///
/// # Panics
/// When a program fails, or nobody may mount an XFS.
#[must_use]
pub fn table(vrs: &Path, gibibytes: u64) -> String {
    let mut lines = vec![heading("next snapshot, tracked (XFS)", &COLUMNS)];
    let sizes = [gibibytes, 5 * gibibytes];
    let [small, large] = sizes.map(|gibibytes| {
        let contenders = race(vrs, gibibytes);
        lines.push(format!("a disk of {gibibytes} GiB"));
        lines.extend(rows(&COLUMNS, &contenders));
        let tracked = contenders[0].medians();
        tracked.expect("some rounds")
    });
    let [wall, processor, _] = std::array::from_fn(|column| large[column] / small[column]);
    lines.push(format!(
        "tracked, as a part of the smaller disk's: {wall:.2} wall, {processor:.2} CPU"
    ));
    lines.join("\n")
}

/// The first one is vrs that tracks the machine.
fn race(vrs: &Path, gibibytes: u64) -> Vec<Contender<{ COLUMNS.len() }>> {
    // vrs keeps a clone only where there is room for all of the image once more.
    let disk = LoopDisk::mount_with_room("xfs", XFS_OPTIONS, 3 * gibibytes * GIB);
    let mut scene = Scene::sprinkled(
        vrs,
        Some(disk.path()),
        SampleDisk::dynamic(gibibytes * GIB),
        gibibytes * GIB - USED_MEBIBYTES * 2 * (1 << 20),
        USED_MEBIBYTES,
    );
    let programs = Program::trackers(vrs);
    let mut contenders: Vec<_> = programs.iter().map(Contender::of).collect();
    for program in &programs {
        store(program, &scene, 0);
    }
    for number in 1..=REPEATS {
        scene.change(number);
        for (program, contender) in programs.iter().zip(&mut contenders) {
            contender.push(cost(&store(program, &scene, number)));
        }
    }
    contenders
}

fn store(program: &Program, scene: &Scene, number: u64) -> Measured {
    let (folder, settings) = (scene.machine_folder(), scene.settings());
    let place = Place {
        folder,
        settings: &settings,
    };
    program
        .store_machine(place, &format!("change-{number}"))
        .expect("a program that stores")
}

pub(crate) fn cost(measured: &Measured) -> Cost {
    let printed: Option<Value> = serde_json::from_str(&measured.stdout).ok();
    let read_bytes = printed.and_then(|printed| printed["machines"][0]["read_bytes"].as_f64());
    [
        measured.wall_seconds(),
        measured.processor_seconds(),
        read_bytes.map_or(f64::NAN, |bytes| bytes / MIB),
    ]
}
