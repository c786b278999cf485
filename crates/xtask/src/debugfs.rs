//! Commands for `debugfs`, which changes an ext4 filesystem that is not mounted.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::mem::take;
use std::path::{Path, PathBuf};
use std::process::Command;

const DEBUGFS: &str = "/sbin/debugfs";

/// Commands that run together. Paths are absolute, in the guest.
pub(crate) struct Script {
    /// Of the guest, those that are there after it.
    folders: BTreeSet<PathBuf>,
    text: String,
    /// What comes after all that is written: ext4 gives away the room of a removed file only later.
    end: String,
}

impl Script {
    /// For a filesystem without folders.
    pub(crate) fn new() -> Self {
        Self {
            folders: BTreeSet::from([PathBuf::from("/")]),
            text: String::new(),
            end: String::new(),
        }
    }

    /// Where there is none yet.
    pub(crate) fn make_folder_of(&mut self, path: &Path) {
        let folder = path.parent().expect("a folder");
        if self.folders.insert(folder.to_owned()) {
            self.make_folder_of(folder);
            let name = self.enter_folder_of(folder);
            writeln!(self.text, "mkdir \"{name}\"").expect("memory");
        }
    }

    pub(crate) fn write(&mut self, source: &Path, path: &Path) {
        let name = self.enter_folder_of(path);
        writeln!(self.text, "write \"{}\" \"{name}\"", text(source)).expect("memory");
    }

    /// `mkdir` and `write` want names. Returns that of the path.
    fn enter_folder_of<'a>(&mut self, path: &'a Path) -> &'a str {
        let folder = text(path.parent().expect("a folder"));
        writeln!(self.text, "cd \"{folder}\"").expect("memory");
        path.file_name().and_then(OsStr::to_str).expect("a name")
    }

    pub(crate) fn remove(&mut self, path: &Path) {
        writeln!(self.end, "rm \"{}\"", text(path)).expect("memory");
    }

    /// Over another file.
    pub(crate) fn rename(&mut self, path: &Path, to: &Path) {
        self.remove(to);
        let (path, to) = (text(path), text(to));
        writeln!(self.end, "ln \"{path}\" \"{to}\"\nunlink \"{path}\"").expect("memory");
    }

    /// Once. A folder that files were written from is removed.
    pub(crate) fn run(&mut self, raw: &Path, sources: &Path) {
        fs::create_dir_all(sources).expect("a scratch folder");
        let commands = sources.join("commands");
        let text = take(&mut self.text) + &take(&mut self.end);
        fs::write(&commands, text).expect("room for commands");
        run(Command::new(DEBUGFS)
            .args(["-w", "-f"])
            .arg(commands)
            .arg(raw));
        fs::remove_dir_all(sources).expect("the scratch folder");
    }
}

/// What debugfs says about an image.
pub(crate) fn debugfs(raw: &Path, request: &str) -> Vec<u8> {
    run(Command::new(DEBUGFS).args(["-R", request]).arg(raw))
}

/// debugfs ends well whatever became of its commands, but says what went wrong, behind a line with its version.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("e2fsprogs is installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    let is_silent = complaint.lines().all(|line| line.starts_with("debugfs "));
    assert!(
        output.status.success() && is_silent,
        "{command:?}: {complaint}"
    );
    output.stdout
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
