//! What a take costs that need not look for what changed, on two disks of which the guest uses as much, and
//! beside the other programs.
//!
//! Only where files can be cloned: on an XFS of its own, which only root may mount.

use std::path::Path;

use serde_json::Value;
use vrs_testkit::{LoopDisk, SampleDisk};

use crate::measured::{Measured, median_by};
use crate::programs::{Place, Program};
use crate::scene::{Home, Scene};

const USED_MEBIBYTES: u64 = 256;
/// Measured so often; the median counts.
const REPEATS: u64 = 3;
const GIB: u64 = 1 << 30;
/// Repositories of all programs. Those of a sparse file that are not used take no room.
const REPOSITORIES_BYTES: u64 = 8 * GIB;
/// XFS reserves as much room again behind a large file that grows.
const XFS_OPTIONS: &str = "allocsize=64k";

/// Takes of a disk of so many gibibytes, and of one five times as large.
///
/// # Panics
/// When a program fails, or nobody may mount an XFS.
#[must_use]
pub fn table(vrs: &Path, gibibytes: u64) -> String {
    let mut rows = vec![format!(
        "{:<32}{:>9}        {:>9}        {:>9}",
        "next snapshot, tracked (XFS)", "wall s", "CPU s", "read MiB"
    )];
    let sizes = [gibibytes, 5 * gibibytes];
    let [small, large] = sizes.map(|gibibytes| {
        let costs = Costs::of_disk(vrs, gibibytes);
        rows.push(format!("a disk of {gibibytes} GiB"));
        rows.extend(costs.rows());
        costs.tracked
    });
    let [wall, processor] = large.as_part_of(small.figures());
    rows.push(format!(
        "tracked, as a part of the smaller disk's: {wall:.2} wall, {processor:.2} CPU"
    ));
    rows.join("\n")
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    wall_seconds: f64,
    processor_seconds: f64,
    /// Of vrs, which says so.
    read_mebibytes: Option<f64>,
}

impl Cost {
    const fn figures(&self) -> [f64; 2] {
        [self.wall_seconds, self.processor_seconds]
    }

    fn as_part_of(&self, whole: [f64; 2]) -> [f64; 2] {
        let figures = self.figures();
        std::array::from_fn(|at| figures[at] / whole[at])
    }
}

struct Costs {
    tracked: Cost,
    scanned: Cost,
    peers: Vec<(&'static str, Cost)>,
}

impl Costs {
    fn of_disk(vrs: &Path, gibibytes: u64) -> Self {
        // vrs keeps a clone only where there is room for all of the image once more.
        let room_bytes = 3 * gibibytes * GIB + REPOSITORIES_BYTES;
        let disk = LoopDisk::mount_with_room("xfs", XFS_OPTIONS, room_bytes);
        let mut scene = Scene::sprinkled(
            vrs,
            Some(disk.path()),
            SampleDisk::dynamic(gibibytes * GIB),
            gibibytes * GIB - USED_MEBIBYTES * 2 * (1 << 20),
            USED_MEBIBYTES,
        );
        for home in [Home::Main, Home::Second] {
            scene.usual_repository(home);
        }
        let peers = Program::installed(vrs).into_iter().filter(Program::is_peer);
        let peers: Vec<_> = peers.collect();
        let mut runs: Vec<Vec<Cost>> = vec![Vec::new(); peers.len() + 2];
        scene.track();
        scene.take(Home::Main);
        scene.take(Home::Second);
        for peer in &peers {
            store(peer, &scene, 0);
        }
        for number in 1..=REPEATS {
            scene.change(number);
            runs[0].push(cost(&scene.take(Home::Main)));
            // The cache of hashes knows the last scan, as the others know theirs.
            runs[1].push(cost(&scene.take(Home::Second)));
            for (peer, of_peer) in peers.iter().zip(&mut runs[2..]) {
                of_peer.push(cost(&store(peer, &scene, number)));
            }
        }
        let by_wall = |one: &Cost, other: &Cost| one.wall_seconds.total_cmp(&other.wall_seconds);
        let mut medians = runs.iter().map(|costs| median_by(costs, by_wall));
        let mut next = || medians.next().expect("as many as there are programs");
        let (tracked, scanned) = (next(), next());
        let names = peers.iter().map(Program::name);
        Self {
            tracked,
            scanned,
            peers: names.map(|name| (name, next())).collect(),
        }
    }

    fn rows(&self) -> Vec<String> {
        let best = self.best_peer();
        let own = [
            ("vrs take, tracked", self.tracked),
            ("vrs take", self.scanned),
        ];
        let all = own.iter().chain(&self.peers);
        all.map(|(name, cost)| row(name, cost, best)).collect()
    }

    fn best_peer(&self) -> Option<[f64; 2]> {
        let figures = self.peers.iter();
        let figures = figures.map(|(_, cost)| cost.figures());
        figures.reduce(|best, one| std::array::from_fn(|at| best[at].min(one[at])))
    }
}

fn store(peer: &Program, scene: &Scene, number: u64) -> Measured {
    let (folder, settings) = (scene.machine_folder(), scene.settings());
    let place = Place {
        folder,
        settings: &settings,
    };
    peer.store_machine(place, &number.to_string())
        .expect("a program that stores")
}

fn cost(measured: &Measured) -> Cost {
    let processor_time = measured.usage.processor_time;
    let printed: Option<Value> = serde_json::from_str(&measured.stdout).ok();
    let read_bytes = printed.and_then(|printed| printed["machines"][0]["read_bytes"].as_f64());
    Cost {
        wall_seconds: measured.wall_time.as_secs_f64(),
        processor_seconds: processor_time.map_or(f64::NAN, |time| time.as_secs_f64()),
        read_mebibytes: read_bytes.map(|bytes| bytes / 1_048_576.0),
    }
}

fn row(name: &str, cost: &Cost, best: Option<[f64; 2]>) -> String {
    let ratios = best.map(|best| cost.as_part_of(best));
    let cells = cost.figures().into_iter().enumerate();
    let cells = cells.map(|(at, figure)| {
        let ratio = ratios.map_or_else(String::new, |ratios| format!("({:.2})", ratios[at]));
        format!("{figure:>9.2} {ratio:<6}")
    });
    let read = cost
        .read_mebibytes
        .map_or_else(String::new, |read| format!("{read:>9.1}"));
    format!("  {name:<30}{}{read}", cells.collect::<String>())
        .trim_end()
        .to_owned()
}
