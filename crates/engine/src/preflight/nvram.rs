//! The file with the firmware's variables and the TPM's secrets.
//!
//! VirtualBox writes it when the machine is powered off, and says nothing if it is not there: a
//! VirtualBox snapshot then has none (tried on 7.2.22).

use std::path::PathBuf;

use super::facts::Facts;
use super::verdict::{Verdict, VerdictName};
use crate::capture::CaptureMode;

pub(super) fn verdicts(facts: &Facts<'_>) -> Vec<Verdict> {
    present(facts)
        .into_iter()
        .chain(of_snapshots(facts))
        .collect()
}

fn present(facts: &Facts<'_>) -> Option<Verdict> {
    let name = VerdictName::Nvram;
    let settings = facts.settings();
    let has_efi = settings.hardware.firmware.is_some();
    let has_tpm = settings.hardware.tpm.is_some();
    if !has_efi && !has_tpm {
        return None;
    }
    let path = resolve(facts, &settings.nvram_location());
    let subject = path.display().to_string();
    if path.is_file() {
        return Some(Verdict::ok(name, &subject, "it is there"));
    }
    let is_lost = has_efi
        && has_tpm
        && facts.machine.state.is_online()
        && facts.mode == CaptureMode::DisksOnly;
    Some(if is_lost {
        Verdict::refused(
            name,
            &subject,
            "VirtualBox has not written it yet, so that the TPM's secrets are in memory only: a disk that is encrypted with them could not be opened again",
            "take the machine with its memory, or power it off once",
        )
    } else if facts.saves_memory() {
        Verdict::warning(
            name,
            &subject,
            "VirtualBox has not written it yet: firmware variables and TPM secrets are in memory only",
            "a restore with --cold loses them; VirtualBox writes them when the machine is powered off",
        )
    } else {
        Verdict::warning(
            name,
            &subject,
            "it is not there: a restored machine begins with empty firmware variables and an empty TPM",
            "if it was there once, put it back",
        )
    })
}

fn of_snapshots(facts: &Facts<'_>) -> Vec<Verdict> {
    let named = facts
        .settings()
        .virtualbox_snapshots()
        .filter_map(|snapshot| {
            let path = resolve(facts, snapshot.hardware.nvram.as_deref()?);
            Some((snapshot, path))
        });
    named
        .filter(|(_, path)| !path.is_file())
        .map(|(snapshot, path)| {
            Verdict::warning(
                VerdictName::Nvram,
                &path.display().to_string(),
                format!(
                    "the VirtualBox snapshot '{}' names it, but it is not there: going back to that loses the firmware variables",
                    snapshot.name
                ),
                "if it was there once, put it back",
            )
        })
        .collect()
}

fn resolve(facts: &Facts<'_>, location: &str) -> PathBuf {
    facts.settings().resolve(facts.machine.folder(), location)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::preflight::scene::Scene;
    use crate::preflight::verdict::Level;

    fn scene(state: &str, firmware: Option<&str>, tpm: Option<&str>) -> Scene {
        let mut scene = Scene::new(state);
        let hardware = &mut scene.inventory.settings.hardware;
        hardware.firmware = firmware.map(ToOwned::to_owned);
        hardware.tpm = tpm.map(ToOwned::to_owned);
        scene
    }

    #[rstest]
    #[case("running", Some("EFI"), None, CaptureMode::Memory, Level::Warning)]
    #[case("running", Some("EFI"), None, CaptureMode::DisksOnly, Level::Warning)]
    #[case(
        "running",
        Some("EFI"),
        Some("v2_0"),
        CaptureMode::Memory,
        Level::Warning
    )]
    #[case(
        "running",
        Some("EFI"),
        Some("v2_0"),
        CaptureMode::DisksOnly,
        Level::Refused
    )]
    #[case(
        "poweroff",
        Some("EFI"),
        Some("v2_0"),
        CaptureMode::DisksOnly,
        Level::Warning
    )]
    #[case("running", None, Some("v2_0"), CaptureMode::DisksOnly, Level::Warning)]
    fn a_missing_file(
        #[case] state: &str,
        #[case] firmware: Option<&str>,
        #[case] tpm: Option<&str>,
        #[case] mode: CaptureMode,
        #[case] level: Level,
    ) {
        let scene = scene(state, firmware, tpm);
        let found = verdicts(&scene.facts(mode));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].level, found[0].subject.as_str()),
            (level, "/vms/web/web.nvram")
        );
    }

    #[test]
    fn a_file_that_is_there_and_one_that_is_not_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nvram");
        std::fs::write(&path, b"x").unwrap();
        let mut scene = scene("running", Some("EFI"), None);
        scene.inventory.settings.hardware.nvram = Some(path.to_str().unwrap().to_owned());
        assert_eq!(
            verdicts(&scene.facts(CaptureMode::Memory))[0].level,
            Level::Ok
        );
        assert_eq!(
            verdicts(&Scene::new("running").facts(CaptureMode::Memory)),
            []
        );
    }

    #[test]
    fn that_of_a_virtualbox_snapshot_is_looked_for() {
        let mut scene = Scene::new("running");
        scene.add_virtualbox_snapshots(&["before"]);
        let snapshot = scene.inventory.settings.first_virtualbox_snapshot.as_mut();
        snapshot.unwrap().hardware.nvram = Some("Snapshots/1.nvram".to_owned());
        let found = verdicts(&scene.facts(CaptureMode::Memory));
        insta::assert_snapshot!(found[0], @"nvram: /vms/web/Snapshots/1.nvram: the VirtualBox snapshot 'before' names it, but it is not there: going back to that loses the firmware variables; if it was there once, put it back");
    }
}
