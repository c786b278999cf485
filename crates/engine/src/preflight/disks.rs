//! The disks: which of them stand still while they are read, are stored, and can be merged.

use vrs_virtualbox::MachineId;

use super::disk::AttachedDisk;
use super::facts::Facts;
use super::verdict::{Verdict, VerdictName};
use crate::capture::CaptureMode;

pub(super) fn verdicts(facts: &Facts<'_>) -> Vec<Verdict> {
    let of_each = facts.disks.iter().flat_map(|disk| {
        if facts.is_skipped(disk) {
            vec![left_out(facts, disk)]
        } else {
            let checks = [
                kind(facts, disk),
                not_stored(facts, disk),
                other_children(facts, disk),
            ];
            checks.into_iter().flatten().collect()
        }
    });
    of_each.collect()
}

fn left_out(facts: &Facts<'_>, disk: &AttachedDisk) -> Verdict {
    let (name, subject) = (VerdictName::DiskKind, disk.to_string());
    if facts.stores_memory() {
        Verdict::warning(
            name,
            &subject,
            "it is left out, while memory is stored that relies on it",
            "restore with --cold",
        )
    } else {
        Verdict::warning(name, &subject, "it is left out", "")
    }
}

/// VirtualBox snapshots leave writethrough and shareable images attached as they are, and the guest
/// goes on writing to them (tried on 7.2.22).
fn kind(facts: &Facts<'_>, disk: &AttachedDisk) -> Option<Verdict> {
    let (name, subject) = (VerdictName::DiskKind, disk.to_string());
    let is_frozen = facts.makes_differencing_images();
    let skip = format!("leave the disk out with --skip-disk {}", disk.slot);
    Some(match disk.kind.to_lowercase().as_str() {
        kind @ ("writethrough" | "shareable") if is_frozen => Verdict::refused(
            name,
            &subject,
            format!(
                "VirtualBox snapshots leave {kind} disks out, so that the guest would write to it while it is read"
            ),
            format!("take the machine with --savestate or powered off, or {skip}"),
        ),
        "shareable" => shareable(facts, disk),
        "immutable" if is_frozen && facts.mode == CaptureMode::DisksOnly => Verdict::warning(
            name,
            &subject,
            "it is immutable: what the guest wrote since its last start is stored, but VirtualBox drops it when the restored machine starts",
            "take the machine with its memory, or make the disk's type normal",
        ),
        kind @ ("normal" | "immutable" | "writethrough" | "multiattach") => {
            Verdict::ok(name, &subject, format!("its type is {kind}"))
        }
        // An image that VirtualBox does not say anything about is refused by the inventory.
        "" => return None,
        other => Verdict::refused(
            name,
            &subject,
            format!("its type {other} is unknown to this version of vrs"),
            format!("update vrs, or {skip}"),
        ),
    })
}

fn shareable(facts: &Facts<'_>, disk: &AttachedDisk) -> Verdict {
    let (name, subject) = (VerdictName::DiskKind, disk.to_string());
    let users = facts.medium(disk.attached).map(|medium| &medium.used_by);
    let is_other = |user: &MachineId| *user != facts.machine.id;
    if !users.into_iter().flatten().any(is_other) {
        return Verdict::ok(
            name,
            &subject,
            "its type is shareable, and only this machine uses it",
        );
    }
    Verdict::warning(
        name,
        &subject,
        "other machines use it too",
        "do not run them meanwhile; what they write shows as a change, and the snapshot is not made",
    )
}

/// Disks of the host or the network: memory that is resumed must not meet a disk that went on.
fn not_stored(facts: &Facts<'_>, disk: &AttachedDisk) -> Option<Verdict> {
    let (name, subject) = (VerdictName::DiskNotStored, disk.to_string());
    let what = if disk.format.eq_ignore_ascii_case("iSCSI") {
        "it is a disk on the network"
    } else if is_host_disk(disk) {
        "it is a disk of the host"
    } else {
        return None;
    };
    if !facts.stores_memory() {
        return Some(Verdict::warning(
            name,
            &subject,
            format!("{what} and not stored"),
            "back it up by other means",
        ));
    }
    let reason = format!(
        "{what} and not stored; memory that is resumed when the disk has changed would ruin what is on it"
    );
    Some(if facts.machine.state.is_online() {
        let advice = format!(
            "take the machine with --disks-only, or say --skip-disk {} and restore with --cold",
            disk.slot
        );
        Verdict::refused(name, &subject, reason, advice)
    } else {
        Verdict::warning(name, &subject, reason, "restore with --cold")
    })
}

