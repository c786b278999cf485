//! The images as files: which of them can be read, and what is to know of their contents.

use std::collections::BTreeSet;
use std::path::Path;

use vrs_virtualbox::{DeviceKind, MachineSettings, MediumId};

use super::facts::Facts;
use super::verdict::{Verdict, VerdictName};

pub(super) fn verdicts(facts: &Facts<'_>) -> Vec<Verdict> {
    [
        media_access(facts),
        removable_images(facts),
        encryption(facts.machine.folder(), facts.settings()),
    ]
    .concat()
}

fn media_access(facts: &Facts<'_>) -> Vec<Verdict> {
    let name = VerdictName::MediaAccess;
    let of_machine: BTreeSet<MediumId> = facts
        .inventory
        .media
        .iter()
        .map(|medium| medium.id)
        .collect();
    let unreadable = facts
        .media
        .iter()
        .filter(|medium| of_machine.contains(&medium.id) && medium.state == "inaccessible");
    let found: Vec<_> = unreadable
        .map(|medium| {
            let subject = medium.location.display().to_string();
            let reason = medium
                .access_error
                .as_deref()
                .unwrap_or("no reason is given");
            Verdict::refused(
                name,
                &subject,
                format!("VirtualBox cannot read it: {reason}"),
                "make the file readable, or detach the disk",
            )
        })
        .collect();
    if found.is_empty() && !facts.media.is_empty() {
        return vec![Verdict::ok(
            name,
            &facts.machine.name,
            "all its images can be read",
        )];
    }
    found
}

/// VirtualBox does not start a machine whose DVD or floppy image is gone (tried on 7.2.22); a running
/// one does not notice.
fn removable_images(facts: &Facts<'_>) -> Vec<Verdict> {
    let settings = facts.settings();
    let removable = [DeviceKind::Dvd, DeviceKind::Floppy];
    let inserted: BTreeSet<MediumId> = settings
        .hardware
        .attachments
        .iter()
        .filter(|attachment| removable.contains(&attachment.kind))
        .filter_map(|attachment| attachment.medium)
        .collect();
    let images = settings.dvd_images.iter().chain(&settings.floppy_images);
    images
        .filter(|image| inserted.contains(&image.id))
        .map(|image| settings.resolve(facts.machine.folder(), &image.location))
        .filter(|location| !location.exists())
        .map(|location| {
            Verdict::warning(
                VerdictName::MediaAccess,
                &location.display().to_string(),
                "it is in a drive of the machine but not there: a machine restored without memory does not start",
                "eject it",
            )
        })
        .collect()
}

pub(super) fn encryption(folder: &Path, settings: &MachineSettings) -> Vec<Verdict> {
    let encrypted = settings.all_hard_disks().filter(|disk| disk.is_encrypted);
    encrypted
        .map(|disk| {
            let location = settings.resolve(folder, &disk.location);
            Verdict::warning(
                VerdictName::Encryption,
                &location.display().to_string(),
                "it is encrypted by VirtualBox and stored as it is: nothing in it compresses or is shared with other disks",
                "keep its password: vrs does not know it",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use vrs_virtualbox::{HardDisk, RemovableImage};

    use super::*;
    use crate::capture::CaptureMode;
    use crate::preflight::scene::{Scene, named, only};
    use crate::preflight::verdict::Level;

    #[test]
    fn images_that_cannot_be_read_are_named() {
        let mut scene = Scene::new("running");
        let verdict = |scene: &Scene| {
            only(
                verdicts(&scene.facts(CaptureMode::Memory)),
                VerdictName::MediaAccess,
            )
        };
        insta::assert_snapshot!(verdict(&scene), @"media-access: web: all its images can be read");
        scene.media[0].state = "inaccessible".to_owned();
        scene.media[0].access_error = Some("Could not open it (VERR_ACCESS_DENIED)".to_owned());
        insta::assert_snapshot!(verdict(&scene), @"media-access: /vms/web/disk.vdi: VirtualBox cannot read it: Could not open it (VERR_ACCESS_DENIED); make the file readable, or detach the disk");
    }

    #[test]
    fn a_missing_dvd_is_warned_of_while_it_is_inserted() {
        let mut scene = Scene::new("running");
        let id = uuid::Uuid::from_u128(0xdd).into();
        scene.inventory.settings.dvd_images.push(RemovableImage {
            id,
            location: "gone.iso".to_owned(),
        });
        let found = |scene: &Scene| {
            named(
                verdicts(&scene.facts(CaptureMode::Memory)),
                VerdictName::MediaAccess,
            )
            .len()
        };
        assert_eq!(found(&scene), 1);
        scene.attach(1, 0xdd);
        let attachments = &mut scene.inventory.settings.hardware.attachments;
        attachments.last_mut().unwrap().kind = DeviceKind::Dvd;
        assert_eq!(found(&scene), 2);
    }

    #[test]
    fn encrypted_disks_are_warned_of() {
        let mut scene = Scene::new("running");
        assert_eq!(
            named(
                verdicts(&scene.facts(CaptureMode::Memory)),
                VerdictName::Encryption
            ),
            []
        );
        scene.inventory.settings.hard_disks.push(HardDisk {
            location: "disk.vdi".to_owned(),
            is_encrypted: true,
            ..HardDisk::default()
        });
        let found = only(
            verdicts(&scene.facts(CaptureMode::Memory)),
            VerdictName::Encryption,
        );
        assert_eq!(
            (found.level, found.subject.as_str()),
            (Level::Warning, "/vms/web/disk.vdi")
        );
    }
}
