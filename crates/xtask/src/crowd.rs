//! What `vrs` costs in a repository with a thousand snapshots, beside the same with one.

use std::path::Path;
use std::time::Duration;

use vrs_testkit::SampleDisk;

use crate::measured::median_by;
use crate::scene::Scene;

const DISK_BYTES: u64 = 4 << 30;
const USED_MEBIBYTES: u64 = 128;
/// Measured so often; the median counts.
const REPEATS: usize = 7;

/// Fills a repository that opens without deriving a key, so that nothing hides behind that.
///
/// # Panics
/// When `vrs` fails.
#[must_use]
pub fn table(vrs: &Path, snapshots: usize) -> String {
    let mut scene = Scene::sprinkled(
        vrs,
        None,
        SampleDisk::dynamic(DISK_BYTES),
        0,
        USED_MEBIBYTES,
    );
    scene.empty_repository();
    scene.take();
    let few = Times::of(&mut scene, 0);
    for number in few.taken..snapshots {
        scene.touch(number as u64);
        scene.take();
    }
    let many = Times::of(&mut scene, snapshots as u64);
    let title = format!("with {snapshots} snapshots");
    let mut rows = vec![format!(
        "{title:<26} wall ms    as a part of the same with {}",
        few.taken
    )];
    for ((verb, few), (_, many)) in few.medians.into_iter().zip(many.medians) {
        let (few, many) = (few.as_secs_f64(), many.as_secs_f64());
        rows.push(format!(
            "  {verb:<24} {:>7.0}    {:>6.2}",
            many * 1e3,
            many / few
        ));
    }
    rows.join("\n")
}

struct Times {
    medians: [(&'static str, Duration); 3],
    /// Snapshots that there are by now.
    taken: usize,
}

impl Times {
    fn of(scene: &mut Scene, seed: u64) -> Self {
        let [mut takes, mut lists, mut restores] = [const { Vec::new() }; 3];
        for number in 0..REPEATS as u64 {
            scene.touch(seed + number + 1_000_000);
            takes.push(scene.take().wall_time);
            lists.push(scene.list().wall_time);
            scene.touch(seed + number + 2_000_000);
            restores.push(scene.restore("bench@latest").wall_time);
        }
        Self {
            medians: [
                ("take", median_by(&takes, Ord::cmp)),
                ("list", median_by(&lists, Ord::cmp)),
                ("restore", median_by(&restores, Ord::cmp)),
            ],
            taken: 1 + REPEATS,
        }
    }
}
