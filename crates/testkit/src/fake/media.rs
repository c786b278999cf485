//! Media: `list hdds`, `showmediuminfo`, `closemedium` and the image commands of
//! `internalcommands`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vrs_vdisk::{VdiHeader, VdiImageType, set_uuids};

use super::answer::{
    Answer, FILE_ERROR, Failure, INVALID_OBJECT_STATE, MEDIUM, OBJECT_IN_USE, PROGRESS,
};
use super::machine::Machine;
use super::registry::Registry;
use crate::image;

const OPEN: &str = "\"OpenMedium(Bstr(pszFilenameOrUuid).raw(), enmDevType, enmAccessMode, fForceNewUuidOnOpen, \
                    pMedium.asOutParam())\" at line 197 of file VBoxManageDisk.cpp";
const DELETE: &str =
    "\"DeleteStorage(pProgress.asOutParam())\" at line 1868 of file VBoxManageDisk.cpp";
const CLOSE: &str = "\"Close()\" at line 1877 of file VBoxManageDisk.cpp";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Medium {
    pub(super) id: Uuid,
    pub(super) parent: Option<Uuid>,
    pub(super) location: PathBuf,
    pub(super) format: String,
    /// In lower case: normal, immutable, writethrough...
    pub(super) kind: String,
    pub(super) auto_reset: bool,
}

/// What looking at the image's file tells.
struct File {
    variant: &'static str,
    capacity_bytes: u64,
    size_bytes: u64,
    block_bytes: Option<u32>,
    error: Option<String>,
}

impl Medium {
    /// An image that is not what it should be has no size either.
    fn look(&self, registry_file: &Path) -> File {
        let header = VdiHeader::read(&self.location).ok();
        let error = self.error(header.as_ref(), registry_file);
        let variant = match header.as_ref().map(|header| header.image_type) {
            Some(VdiImageType::Fixed) => "fixed default",
            Some(VdiImageType::Differencing | VdiImageType::Undo) => "differencing default",
            _ => "dynamic default",
        };
        let block_bytes = header.as_ref().map(|header| header.block_size_bytes);
        let readable = header.filter(|_| error.is_none());
        let size_bytes = || fs::metadata(&self.location).map_or(0, |file| file.len());
        File {
            variant,
            capacity_bytes: readable.as_ref().map_or(0, |header| header.capacity_bytes),
            size_bytes: readable.map_or(0, |_| size_bytes()),
            block_bytes,
            error,
        }
    }

    fn error(&self, header: Option<&VdiHeader>, registry_file: &Path) -> Option<String> {
        let (path, registry_file) = (self.location.display(), registry_file.display());
        if self.format != "VDI" && self.location.exists() {
            return None;
        }
        let Some(header) = header else {
            return Some(format!(
                "Could not open the medium '{path}'.\n\
                 VD: error VERR_FILE_NOT_FOUND opening image file '{path}' (VERR_FILE_NOT_FOUND)"
            ));
        };
        let own = header.uuids.creation;
        (own != self.id).then(|| {
            format!(
                "UUID {{{own}}} of the medium '{path}' does not match the value {{{}}} stored in \
                 the media registry ('{registry_file}')",
                self.id
            )
        })
    }
}

/// `list hdds [--long]`
pub(super) fn list(registry: &Registry, long: bool) -> Answer {
    Answer::prints(
        registry
            .media()
            .map(|medium| describe(registry, medium, long) + "\n")
            .collect(),
    )
}

/// `showmediuminfo disk FILE-OR-UUID`
pub(super) fn show(registry: &mut Registry, name: &str) -> Answer {
    match open(registry, name) {
        Ok(medium) => Answer::prints(describe(registry, &medium, true)),
        Err(failure) => failure.answer(OPEN),
    }
}

/// `closemedium disk FILE-OR-UUID [--delete]`
pub(super) fn close(registry: &mut Registry, name: &str, delete: bool) -> Answer {
    let medium = match open(registry, name) {
        Ok(medium) => medium,
        Err(failure) => return failure.answer(OPEN),
    };
    if let Some(failure) = in_use(registry, &medium) {
        let closing = failure.answer(CLOSE);
        return if delete {
            let deleting = cannot_delete(registry, &medium, &failure);
            Answer {
                stderr: deleting.stderr + &closing.stderr,
                ..closing
            }
        } else {
            closing
        };
    }
    registry.opened.retain(|opened| opened.id != medium.id);
    for machine in &mut registry.machines {
        if machine.medium(medium.id).is_some() {
            machine.change(|settings| settings.replace("HardDisk", medium.id, &mut |_| Vec::new()));
        }
    }
    if delete && fs::remove_file(&medium.location).is_ok() {
        return Answer {
            stderr: PROGRESS.to_owned(),
            ..Answer::silent()
        };
    }
    Answer::silent()
}

