//! Room for the saved state, for what the guest writes during the capture, and for merging that.
//!
//! VirtualBox refuses to merge unless each volume with a target has free space for the sum of its
//! sources, also where the blocks would fit in place (read in its source). A merge that is refused
//! leaves the machine with a VirtualBox snapshot that grows, so this is looked at beforehand and
//! watched meanwhile.

use super::disk::AttachedDisk;
use super::disks::takes_part;
use super::facts::{Facts, Volume};
use super::verdict::{Verdict, VerdictName};
use crate::capture::CaptureMode;

const MIB: u64 = 1 << 20;
/// How much a guest is expected to write to one disk during a capture. One that writes more meets the
/// low-water mark.
const GROWTH_BYTES: u64 = 1 << 30;
/// What a saved state has besides memory, generously: 128 MiB of memory made one of 127 MiB.
const STATE_OVERHEAD_BYTES: u64 = 16 * MIB;
/// VirtualBox's default of the graphics adapter's RAM.
const VIDEO_RAM_BYTES: u64 = 8 * MIB;
/// How often a live saved state may write all of memory before it is stopped.
const LIVE_PASSES: u64 = 2;
/// What a merge may write besides the sources, and others meanwhile.
const MARGIN_BYTES: u64 = 64 * MIB;

/// Free space at which a capture has to stop and merge, on a volume with the parents of differencing
/// images of these sizes.
#[must_use]
pub fn low_water_bytes(differencing_bytes: impl IntoIterator<Item = u64>) -> u64 {
    let sum = differencing_bytes.into_iter().fold(0, u64::saturating_add);
    // The guest goes on writing until its images are merged.
    sum.saturating_add(sum / 8).saturating_add(MARGIN_BYTES)
}

pub(super) fn verdicts(facts: &Facts<'_>) -> Vec<Verdict> {
    let volumes = facts.volumes.iter();
    volumes
        .filter_map(|volume| Need::on(volume, facts).verdict(volume, facts.mode))
        .collect()
}

/// What a volume has to have room for.
struct Need {
    state_bytes: u64,
    growth_bytes: u64,
    merge_bytes: u64,
}

impl Need {
    fn on(volume: &Volume, facts: &Facts<'_>) -> Self {
        let has_snapshots = volume.holds(&facts.snapshot_folder);
        let growth_of = |is_here: &dyn Fn(&AttachedDisk) -> bool| {
            let frozen = facts
                .disks
                .iter()
                .filter(|disk| facts.makes_differencing_images() && takes_part(disk));
            frozen
                .filter(|disk| is_here(disk))
                .map(|disk| growth_bytes(facts, disk))
                .fold(0, u64::saturating_add)
        };
        let has_tracker = facts.has_tracker();
        let has_target = |disk: &AttachedDisk| {
            if has_tracker {
                // It is merged first, so that nothing is left below.
                return volume.holds(&disk.base_location);
            }
            // VirtualBox merges into a base image, but the smaller one of two differencing images
            // into the larger one.
            let into_new = disk.is_differencing() && has_snapshots;
            let location = disk.location.as_deref();
            into_new || location.is_some_and(|location| volume.holds(location))
        };
        let tracked = facts
            .disks
            .iter()
            .filter(|disk| has_tracker && has_target(disk));
        let tracked_bytes = tracked
            .filter_map(|disk| disk.location.as_deref())
            .map(|image| std::fs::metadata(image).map_or(0, |file| file.len()))
            .fold(0, u64::saturating_add);
        Self {
            state_bytes: if has_snapshots && facts.saves_memory() {
                state_bytes(facts)
            } else {
                0
            },
            growth_bytes: growth_of(&|_| has_snapshots),
            merge_bytes: growth_of(&has_target).saturating_add(tracked_bytes),
        }
    }

    fn verdict(&self, volume: &Volume, mode: CaptureMode) -> Option<Verdict> {
        let bytes = [self.state_bytes, self.growth_bytes, self.merge_bytes]
            .into_iter()
            .fold(0, u64::saturating_add);
        if bytes == 0 {
            return None;
        }
        let subject = volume.places.first()?.display().to_string();
        let found = format!(
            "up to {} MiB are needed ({} for memory, {} for what the guest writes meanwhile, {} to merge that), {} MiB are free",
            mebibytes(bytes),
            mebibytes(self.state_bytes),
            mebibytes(self.growth_bytes),
            mebibytes(self.merge_bytes),
            volume.free_bytes / MIB
        );
        if bytes <= volume.free_bytes {
            return Some(Verdict::ok(VerdictName::FreeSpace, &subject, found));
        }
        let advice = match mode {
            CaptureMode::SaveState => "make room there, or power the machine off",
            CaptureMode::Memory | CaptureMode::Live if self.state_bytes > 0 => {
                "make room there, or take the machine with --disks-only"
            }
            _ => "make room there, or take the machine with --savestate",
        };
        Some(Verdict::refused(
            VerdictName::FreeSpace,
            &subject,
            found,
            advice,
        ))
    }
}

