//! The saved state: who wrote it, and on what.

use std::cmp::Ordering;
use std::path::Path;

use vrs_virtualbox::{Hardware, MachineSettings, SavedState, Version};

use super::processor::HostProcessor;
use super::stored::StoredFile;
use super::{Move, Verdict, VerdictName};
use crate::error::Result;
use crate::manifest::tree_path;

const NAME: VerdictName = VerdictName::SavedState;
const BACK: &str = "resume it where it was saved and power it off there, or restore it with --cold";

/// Verdicts on the machine's own saved state, if it has one.
pub(super) fn verdicts(moved: &Move<'_>, settings: &MachineSettings) -> Result<Vec<Verdict>> {
    let Some(location) = &settings.state_file else {
        return Ok(Vec::new());
    };
    let target = settings.resolve(&moved.intent.folder, location);
    let mut files = moved.intent.files.iter();
    let Some(file) = files.find(|file| file.target == target) else {
        return Ok(Vec::new());
    };
    let reader = moved
        .store
        .open_file(moved.snapshot, &tree_path(&file.path)?)?;
    let mut stored = StoredFile::new(reader);
    Ok(
        match SavedState::read_from(&mut stored, Path::new(&file.path)) {
            Ok(state) => judge(moved, &state, &settings.hardware),
            Err(error) => vec![Verdict::risky(
                NAME,
                &file.path,
                format!("it cannot be looked into: {error}"),
                "`vrs check --read-data` tells whether the repository is sound",
            )],
        },
    )
}

fn judge(moved: &Move<'_>, state: &SavedState, hardware: &Hardware) -> Vec<Verdict> {
    let installed = moved.host.virtualbox().map(|driver| driver.version());
    let own = HostProcessor::of_this_computer();
    [
        installed.and_then(|installed| of_version(state, installed)),
        of_system(state, &this_system()),
        of_processor(state, own.as_ref(), hardware, moved.is_same_computer()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_version(state: &SavedState, installed: &Version) -> Option<Verdict> {
    let by = format!(
        "it was saved by VirtualBox {}r{}, here is {installed}",
        state.version, state.revision
    );
    let is_other_build = installed
        .revision()
        .is_some_and(|own| own != state.revision);
    match state.version.numbers().cmp(&installed.numbers()) {
        Ordering::Greater => Some(Verdict::cold_boot_only(
            NAME,
            "VirtualBox",
            by,
            format!("install VirtualBox {} or newer", state.version),
        )),
        Ordering::Equal if !is_other_build => None,
        _ => Some(Verdict::risky(
            NAME,
            "VirtualBox",
            by,
            "if it does not resume, restore it with --cold",
        )),
    }
}

/// This computer's system as VirtualBox names it in saved states.
fn this_system() -> String {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        "windows" => "win",
        other => other,
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{system}.{architecture}")
}

fn of_system(state: &SavedState, here: &str) -> Option<Verdict> {
    let there = state.host.as_deref()?;
    if there == here {
        return None;
    }
    let found = format!("it was saved on {there}, here is {here}");
    let architecture = |system: &str| system.rsplit_once('.').map(|(_, name)| name.to_owned());
    Some(if architecture(there) == architecture(here) {
        let advice = "if it does not resume, restore it with --cold";
        Verdict::risky(NAME, "system", found, advice)
    } else {
        Verdict::cold_boot_only(NAME, "system", found, BACK)
    })
}

fn of_processor(
    state: &SavedState,
    own: Option<&HostProcessor>,
    hardware: &Hardware,
    is_same_computer: bool,
) -> Option<Verdict> {
    const SUBJECT: &str = "processor";
    let Some((guest, own)) = state.processor.as_ref().zip(own) else {
        let found = "it cannot be compared with the one that the guest saw";
        let advice = "if it does not resume, restore it with --cold";
        return (!is_same_computer).then(|| Verdict::risky(NAME, SUBJECT, found, advice));
    };
    if guest.vendor != own.vendor {
        let found = format!(
            "the guest saw one of {}, here is {}",
            guest.vendor, own.vendor
        );
        return Some(Verdict::cold_boot_only(NAME, SUBJECT, found, BACK));
    }
    let lacks = own.lacks(guest);
    if lacks.is_empty() {
        return None;
    }
    let seen = hardware.cpu_profile.as_deref().unwrap_or(&guest.brand);
    let level = hardware.cpuid_portability_level;
    let found = format!(
        "the guest saw {seen} at portability level {level} with {}, which the one here lacks",
        lacks.join(", ")
    );
    let advice =
        format!("{BACK}; `VBoxManage modifyvm` with a higher --cpuid-portability-level hides more");
    Some(Verdict::cold_boot_only(NAME, SUBJECT, found, advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portability::Level;
    use rstest::rstest;
    use std::io::Cursor;
    use vrs_testkit::SavedStateFile;

    fn state(file: &SavedStateFile) -> SavedState {
        SavedState::read_from(&mut Cursor::new(file.to_bytes()), Path::new("x.sav")).unwrap()
    }

    fn level(verdict: Option<Verdict>) -> Level {
        verdict.map_or(Level::Ok, |verdict| verdict.level)
    }

    #[rstest]
    #[case("7.2.22_Debianr175245", Level::Ok)]
    #[case("7.2.22", Level::Ok)]
    #[case("7.2.22r175246", Level::Risky)]
    #[case("7.2.24r180000", Level::Risky)]
    #[case("7.2.20r170000", Level::ColdBootOnly)]
    #[case("7.1.99r199999", Level::ColdBootOnly)]
    fn versions(#[case] installed: &str, #[case] expected: Level) {
        let state = state(&SavedStateFile::default());
        let installed = Version::parse(installed).unwrap();
        assert_eq!(level(of_version(&state, &installed)), expected);
    }

    #[rstest]
    #[case("linux.amd64", Level::Ok)]
    #[case("darwin.amd64", Level::Risky)]
    #[case("linux.x86", Level::ColdBootOnly)]
    #[case("darwin.arm64", Level::ColdBootOnly)]
    fn systems(#[case] here: &str, #[case] expected: Level) {
        let state = state(&SavedStateFile::default());
        assert_eq!(level(of_system(&state, here)), expected);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn processors() {
        let own = HostProcessor::of_this_computer().unwrap();
        let vendor: [u8; 12] = own.vendor.as_bytes().try_into().unwrap();
        let of = |vendor, own: Option<&HostProcessor>, same| {
            let file = SavedStateFile {
                processor: (vendor, 0x00a1_0f11),
                ..SavedStateFile::default()
            };
            level(of_processor(&state(&file), own, &Hardware::default(), same))
        };
        assert_eq!(of(vendor, Some(&own), false), Level::Ok);
        assert_eq!(of(*b"CyrixInstead", Some(&own), true), Level::ColdBootOnly);
        assert_eq!(of(vendor, None, false), Level::Risky);
        assert_eq!(of(vendor, None, true), Level::Ok);
    }

    #[test]
    fn what_is_told() {
        let state = state(&SavedStateFile::default());
        let older = Version::parse("7.0.14r161095").unwrap();
        insta::assert_snapshot!(
            of_version(&state, &older).unwrap(),
            @"saved-state: VirtualBox: it was saved by VirtualBox 7.2.22r175245, here is 7.0.14r161095; install VirtualBox 7.2.22 or newer"
        );
        insta::assert_snapshot!(
            of_system(&state, "win.amd64").unwrap(),
            @"saved-state: system: it was saved on linux.amd64, here is win.amd64; if it does not resume, restore it with --cold"
        );
    }
}
