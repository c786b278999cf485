//! The manifest: what a snapshot says about the machine it holds, one JSON file inside it.
//!
//! `docs/format.md` specifies it. Fields may be added at any time and are ignored by older readers;
//! what would mislead an older reader raises [`MANIFEST_VERSION`]. A manifest of a newer version is
//! recognised as such and never called damaged.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vrs_repository::store::{FileStamp, TreePath};
use vrs_virtualbox::{MachineId, MediumId};

use crate::capture::CaptureMode;
use crate::error::{Error, Result};

/// The version written and the newest version understood.
pub const MANIFEST_VERSION: u32 = 1;

/// The folder of vrs's own files, beside the stored machine folder: inside it, each new manifest
/// would store the chunk lists of all disks anew.
pub const OWN_FOLDER: &str = ".vrs";

const FORMAT: &str = "vrs-manifest";

/// Manifests of machines with hundreds of disks stay far below this.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// One snapshot of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `vrs-manifest`.
    pub format: String,
    /// Version of this format.
    pub version: u32,
    /// Version of the vrs that wrote it.
    pub written_by: String,
    /// The machine.
    pub machine: MachineRecord,
    /// The name given at take.
    pub name: Option<String>,
    /// When reading the machine began.
    pub begun: jiff::Timestamp,
    /// The host it was taken on.
    pub host: HostRecord,
    /// The stored machine folder, the top of the stored tree.
    pub folder: String,
    /// Path of the settings file in the stored tree, ready to be registered as it stands.
    pub settings: String,
    /// Path of the settings file as it was, where the stored one had to be adjusted.
    pub original_settings: Option<String>,
    /// Whether the stored settings have a media registry of their own, because images of the
    /// machine were registered with another one.
    pub registry_was_rebuilt: bool,
    /// Every stored file.
    pub files: Vec<FileRecord>,
    /// The hard disks of the machine.
    pub media: Vec<MediumRecord>,
    /// What belongs to the machine and is not in the snapshot.
    pub not_included: Vec<NotIncluded>,
    /// How the machine was captured, if it was running.
    #[serde(default)]
    pub capture: Option<CaptureRecord>,
    /// Id of the snapshot set, if several machines were taken together.
    #[serde(default)]
    pub set: Option<String>,
}

/// How a running machine was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureRecord {
    /// The way it was made to hold still.
    pub mode: CaptureMode,
    /// VirtualBox's word for its state before: `running` or `paused`.
    pub was: String,
    /// Whether the snapshot holds its RAM, so that it resumes where it was.
    pub memory: bool,
    /// How long the guest stood still, in milliseconds, where that is known.
    pub paused_ms: Option<u64>,
}

/// The machine as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Its id.
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// VirtualBox's id of the guest's operating system, for example `Debian_64`.
    pub os_type: String,
    /// VirtualBox's word for its state.
    pub state: String,
    /// Where its settings file was.
    pub settings_file: PathBuf,
}

/// The host and the VirtualBox on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Host name.
    pub name: String,
    /// `linux`, `macos` or `windows`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// Processor model, where known.
    pub processor: Option<String>,
    /// Version and revision of VirtualBox, for example `7.2.22r175245`, where it was there.
    pub virtualbox: Option<String>,
}

/// What a stored file is to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileRole {
    /// The settings file.
    Settings,
    /// VirtualBox's copy of the settings before the last change.
    PreviousSettings,
    /// A disk image or an extent of one.
    Disk,
    /// RAM and devices of a machine or of one of its VirtualBox snapshots.
    SavedState,
    /// Non-volatile memory: EFI variables and TPM state.
    Nvram,
}

/// A stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path in the stored tree.
    pub path: String,
    /// What it is.
    pub role: FileRole,
    /// Where it was.
    pub original: PathBuf,
    /// Its state when it was read.
    pub stamp: Stamp,
    /// Whether its clock had moved on when it was read, so that a later change cannot hide behind
    /// an equal stamp.
    pub settled: bool,
    /// Size of its chunks, where they lie on a grid.
    pub grid_bytes: Option<u32>,
}

/// [`FileStamp`] as the manifest writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Length in bytes.
    pub size: u64,
    /// Inode number.
    pub inode: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Status change time, nanoseconds since 1970.
    pub ctime_ns: i64,
}

impl From<FileStamp> for Stamp {
    fn from(stamp: FileStamp) -> Self {
        // 64 bits of nanoseconds reach from 1677 to 2262; a stamp outside never equals a real one
        // by accident, because both ends are kept apart from it by the size and inode too.
        let clamp = |time_ns: i128| {
            i64::try_from(time_ns).unwrap_or(if time_ns < 0 { i64::MIN } else { i64::MAX })
        };
        Self {
            size: stamp.size_bytes,
            inode: stamp.inode,
            mtime_ns: clamp(stamp.mtime_ns),
            ctime_ns: clamp(stamp.ctime_ns),
        }
    }
}

impl From<Stamp> for FileStamp {
    fn from(stamp: Stamp) -> Self {
        Self {
            size_bytes: stamp.size,
            inode: stamp.inode,
            mtime_ns: stamp.mtime_ns.into(),
            ctime_ns: stamp.ctime_ns.into(),
        }
    }
}