/// What comes before the failure to close it.
fn cannot_delete(registry: &Registry, medium: &Medium, failure: &Failure) -> Answer {
    let users = registry
        .machines
        .iter()
        .filter(|machine| uses(machine, medium.id));
    let users: Vec<_> = users.map(|machine| machine.id.to_string()).collect();
    let text = if failure.code == OBJECT_IN_USE && !users.is_empty() {
        format!(
            "Cannot delete storage: medium '{}' is still attached to the following {} virtual machine(s): {}",
            medium.location.display(),
            users.len(),
            users.join(", ")
        )
    } else {
        failure.text.clone()
    };
    let answer = Failure {
        text,
        ..failure.clone()
    }
    .answer(DELETE);
    let (name, _) = failure.code.split_once(' ').unwrap_or_default();
    let told = format!("VBoxManage: error: Failed to delete medium. Error code {name}\n");
    Answer {
        stderr: answer.stderr + &told,
        ..answer
    }
}

fn in_use(registry: &Registry, medium: &Medium) -> Option<Failure> {
    let path = medium.location.display();
    let attached = registry
        .machines
        .iter()
        .filter(|machine| uses(machine, medium.id))
        .count();
    let locked = registry
        .machines
        .iter()
        .any(|machine| machine.is_running() && machine.images().contains(&medium.id));
    let children = registry.children_of(medium.id).len();
    let failure = |text: String, code| {
        Some(Failure {
            text,
            code,
            component: MEDIUM,
        })
    };
    if locked {
        failure(
            format!("Medium '{path}' is locked for writing by another task"),
            INVALID_OBJECT_STATE,
        )
    } else if attached > 0 {
        let text = format!(
            "Medium '{path}' cannot be closed because it is still attached to {attached} virtual machines"
        );
        failure(text, OBJECT_IN_USE)
    } else if children > 0 {
        failure(
            format!("Medium '{path}' cannot be closed because it has {children} child media"),
            OBJECT_IN_USE,
        )
    } else {
        None
    }
}

/// The medium by UUID or path; an image that is not known yet is opened and stays so.
fn open(registry: &mut Registry, name: &str) -> Result<Medium, Failure> {
    let id: Option<Uuid> = name.parse().ok();
    let known = registry
        .media()
        .find(|medium| Some(medium.id) == id || medium.location == Path::new(name));
    if let Some(medium) = known {
        return Ok(medium.clone());
    }
    let failure = |text| Failure {
        text,
        code: FILE_ERROR,
        component: MEDIUM,
    };
    if !Path::new(name).is_absolute() {
        return Err(failure(format!(
            "The given path '{name}' is not fully qualified"
        )));
    }
    let header = VdiHeader::read(Path::new(name)).map_err(|_| {
        failure(format!(
            "Could not find file for the medium '{name}' (VERR_FILE_NOT_FOUND)"
        ))
    })?;
    let medium = Medium {
        id: header.uuids.creation,
        parent: header.parent(),
        location: PathBuf::from(name),
        format: "VDI".to_owned(),
        kind: "normal".to_owned(),
        auto_reset: false,
    };
    registry.opened.push(medium.clone());
    Ok(medium)
}

fn describe(registry: &Registry, medium: &Medium, long: bool) -> String {
    let file = medium.look(&registry.home.join("VirtualBox.xml"));
    let parent = medium
        .parent
        .map_or("base".to_owned(), |parent| parent.to_string());
    let layer = if medium.parent.is_none() {
        "base"
    } else {
        "differencing"
    };
    let state = if file.error.is_some() {
        "inaccessible"
    } else {
        lock_of(registry, medium.id)
    };
    let mut text = format!(
        "UUID:           {}\nParent UUID:    {parent}\nState:          {state}\n",
        medium.id
    );
    let mut line =
        |name: &str, value: &str| writeln!(text, "{name:15} {value}").expect("writing to a string");
    if let Some(error) = file.error.as_ref().filter(|_| long) {
        line("Access Error:", error);
    }
    line("Type:", &format!("{} ({layer})", medium.kind));
    if long && medium.parent.is_some() {
        line("Auto-Reset:", if medium.auto_reset { "on" } else { "off" });
    }
    line("Location:", &medium.location.display().to_string());
    line("Storage format:", &medium.format);
    if long {
        line("Format variant:", file.variant);
    }
    line(
        "Capacity:",
        &format!("{} MBytes", file.capacity_bytes >> 20),
    );
    if long {
        line(
            "Size on disk:",
            &format!("{} MBytes", file.size_bytes >> 20),
        );
    }
    line("Encryption:", "disabled");
    if long {
        let block_size = file
            .block_bytes
            .map_or(String::new(), |bytes| bytes.to_string());
        line("Property:", &format!("AllocationBlockSize={block_size}"));
        describe_use(registry, medium.id, &mut line);
    }
    text
}

