//! What `vrs` costs in a repository with a thousand snapshots, beside the same with one.

use std::path::Path;
use std::time::Duration;

use vrs_testkit::SampleDisk;

use crate::measured::median_by;
use crate::scene::{Home, Scene};

const DISK_BYTES: u64 = 4 << 30;
const USED_MEBIBYTES: u64 = 128;
/// Measured so often; the median counts.
const REPEATS: usize = 9;
/// In the other repository, with which the one with many is compared.
const FEW: usize = 1;
const VERBS: [&str; 3] = ["take", "list", "restore"];

/// As users have it, and once more without deriving the key, so that nothing hides behind that. The two
/// repositories take turns.
///
/// # Panics
/// When `vrs` fails.
#[must_use]
pub fn table(vrs: &Path, snapshots: usize) -> String {
    let disk = SampleDisk::dynamic(DISK_BYTES);
    let mut scene = Scene::sprinkled(vrs, None, disk, 0, USED_MEBIBYTES);
    for (home, count) in [(Home::Main, snapshots), (Home::Second, FEW)] {
        scene.empty_repository(home);
        scene.make_usual_key(home);
        for number in 0..count {
            scene.touch(number as u64);
            scene.take(home);
        }
    }
    let underived = ratios(&mut scene, 0);
    for home in [Home::Main, Home::Second] {
        scene.exchange_keys(home);
    }
    let usual = ratios(&mut scene, 1);
    let title = format!("with {snapshots} snapshots");
    let heading = format!(
        "{title:<26} wall ms    as a part of the same with {FEW}    without deriving the key"
    );
    let rows = VERBS.iter().zip(usual.iter().zip(&underived));
    let rows = rows.map(|(verb, (usual, underived))| {
        format!(
            "  {verb:<24} {:>7.0} {:>33.2} {:>18.0} {:>8.2}",
            usual.many_ms, usual.part, underived.many_ms, underived.part
        )
    });
    std::iter::once(heading)
        .chain(rows)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Medians of one verb.
struct Ratio {
    many_ms: f64,
    part: f64,
}

/// Of all verbs.
fn ratios(scene: &mut Scene, seed: u64) -> Vec<Ratio> {
    let [mut many, mut few] = [const { [const { Vec::new() }; VERBS.len()] }; 2];
    for number in 0..REPEATS as u64 {
        scene.touch((1 + seed) << 32 | number);
        for (home, times) in [(Home::Main, &mut many), (Home::Second, &mut few)] {
            times[0].push(scene.take(home).wall_time);
            times[1].push(scene.list(home).wall_time);
        }
        for (home, times) in [(Home::Main, &mut many), (Home::Second, &mut few)] {
            scene.touch((3 + seed) << 32 | number);
            times[2].push(scene.restore(home, "bench@latest").wall_time);
        }
    }
    let median = |times: Vec<Duration>| median_by(&times, Ord::cmp).as_secs_f64();
    let medians = many.into_iter().zip(few);
    medians
        .map(|(many, few)| (median(many), median(few)))
        .map(|(many, few)| Ratio {
            many_ms: many * 1e3,
            part: many / few,
        })
        .collect()
}