fn state_bytes(facts: &Facts<'_>) -> u64 {
    let hardware = &facts.settings().hardware;
    let ram_bytes = hardware.ram_bytes.unwrap_or_default();
    let video_ram_bytes = hardware.video_ram_bytes.unwrap_or(VIDEO_RAM_BYTES);
    let memory_bytes = ram_bytes.saturating_add(video_ram_bytes);
    let passes = if facts.mode == CaptureMode::Live {
        LIVE_PASSES
    } else {
        1
    };
    memory_bytes
        .saturating_mul(passes)
        .saturating_add(memory_bytes / 64)
        .saturating_add(STATE_OVERHEAD_BYTES)
}

fn growth_bytes(facts: &Facts<'_>, disk: &AttachedDisk) -> u64 {
    let medium = facts.medium(disk.attached);
    let capacity_mib = medium.and_then(|medium| medium.capacity_mib);
    capacity_mib.map_or(GROWTH_BYTES, |capacity_mib| {
        // An image that holds the whole disk, with its header and map.
        let whole_bytes = capacity_mib.saturating_add(2).saturating_mul(MIB);
        GROWTH_BYTES.min(whole_bytes)
    })
}

const fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(MIB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::scene::Scene;
    use crate::preflight::verdict::Level;

    /// Levels on the volume of the snapshot folder and on that of the disk.
    fn levels(mode: CaptureMode, free_mib: [u64; 2], together: bool) -> Vec<Level> {
        let mut scene = Scene::new("running");
        scene.set_capacity_mib(4096);
        let mut facts = scene.facts(mode);
        let disk = facts.disks[0].location.clone().unwrap();
        let snapshots = facts.snapshot_folder.clone();
        let volume = |places: &[&std::path::PathBuf], free_mib: u64| Volume {
            places: places.iter().copied().cloned().collect(),
            free_bytes: free_mib.saturating_mul(MIB),
        };
        facts.volumes = if together {
            vec![volume(&[&snapshots, &disk], free_mib[0])]
        } else {
            vec![
                volume(&[&snapshots], free_mib[0]),
                volume(&[&disk], free_mib[1]),
            ]
        };
        let verdicts = verdicts(&facts);
        verdicts.into_iter().map(|verdict| verdict.level).collect()
    }

    // The machine of the scene has 16 MiB of memory and 2 MiB for graphics: 35 MiB with overhead.
    #[test]
    fn each_volume_needs_what_is_written_there() {
        use CaptureMode::{DisksOnly, Live, Memory, SaveState};
        use Level::{Ok, Refused};
        for (mode, free_mib, expected) in [
            (Memory, [1024 + 35, 1024], [Ok, Ok].as_slice()),
            (Memory, [1024 + 33, 1024], &[Refused, Ok]),
            (Memory, [1024 + 35, 1023], &[Ok, Refused]),
            (Live, [1024 + 36, 1024], &[Refused, Ok]),
            (DisksOnly, [1024, 1024], &[Ok, Ok]),
            (DisksOnly, [1023, 1024], &[Refused, Ok]),
            (SaveState, [35, 0], &[Ok]),
            (SaveState, [33, 0], &[Refused]),
        ] {
            assert_eq!(
                levels(mode, free_mib, false),
                expected,
                "{mode:?} {free_mib:?}"
            );
        }
    }

    #[test]
    fn one_volume_needs_all() {
        for (free_mib, expected) in [(2048 + 35, Level::Ok), (2048 + 33, Level::Refused)] {
            assert_eq!(levels(CaptureMode::Memory, [free_mib, 0], true), [expected]);
        }
    }

    #[test]
    fn a_machine_at_rest_needs_nothing() {
        let scene = Scene::new("saved");
        assert_eq!(verdicts(&scene.facts(CaptureMode::Memory)), []);
    }

    #[test]
    fn low_water_is_above_what_virtualbox_asks_for() {
        assert_eq!(low_water_bytes([]), MARGIN_BYTES);
        assert_eq!(
            low_water_bytes([80 * MIB, 720 * MIB]),
            (800 + 100 + 64) * MIB
        );
        assert_eq!(low_water_bytes([u64::MAX, 1]), u64::MAX);
    }

    #[test]
    fn the_refusal_counts_it_up() {
        let mut scene = Scene::new("running");
        scene.set_capacity_mib(8);
        let mut facts = scene.facts(CaptureMode::Memory);
        facts.volumes = vec![Volume {
            places: vec![facts.snapshot_folder.clone(), "/vms/web/disk.vdi".into()],
            free_bytes: 40 * MIB,
        }];
        insta::assert_snapshot!(verdicts(&facts)[0], @"free-space: /vms/web/Snapshots: up to 55 MiB are needed (35 for memory, 10 for what the guest writes meanwhile, 10 to merge that), 40 MiB are free; make room there, or take the machine with --disks-only");
    }
}
