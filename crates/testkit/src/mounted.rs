//! A mounted file system in a temporary folder; unmounted when dropped.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Mounted {
    folder: TempDir,
    /// Where else it is mounted.
    elsewhere: Option<PathBuf>,
}

impl Mounted {
    /// Mounts `what`, the words for `mount`, in a new folder in `folder`, else wherever temporary files are.
    pub(crate) fn new(what: &[&OsStr], folder: Option<&Path>) -> Self {
        let folder = folder.map_or_else(tempfile::tempdir, tempfile::tempdir_in);
        let folder = folder.expect("a temporary folder");
        mount(what, folder.path());
        Self {
            folder,
            elsewhere: None,
        }
    }

    /// Mounts it at the same path for the programs whose root directory is `root`, too.
    pub(crate) fn seen_from(mut self, root: &Path) -> Self {
        let inside = self.path().strip_prefix("/").expect("an absolute path");
        let elsewhere = root.join(inside);
        mount(&["--bind".as_ref(), self.path().as_os_str()], &elsewhere);
        self.elsewhere = Some(elsewhere);
        self
    }

    /// Unmounts it and mounts `what` in its place.
    pub(crate) fn exchange(&mut self, what: &[&OsStr]) {
        assert_eq!(self.elsewhere, None, "it is mounted once");
        let status = Command::new("umount").arg(self.path()).status();
        let status = status.expect("umount starts");
        assert!(
            status.success(),
            "no open files on {}",
            self.path().display()
        );
        mount(what, self.path());
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn mount(what: &[&OsStr], folder: &Path) {
    let mut mount = Command::new("mount");
    let output = mount.args(what).arg(folder).output().expect("mount starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cannot mount {what:?} (this needs root; rig/run gives it, but for loop devices): {complaint}"
    );
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, because a failed test may still hold files open; the folder underneath is empty
        // in any case.
        for folder in self.elsewhere.as_deref().into_iter().chain([self.path()]) {
            let _ = Command::new("umount").arg("--lazy").arg(folder).status();
        }
    }
}