fn is_host_disk(disk: &AttachedDisk) -> bool {
    disk.format.eq_ignore_ascii_case("VMDK")
        && vrs_vdisk::extent_files(&disk.base_location)
            .is_ok_and(|extents| extents.iter().any(|extent| extent.is_device))
}

/// The capture puts a differencing image on the attached image and merges it later. VirtualBox refuses
/// that merge if the attached image has another child ("has more than one child hard disk"). Linked
/// clones of images further down are no matter (both tried on 7.2.22).
fn other_children(facts: &Facts<'_>, disk: &AttachedDisk) -> Option<Verdict> {
    if !facts.makes_differencing_images() || !takes_part(disk) {
        return None;
    }
    let (name, subject) = (VerdictName::OtherChildren, disk.to_string());
    let children: Vec<_> = facts
        .media
        .iter()
        .filter(|medium| medium.parent == Some(disk.attached))
        .collect();
    let Some(child) = children.first() else {
        return Some(Verdict::ok(
            name,
            &subject,
            "no other image is based on the attached one",
        ));
    };
    let (whose, advice) = if child.used_by.is_empty() {
        (
            "no machine uses it",
            "`vrs doctor` tells whether it may go: an interrupted VirtualBox snapshot leaves such images",
        )
    } else {
        (
            "another machine uses it",
            "take this machine powered off or with --savestate",
        )
    };
    Some(Verdict::refused(
        name,
        &subject,
        format!(
            "'{}' is based on the attached image, so VirtualBox could not merge what is written during the capture; {whose}",
            child.location.display()
        ),
        advice,
    ))
}

