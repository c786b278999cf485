//! What a VirtualBox snapshot that was cut short leaves behind: differencing images that would block
//! every later deletion, saved states that nothing names.
//!
//! Guarantees: only images and files that were not there before the capture, that lie in the
//! machine's snapshot folder and that VirtualBox does not use are removed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vrs_progress::Progress;
use vrs_virtualbox::{DeviceType, MachineSettings, Medium, VBoxManage};

use super::{CaptureIntent, files_in};
use crate::error::Result;
use crate::platform;

/// Removes images that VirtualBox knows and uses for nothing.
pub(super) fn remove_images(
    virtualbox: &VBoxManage,
    intent: &CaptureIntent,
    progress: &dyn Progress,
) -> Result<()> {
    for medium in stray_media(&virtualbox.media()?, intent) {
        progress.step("stray-image-delete");
        virtualbox.delete_medium(DeviceType::Disk, medium.id, progress)?;
    }
    Ok(())
}

/// Removes files that VirtualBox does not know.
pub(super) fn remove_files(
    virtualbox: &VBoxManage,
    intent: &CaptureIntent,
    progress: &dyn Progress,
) -> Result<()> {
    for file in stray_files(virtualbox, intent)? {
        progress.step("stray-file-remove");
        platform::remove_file(&file)?;
    }
    Ok(())
}

/// A machine whose process died in a take has an image that nothing uses beside the one that it
/// uses (seen on 7.2.22).
fn stray_media<'a>(media: &'a [Medium], intent: &CaptureIntent) -> Vec<&'a Medium> {
    let is_stray = |medium: &&Medium| {
        medium.parent.is_some()
            && medium.used_by.is_empty()
            && !intent.media_before.contains(&medium.id)
            && medium.location.starts_with(&intent.snapshot_folder)
            && !media.iter().any(|other| other.parent == Some(medium.id))
    };
    media.iter().filter(is_stray).collect()
}

fn stray_files(virtualbox: &VBoxManage, intent: &CaptureIntent) -> Result<Vec<PathBuf>> {
    let mut files = files_in(&intent.snapshot_folder)?;
    files.retain(|file| is_of_virtualbox(file) && !intent.files_before.contains(file));
    // The usual case, for which VirtualBox need not be asked.
    if files.is_empty() {
        return Ok(files);
    }
    let used = used_files(virtualbox, intent)?;
    files.retain(|file| !used.contains(file));
    Ok(files)
}

/// Every file that VirtualBox's registry, the machine's settings or VirtualBox itself name: what it
/// knows of a saved state may not be in the settings yet.
fn used_files(virtualbox: &VBoxManage, intent: &CaptureIntent) -> Result<BTreeSet<PathBuf>> {
    let status = virtualbox.machine(intent.machine)?;
    let settings = MachineSettings::read(&status.settings_file)?;
    let folder = status.settings_file.parent().unwrap_or(Path::new("/"));
    let named = settings
        .state_files()
        .chain(settings.nvram_files())
        .chain(settings.all_hard_disks().map(|disk| disk.location.as_str()))
        .map(|location| settings.resolve(folder, location));
    let media = virtualbox.media()?;
    let registered = media.into_iter().map(|medium| medium.location);
    Ok(named.chain(registered).chain(status.state_file).collect())
}

/// Whether a file has a name as VirtualBox gives it to what belongs to a VirtualBox snapshot:
/// `2026-11-24T18-16-15-846085000Z.sav`, `{4713325e-fb01-4822-8433-eb3c9157f6b7}.vdi`.
fn is_of_virtualbox(file: &Path) -> bool {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let extension = file.extension().and_then(|extension| extension.to_str());
    let (Some(stem), Some(extension)) = (stem, extension) else {
        return false;
    };
    match extension {
        "sav" | "nvram" => stem.starts_with(|first: char| first.is_ascii_digit()),
        _ => {
            let id = stem
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            id.is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("2026-11-24T18-16-15-846085000Z.sav", true)]
    #[case("2026-11-24T18-16-15-846085000Z.nvram", true)]
    #[case("{4713325e-fb01-4822-8433-eb3c9157f6b7}.vdi", true)]
    #[case("my notes.txt", false)]
    #[case("backup.vdi", false)]
    #[case("mine.sav", false)]
    fn only_names_that_virtualbox_gives_are_looked_at(#[case] name: &str, #[case] expected: bool) {
        assert_eq!(
            is_of_virtualbox(&Path::new("/vms/web/Snapshots").join(name)),
            expected
        );
    }
}