/// A hard disk image of the machine, attached or an ancestor of an attached one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediumRecord {
    /// Its id.
    pub id: MediumId,
    /// The image that it is a difference to.
    pub parent: Option<MediumId>,
    /// VirtualBox's name of the format: `VDI`, `VMDK`, `VHD`.
    pub format: String,
    /// VirtualBox's name of the type, for base images: `Normal`, `Immutable`, `Writethrough`...
    pub kind: Option<String>,
    /// Where it was.
    pub location: PathBuf,
    /// Its main file in the stored tree.
    pub path: String,
}

/// Something outside the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotIncluded {
    /// What it is: "DVD image", "shared folder", "host drive"...
    pub what: String,
    /// Which one: a path or a name.
    pub which: String,
    /// Why it is not included.
    pub reason: String,
}

#[derive(Deserialize)]
struct Envelope {
    format: String,
    version: u32,
    #[serde(default)]
    written_by: String,
}

impl Manifest {
    /// The constant parts of a manifest written by this version.
    #[must_use]
    pub(crate) fn format_name() -> String {
        FORMAT.to_owned()
    }

    /// Path of the manifest in a stored tree whose machine folder is `folder`.
    pub(crate) fn path_in(folder: &str) -> Result<TreePath> {
        own_path(folder, "manifest.json")
    }

    /// The bytes to store.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|error| Error::BadManifest {
            snapshot: "being taken".to_owned(),
            reason: error.to_string(),
        })
    }

    /// Reads a stored manifest. `snapshot` names it in errors.
    pub fn from_json(json: &[u8], snapshot: &str) -> Result<Self> {
        let bad = |reason: String| Error::BadManifest {
            snapshot: snapshot.to_owned(),
            reason,
        };
        let envelope: Envelope =
            serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
        if envelope.format != FORMAT {
            return Err(bad(format!("its format is {:?}", envelope.format)));
        }
        if envelope.version > MANIFEST_VERSION {
            return Err(Error::NewerManifest {
                snapshot: snapshot.to_owned(),
                version: envelope.version,
                written_by: envelope.written_by,
            });
        }
        let manifest: Self =
            serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
        let stray = manifest
            .stored_paths()
            .find(|path| !manifest.is_inside(path));
        if let Some(path) = stray {
            return Err(bad(format!(
                "it names '{path}', which is not in the machine's folder"
            )));
        }
        Ok(manifest)
    }

    fn stored_paths(&self) -> impl Iterator<Item = &str> {
        let files = self.files.iter().map(|file| file.path.as_str());
        let media = self.media.iter().map(|medium| medium.path.as_str());
        files.chain(media).chain([self.settings.as_str()])
    }

    /// Whether a path leads into the stored machine folder and not out of it again: restores join
    /// such paths to folders of this host.
    fn is_inside(&self, path: &str) -> bool {
        let inside = path
            .strip_prefix(&self.folder)
            .and_then(|rest| rest.strip_prefix('/'));
        inside.is_some() && tree_path(path).is_ok() && !(cfg!(windows) && path.contains('\\'))
    }

    /// The record of a stored file.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&FileRecord> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The files that make up disk images.
    pub fn disks(&self) -> impl Iterator<Item = &FileRecord> {
        self.files.iter().filter(|file| file.role == FileRole::Disk)
    }

    /// Sum of the sizes of all files, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |sum: u64, file| sum.saturating_add(file.stamp.size))
    }
}

/// A path in vrs's own folder beside the stored machine folder.
pub(crate) fn own_path(folder: &str, name: &str) -> Result<TreePath> {
    tree_path(&format!("{OWN_FOLDER}/{folder}/{name}"))
}

/// Checks a path that came from a manifest or from a local name.
pub(crate) fn tree_path(path: &str) -> Result<TreePath> {
    TreePath::new(path).map_err(|error| Error::Usage {
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_manifest_is_refused_and_not_called_damaged() {
        let json = br#"{"format":"vrs-manifest","version":99,"written_by":"3.0.0","surprise":[]}"#;
        let error = Manifest::from_json(json, "abcd").unwrap_err();
        insta::assert_snapshot!(error, @"snapshot abcd was written by vrs 3.0.0 in manifest version 99, which this vrs does not know; it is sound: use vrs 3.0.0 or newer");
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in [
            "../x.vbox",
            "web/../../x.vbox",
            "/etc/x.vbox",
            "other/x.vbox",
            "web",
        ] {
            let json = serde_json::json!({
                "format": "vrs-manifest", "version": 1, "written_by": "0.1.0", "name": null,
                "machine": {"id": uuid::Uuid::nil(), "name": "web", "os_type": "", "state": "poweroff", "settings_file": "/vms/web/web.vbox"},
                "begun": "2026-11-21T00:00:00Z",
                "host": {"name": "h", "os": "linux", "architecture": "x86_64", "processor": null, "virtualbox": null},
                "folder": "web", "settings": path, "original_settings": null, "registry_was_rebuilt": false,
                "files": [], "media": [], "not_included": []
            });
            let error = Manifest::from_json(json.to_string().as_bytes(), "abcd").unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("which is not in the machine's folder"),
                "{error}"
            );
        }
    }

    #[test]
    fn damage_is_told_apart_from_foreign_files() {
        assert!(matches!(
            Manifest::from_json(b"{\"format\":", "x"),
            Err(Error::BadManifest { .. })
        ));
        let foreign = Manifest::from_json(br#"{"format":"other","version":1}"#, "x").unwrap_err();
        assert!(
            foreign.to_string().contains("its format is \"other\""),
            "{foreign}"
        );
    }
}