/// Whether VirtualBox snapshots put a differencing image on the disk.
pub(super) fn takes_part(disk: &AttachedDisk) -> bool {
    !["writethrough", "shareable"].contains(&disk.kind.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::preflight::scene::{self, Scene, named};
    use crate::preflight::verdict::Level;

    fn only(facts: &Facts<'_>, name: VerdictName) -> Verdict {
        scene::only(verdicts(facts), name)
    }

    #[rstest]
    #[case("Normal", "running", CaptureMode::Memory, Level::Ok)]
    #[case("Writethrough", "running", CaptureMode::Memory, Level::Refused)]
    #[case("Writethrough", "running", CaptureMode::Live, Level::Refused)]
    #[case("Writethrough", "running", CaptureMode::DisksOnly, Level::Refused)]
    #[case("Writethrough", "running", CaptureMode::SaveState, Level::Ok)]
    #[case("Writethrough", "poweroff", CaptureMode::Memory, Level::Ok)]
    #[case("Shareable", "running", CaptureMode::Memory, Level::Refused)]
    #[case("Shareable", "running", CaptureMode::SaveState, Level::Ok)]
    #[case("Immutable", "running", CaptureMode::Memory, Level::Ok)]
    #[case("Immutable", "running", CaptureMode::DisksOnly, Level::Warning)]
    #[case("MultiAttach", "running", CaptureMode::DisksOnly, Level::Ok)]
    #[case("Melting", "running", CaptureMode::Memory, Level::Refused)]
    fn kinds(
        #[case] kind: &str,
        #[case] state: &str,
        #[case] mode: CaptureMode,
        #[case] level: Level,
    ) {
        let mut scene = Scene::new(state);
        scene.set_kind(kind);
        assert_eq!(only(&scene.facts(mode), VerdictName::DiskKind).level, level);
    }

    #[test]
    fn a_refused_disk_may_be_left_out() {
        let mut scene = Scene::new("running");
        scene.set_kind("Writethrough");
        let refused = only(&scene.facts(CaptureMode::Memory), VerdictName::DiskKind);
        insta::assert_snapshot!(refused, @"disk-kind: SATA-0-0 (disk.vdi): VirtualBox snapshots leave writethrough disks out, so that the guest would write to it while it is read; take the machine with --savestate or powered off, or leave the disk out with --skip-disk SATA-0-0");
        scene.skip_disks = vec!["SATA-0-0".to_owned()];
        let skipped = only(&scene.facts(CaptureMode::Memory), VerdictName::DiskKind);
        insta::assert_snapshot!(skipped, @"disk-kind: SATA-0-0 (disk.vdi): it is left out, while memory is stored that relies on it; restore with --cold");
        assert_eq!(skipped.level, Level::Warning);
    }

    #[test]
    fn a_shared_disk_is_warned_of() {
        let mut scene = Scene::new("poweroff");
        scene.set_kind("Shareable");
        scene.media[0].used_by = vec![scene.machine.id, uuid::Uuid::from_u128(7).into()];
        let found = only(&scene.facts(CaptureMode::Memory), VerdictName::DiskKind);
        assert_eq!(found.level, Level::Warning);
    }

    #[rstest]
    #[case("running", CaptureMode::Memory, Level::Refused)]
    #[case("running", CaptureMode::SaveState, Level::Refused)]
    #[case("running", CaptureMode::DisksOnly, Level::Warning)]
    #[case("poweroff", CaptureMode::Memory, Level::Warning)]
    #[case("saved", CaptureMode::Memory, Level::Warning)]
    fn disks_that_are_not_stored(
        #[case] state: &str,
        #[case] mode: CaptureMode,
        #[case] level: Level,
    ) {
        let mut scene = Scene::new(state);
        scene.add_foreign_image(0xe1, None, &[0xff]);
        scene.media[1].format = "iSCSI".to_owned();
        scene.attach(0, 0xe1);
        assert_eq!(
            only(&scene.facts(mode), VerdictName::DiskNotStored).level,
            level
        );
        scene.skip_disks = vec!["SATA-0-0".to_owned()];
        assert_eq!(
            named(verdicts(&scene.facts(mode)), VerdictName::DiskNotStored),
            []
        );
    }

    #[test]
    fn a_disk_of_the_host_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let descriptor = folder.path().join("raw.vmdk");
        let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"fullDevice\"\nRW 8192 FLAT \"/dev/sdz\" 0\n";
        std::fs::write(&descriptor, text).unwrap();
        let mut scene = Scene::new("running");
        scene.inventory.media[0].format = "VMDK".to_owned();
        scene.inventory.media[0].location = descriptor;
        let found = only(
            &scene.facts(CaptureMode::Memory),
            VerdictName::DiskNotStored,
        );
        insta::assert_snapshot!(found, @"disk-not-stored: SATA-0-0 (raw.vmdk): it is a disk of the host and not stored; memory that is resumed when the disk has changed would ruin what is on it; take the machine with --disks-only, or say --skip-disk SATA-0-0 and restore with --cold");
    }

    #[test]
    fn only_another_child_of_the_attached_image_stops_a_merge() {
        let mut scene = Scene::new("running");
        let verdict = |scene: &Scene| {
            only(
                &scene.facts(CaptureMode::Memory),
                VerdictName::OtherChildren,
            )
        };
        assert_eq!(verdict(&scene).level, Level::Ok);
        scene.add_foreign_image(0xc1, Some(0xd1), &[0xaa]);
        let cloned = verdict(&scene);
        insta::assert_snapshot!(cloned, @"other-children: SATA-0-0 (disk.vdi): '/vms/other/c1.vdi' is based on the attached image, so VirtualBox could not merge what is written during the capture; another machine uses it; take this machine powered off or with --savestate");
        scene.media[1].used_by.clear();
        insta::assert_snapshot!(verdict(&scene), @"other-children: SATA-0-0 (disk.vdi): '/vms/other/c1.vdi' is based on the attached image, so VirtualBox could not merge what is written during the capture; no machine uses it; `vrs doctor` tells whether it may go: an interrupted VirtualBox snapshot leaves such images");
        let facts = scene.facts(CaptureMode::SaveState);
        assert_eq!(named(verdicts(&facts), VerdictName::OtherChildren), []);
        // A linked clone shares an image below the attached one.
        scene.add_image(0xd2, Some(0xd1), "Snapshots/x.vdi");
        scene.attach(0, 0xd2);
        assert_eq!(verdict(&scene).level, Level::Ok);
    }
}
