//! What is observed of a machine, through VirtualBox's eyes and through `qemu-img`'s.

use std::fs;
use std::path::Path;
use std::process::Command;

use similar::TextDiff;
use vrs_testkit::{RigMachine, sha256};

/// Everything that has to be as it was after a restore, as text: `showvminfo`, the VirtualBox
/// snapshots, the media, and hashes of what the guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed(String);

impl Observed {
    /// What there is to see once VirtualBox has read its files again.
    pub fn reread(machine: &RigMachine<'_>) -> Self {
        machine.rig().reread();
        Self::of(machine)
    }

    pub fn of(machine: &RigMachine<'_>) -> Self {
        let parts = [
            machine.show(),
            machine.virtualbox_snapshots(),
            media(machine),
            guest_bytes(machine),
            qemu_bytes(machine.folder()),
        ];
        Self(parts.join("\n"))
    }

    /// Compares with an earlier observation.
    #[track_caller]
    pub fn is(&self, earlier: &Self, when: &str) {
        let difference = TextDiff::from_lines(&earlier.0, &self.0);
        let difference = difference.unified_diff().context_radius(1).to_string();
        assert!(self == earlier, "{when}: the machine differs\n{difference}");
    }
}

/// The descriptions of the media that the machine uses, all in a fixed order.
fn media(machine: &RigMachine<'_>) -> String {
    let id = machine.id().to_string();
    let listed = machine.rig().run(["list", "hdds", "--long"]);
    let own = listed.split("\n\n").filter(|medium| medium.contains(&id));
    let mut media: Vec<_> = own.map(children_sorted).collect();
    media.sort_unstable();
    media.join("\n\n")
}

/// The children come last, in an order that changes with each registration.
fn children_sorted(medium: &str) -> String {
    let Some((before, children)) = medium.split_once("Child UUIDs:") else {
        return medium.to_owned();
    };
    let mut children: Vec<_> = children.split_whitespace().collect();
    children.sort_unstable();
    format!("{before}Child UUIDs: {}", children.join(" "))
}

/// By VirtualBox's own reading of the whole chains.
fn guest_bytes(machine: &RigMachine<'_>) -> String {
    let hashes = machine.guest_sha256s().into_iter();
    hashes
        .map(|(place, hash)| format!("{place}: {hash}\n"))
        .collect()
}

/// By `qemu-img`, which reads no differencing images: the bases in the machine's folder.
fn qemu_bytes(folder: &Path) -> String {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .filter_map(|path| Some(format!("{}: {}\n", path.display(), qemu_sha256(path)?)))
        .collect()
}

/// Nothing for what is no image, and for the extents of a split one.
fn qemu_sha256(image: &Path) -> Option<String> {
    let format = match image.extension()?.to_str()? {
        "vdi" => "vdi",
        "vmdk" => "vmdk",
        "vhd" => "vpc",
        _ => return None,
    };
    let raw = tempfile::NamedTempFile::new().unwrap();
    let mut convert = Command::new("qemu-img");
    convert
        .args(["convert", "-q", "-f", format, "-O", "raw"])
        .args([image, raw.path()]);
    let converted = convert.output().unwrap().status.success();
    converted.then(|| sha256(&fs::read(raw.path()).unwrap()))
}
