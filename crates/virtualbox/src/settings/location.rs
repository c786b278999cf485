//! Where the locations in a settings file lead.
//!
//! Pure text: nothing is looked up, so the settings of a machine of another system can be read.

use std::path::{Component, Path, PathBuf};

/// The place that `location` names, seen from the machine folder. `backslashes_separate` for
/// settings that VirtualBox wrote on Windows.
pub(super) fn resolve(folder: &Path, location: &str, backslashes_separate: bool) -> PathBuf {
    if is_windows_absolute(location) {
        return PathBuf::from(location);
    }
    let location = if backslashes_separate {
        location.replace('\\', "/")
    } else {
        location.to_owned()
    };
    without_detours(&folder.join(location))
}

/// `C:\`, `C:/` or `\\server`, on whatever system this runs.
fn is_windows_absolute(location: &str) -> bool {
    let mut start = location.chars();
    match (start.next(), start.next(), start.next()) {
        (Some('\\'), Some('\\'), _) => true,
        (Some(letter), Some(':'), Some('\\' | '/')) => letter.is_ascii_alphabetic(),
        _ => false,
    }
}

/// Removes `.` and `..` from an absolute path as VirtualBox does: by text, without looking at links.
fn without_detours(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("dyn.vdi", false, "/vms/m/dyn.vdi")]
    #[case("Snapshots/{a}.vdi", false, "/vms/m/Snapshots/{a}.vdi")]
    #[case("/elsewhere/d.vdi", false, "/elsewhere/d.vdi")]
    #[case("../base/d.vdi", false, "/vms/base/d.vdi")]
    #[case("./a/../b.vdi", false, "/vms/m/b.vdi")]
    #[case("../../../../x", false, "/x")]
    #[case("back\\slash.vdi", false, "/vms/m/back\\slash.vdi")]
    #[case("Snapshots\\{a}.vdi", true, "/vms/m/Snapshots/{a}.vdi")]
    #[case("C:\\VMs\\d.vdi", true, "C:\\VMs\\d.vdi")]
    #[case("D:/VMs/d.vdi", false, "D:/VMs/d.vdi")]
    #[case("\\\\server\\share\\d.vdi", true, "\\\\server\\share\\d.vdi")]
    #[case("x:y.vdi", false, "/vms/m/x:y.vdi")]
    #[case("-dash.vdi", false, "/vms/m/-dash.vdi")]
    #[case("日本 \"q\".vdi", false, "/vms/m/日本 \"q\".vdi")]
    fn leads_to(#[case] location: &str, #[case] backslashes: bool, #[case] expected: &str) {
        assert_eq!(
            resolve(Path::new("/vms/m"), location, backslashes),
            PathBuf::from(expected)
        );
    }
}