/// The state of a medium that can be read.
fn lock_of(registry: &Registry, id: Uuid) -> &'static str {
    let mut running = registry
        .machines
        .iter()
        .filter(|machine| machine.is_running());
    let is_below = |machine: &Machine| {
        let leaves = machine.images();
        let mut chains = leaves.iter().flat_map(|leaf| machine.chain(*leaf));
        chains.any(|medium| medium.id == id)
    };
    match running.find(|machine| is_below(machine)) {
        Some(machine) if machine.images().contains(&id) => "locked write",
        Some(_) => "locked read",
        None => "created",
    }
}

fn describe_use(registry: &Registry, id: Uuid, line: &mut impl FnMut(&str, &str)) {
    let users = registry
        .machines
        .iter()
        .filter(|machine| uses(machine, id))
        .map(|machine| user(machine, id));
    for (number, user) in users.enumerate() {
        line(if number == 0 { "In use by VMs:" } else { "" }, &user);
    }
    for (number, child) in registry.children_of(id).iter().enumerate() {
        line(
            if number == 0 { "Child UUIDs:" } else { "" },
            &child.to_string(),
        );
    }
}

fn uses(machine: &Machine, id: Uuid) -> bool {
    let in_snapshot = || {
        machine
            .snapshots_with_position()
            .iter()
            .any(|(_, snapshot)| snapshot.images.contains(&id))
    };
    machine.images().contains(&id) || machine.strays.contains(&id) || in_snapshot()
}

fn user(machine: &Machine, id: Uuid) -> String {
    let snapshots = machine.snapshots_with_position();
    let using: Vec<_> = snapshots
        .iter()
        .filter(|(_, snapshot)| snapshot.images.contains(&id))
        .map(|(_, snapshot)| format!("{} (UUID: {})", snapshot.name, snapshot.id))
        .collect();
    let brackets = if using.is_empty() {
        String::new()
    } else {
        format!(" [{}]", using.join(", "))
    };
    format!("{} (UUID: {}){brackets}", machine.name, machine.id)
}

impl Machine {
    /// Makes a differencing image of an image.
    pub(super) fn create_child(&self, parent: Uuid) -> Uuid {
        let (id, parent) = (
            Uuid::new_v4(),
            &self.medium(parent).expect("a medium").location,
        );
        fs::create_dir_all(&self.snapshot_folder).expect("the folder of differencing images");
        let child = self.snapshot_folder.join(format!("{{{id}}}.vdi"));
        image::create_child(&child, parent, id);
        if self.is_running() {
            // The real one changes it when it stops to write to an image.
            image::renew_modification(parent);
        }
        id
    }

    /// Paths of the images of an attached hard disk, the one that the guest writes to first.
    pub(super) fn chain_of_disk(&self, disk: usize) -> Vec<PathBuf> {
        let chain = self.chain(self.hard_disks()[disk]).into_iter();
        chain.map(|medium| medium.location.clone()).collect()
    }
}

/// `internalcommands sethduuid FILE [UUID]`
pub(super) fn set_own_uuid(path: &str, id: Option<&str>) -> Answer {
    let id = id.map_or_else(|| Ok(Uuid::new_v4()), str::parse);
    match id {
        Ok(id) => change_uuids(
            path,
            |uuids| uuids.creation = id,
            &format!("UUID changed to: {id}\n"),
        ),
        Err(_) => usage("sethduuid <filepath> [<uuid>]", "Invalid UUID parameter"),
    }
}

/// `internalcommands sethdparentuuid FILE UUID`
pub(super) fn set_parent_uuid(path: &str, id: &str) -> Answer {
    match id.parse() {
        Ok(id) => change_uuids(
            path,
            |uuids| uuids.parent = id,
            &format!("UUID changed to: {id}\n"),
        ),
        Err(_) => usage(
            "sethdparentuuid <filepath> <uuid>",
            "Invalid UUID parameter",
        ),
    }
}

fn change_uuids(path: &str, change: impl FnOnce(&mut vrs_vdisk::VdiUuids), said: &str) -> Answer {
    let Ok(header) = VdiHeader::read(Path::new(path)) else {
        return Answer::error(&["Format autodetect failed: VERR_FILE_NOT_FOUND"]);
    };
    let mut uuids = header.uuids;
    change(&mut uuids);
    set_uuids(Path::new(path), &uuids).expect("a writable image");
    Answer::prints(said.to_owned())
}

fn usage(synopsis: &str, problem: &str) -> Answer {
    let stderr = format!(
        "Usage: VBoxManage internalcommands <command> [command arguments]\n\n  {synopsis}\n\nSyntax error: {problem}\n"
    );
    Answer {
        stderr,
        code: 2,
        ..Answer::silent()
    }
}
