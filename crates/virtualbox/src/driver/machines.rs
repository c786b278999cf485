//! Machines that VirtualBox knows, and which.

use std::path::{Path, PathBuf};

use vrs_progress::Progress;

use super::VBoxManage;
use super::machinereadable::MachineReadable;
use super::virtualbox_snapshot_list::{ListedVirtualBoxSnapshot, parse_virtualbox_snapshots};
use crate::error::{Error, Result};
use crate::id::{MachineId, VirtualBoxSnapshotId};
use crate::settings::MachineSettings;
use crate::state::MachineState;

/// The name that VirtualBox gives to machines whose settings it cannot read.
const INACCESSIBLE: &str = "<inaccessible>";

/// `showvminfo` says this after it has listed the VirtualBox snapshots. What a service that dies meanwhile
/// does not tell any more `VBoxManage` takes for none, and ends well (seen on 7.2.22).
const BEHIND_VIRTUALBOX_SNAPSHOTS: &str = "GuestMemoryBalloon=";

/// A machine as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredMachine {
    /// Its id.
    pub id: MachineId,
    /// Its name, which others may have too; `None` if VirtualBox cannot read its settings.
    pub name: Option<String>,
}

impl RegisteredMachine {
    /// Reads the output of `list vms`, where nothing is escaped: `"na"me" {uuid}`.
    #[must_use]
    pub fn parse_list(text: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut entry = String::new();
        for line in text.lines() {
            if !entry.is_empty() {
                entry.push('\n');
            }
            entry.push_str(line);
            if let Some(machine) = Self::parse(&entry) {
                found.push(machine);
                entry.clear();
            } else if !entry.starts_with('"') {
                entry.clear();
            }
        }
        found
    }

    fn parse(entry: &str) -> Option<Self> {
        let (name, id) = entry.strip_prefix('"')?.rsplit_once("\" {")?;
        let id = id.strip_suffix('}')?.parse().ok()?;
        Some(Self {
            id,
            name: (name != INACCESSIBLE).then(|| name.to_owned()),
        })
    }
}

/// What VirtualBox says about a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineStatus {
    /// Its id.
    pub id: MachineId,
    /// Its name; `<inaccessible>` if VirtualBox cannot read its settings.
    pub name: String,
    /// What it is doing.
    pub state: MachineState,
    /// When that last changed; to be compared, not interpreted.
    pub state_changed: Option<String>,
    /// Its settings file.
    pub settings_file: PathBuf,
    /// Folder of differencing images and saved states.
    pub snapshot_folder: Option<PathBuf>,
    /// Its saved state.
    pub state_file: Option<PathBuf>,
    /// Where its nvram is or would be.
    pub nvram_file: Option<PathBuf>,
    /// Name of the program that has it open, such as `headless`.
    pub session: Option<String>,
    /// The VirtualBox snapshot that its current state is based on.
    pub current_virtualbox_snapshot: Option<VirtualBoxSnapshotId>,
    /// Its VirtualBox snapshots, parents first.
    pub virtualbox_snapshots: Vec<ListedVirtualBoxSnapshot>,
}

impl MachineStatus {
    /// Reads the output of `showvminfo --machinereadable`. The error says what is missing.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let fields = MachineReadable::parse(text);
        let required = |key: &str| {
            fields
                .get(key)
                .ok_or_else(|| format!("it has no line {key}="))
        };
        let path = |key: &str| fields.get(key).map(PathBuf::from);
        let Ok(state) = required("VMState")?.parse();
        let mut lines = text.lines();
        if !lines.any(|line| line.starts_with(BEHIND_VIRTUALBOX_SNAPSHOTS)) {
            return Err(format!("it has no line {BEHIND_VIRTUALBOX_SNAPSHOTS}"));
        }
        let snapshots = parse_virtualbox_snapshots(fields.rest)?;
        Ok(Self {
            id: required("UUID")?
                .parse()
                .map_err(|_| "its line UUID= has no UUID".to_owned())?,
            name: required("name")?.to_owned(),
            state,
            state_changed: fields.get("VMStateChangeTime").map(ToOwned::to_owned),
            settings_file: required("CfgFile")?.into(),
            snapshot_folder: path("SnapFldr"),
            state_file: path("VMStateFile"),
            nvram_file: path("NvramFile"),
            session: fields.get("SessionName").map(ToOwned::to_owned),
            current_virtualbox_snapshot: snapshots
                .iter()
                .find(|snapshot| snapshot.is_current)
                .map(|current| current.id),
            virtualbox_snapshots: snapshots,
        })
    }

    /// Whether the settings on disk name the saved state that VirtualBox tells of.
    pub fn is_saved_state_named(&self) -> Result<bool> {
        let settings = MachineSettings::read(&self.settings_file)?;
        let folder = self.settings_file.parent().unwrap_or(Path::new("/"));
        let named = settings.state_file.as_deref();
        let named = named.map(|location| settings.resolve(folder, location));
        Ok(named.is_some() && named == self.state_file)
    }

    fn inaccessible(id: MachineId, settings_file: PathBuf) -> Self {
        Self {
            id,
            name: INACCESSIBLE.to_owned(),
            state: MachineState::Inaccessible,
            state_changed: None,
            settings_file,
            snapshot_folder: None,
            state_file: None,
            nvram_file: None,
            session: None,
            current_virtualbox_snapshot: None,
            virtualbox_snapshots: Vec::new(),
        }
    }
}

impl VBoxManage {
    /// All machines that VirtualBox knows. Locks none of them.
    pub fn machines(&self) -> Result<Vec<RegisteredMachine>> {
        Ok(RegisteredMachine::parse_list(&self.ask(["list", "vms"])?))
    }

    /// What VirtualBox says about a machine. One whose settings it cannot read is
    /// [`MachineState::Inaccessible`]; one that it does not know is an error.
    pub fn machine(&self, id: MachineId) -> Result<MachineStatus> {
        let arguments = [
            "showvminfo".to_owned(),
            id.to_string(),
            "--machinereadable".to_owned(),
        ];
        match self.ask_for(&arguments, MachineStatus::parse) {
            Err(error) if error.code().is_some_and(|code| code.is_access_denied()) => {
                self.inaccessible(id)
            }
            Err(error) if error.code().is_some_and(|code| code.is_not_found()) => {
                Err(Error::NoSuchMachine { machine: id })
            }
            outcome => outcome,
        }
    }

    /// The machine's VirtualBox snapshots, parents first. Locks the machine for a moment. Fails if
    /// VirtualBox cannot read the machine.
    pub fn virtualbox_snapshots(&self, id: MachineId) -> Result<Vec<ListedVirtualBoxSnapshot>> {
        // `snapshot list` does not tell whether there are none or the service has died meanwhile.
        let status = self.machine(id)?;
        if status.state.is_inaccessible() {
            return Err(Error::WrongState {
                operation: "list the VirtualBox snapshots of",
                machine: id,
                state: status.state,
            });
        }
        Ok(status.virtualbox_snapshots)
    }

    /// Makes VirtualBox know the machine with this settings file. Fails unless VirtualBox then lists
    /// it with this very file and can read it.
    pub fn register(&self, settings_file: &Path, progress: &dyn Progress) -> Result<MachineId> {
        let file = absolute(settings_file)?;
        let id = MachineSettings::read(&file)?.id;
        let arguments = ["registervm".as_ref(), file.as_os_str()];
        self.order(arguments, progress)?;
        let status = self.machine(id)?;
        if status.state.is_inaccessible() {
            return Err(self.not_done(
                arguments,
                format!("VirtualBox cannot read the settings of machine {id}"),
            ));
        }
        if !is_same_file(&status.settings_file, &file) {
            return Err(self.not_done(
                arguments,
                format!(
                    "machine {id} is registered as '{}'",
                    status.settings_file.display()
                ),
            ));
        }
        Ok(id)
    }

    /// Makes VirtualBox forget the machine. None of its files is removed; VirtualBox may write its
    /// settings once more, without images that only other machines use.
    pub fn unregister(&self, id: MachineId, progress: &dyn Progress) -> Result<()> {
        let arguments = ["unregistervm".to_owned(), id.to_string()];
        self.order(&arguments, progress)?;
        if self.is_registered(id)? {
            return Err(self.not_done(&arguments, format!("machine {id} is still registered")));
        }
        Ok(())
    }

    /// Makes VirtualBox write the machine's settings file with all it knows, such as images that came
    /// to its media registry when another machine was unregistered. Nothing else changes.
    pub fn save_settings(&self, id: MachineId, progress: &dyn Progress) -> Result<()> {
        // VirtualBox saves on every change of an extra-data item; `modifyvm` would mark the current
        // state as changed.
        const ITEM: &str = "vrs/save-settings";
        let file = self.machine(id)?.settings_file;
        for value in [Some("1"), None] {
            let id = id.to_string();
            let arguments: Vec<&str> = ["setextradata", &id, ITEM]
                .into_iter()
                .chain(value)
                .collect();
            self.order(&arguments, progress)?;
            let text = std::fs::read_to_string(&file);
            let text = text.map_err(|source| Error::Io {
                operation: "read",
                path: file.clone(),
                source,
            })?;
            if text.contains(ITEM) != value.is_some() {
                return Err(
                    self.not_done(&arguments, format!("'{}' was not written", file.display()))
                );
            }
        }
        Ok(())
    }

    pub(super) fn is_registered(&self, id: MachineId) -> Result<bool> {
        Ok(self.machines()?.iter().any(|machine| machine.id == id))
    }

    /// `showvminfo` says nothing about such machines; `list vms --long` says where the settings are.
    fn inaccessible(&self, id: MachineId) -> Result<MachineStatus> {
        let arguments = ["list", "vms", "--long"];
        let text = self.ask(arguments)?;
        let file = inaccessible_settings_file(&text, id);
        let file =
            file.ok_or_else(|| self.output_error(arguments, format!("machine {id} is not in it")))?;
        Ok(MachineStatus::inaccessible(id, file))
    }
}

fn inaccessible_settings_file(text: &str, id: MachineId) -> Option<PathBuf> {
    let before = format!("\nUUID:            {id}\nConfig file:     ");
    text.split_once(&before)?
        .1
        .lines()
        .next()
        .map(PathBuf::from)
}

/// VirtualBox wants full paths, and one that begins with a dash would be taken for an option.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|source| Error::Io {
        operation: "find",
        path: path.to_owned(),
        source,
    })
}

fn is_same_file(left: &Path, right: &Path) -> bool {
    left == right
        || matches!((left.canonicalize(), right.canonicalize()), (Ok(left), Ok(right)) if left == right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_list_with_odd_names() {
        let list = RegisteredMachine::parse_list(include_str!(
            "../../tests/recorded/7.2.22/list-vms-odd-names.txt"
        ));
        let names: Vec<_> = list.iter().map(|machine| machine.name.as_deref()).collect();
        assert_eq!(
            names,
            [
                Some("m1"),
                Some("m2"),
                Some("m3"),
                None,
                Some("m1old"),
                Some("imported"),
                Some("m1clone"),
                Some("c2"),
                Some("efi1"),
                Some("two words"),
                Some("ünï-日本"),
                Some("quo\"te"),
                Some("apos'trophe"),
                Some("dollar$x"),
                Some("-dash"),
                Some("a/b"),
                Some("{11111111-2222-3333-4444-555555555500}"),
                Some("<angle>"),
                Some(" leading"),
            ]
        );
        assert_eq!(
            list[3].id.to_string(),
            "40ef9dd0-3607-40a7-9df6-2438d31fadd2"
        );
    }

    #[test]
    fn names_with_line_ends() {
        let recorded = include_str!("../../tests/recorded/7.2.22/list-vms-line-ends.txt");
        let list = RegisteredMachine::parse_list(&format!("noise\n{recorded}\"cut off"));
        let names: Vec<_> = list
            .iter()
            .filter_map(|machine| machine.name.as_deref())
            .collect();
        assert_eq!(names, ["a\\b\"c", "new\nVMState=\"running\""]);
    }

    #[test]
    fn recorded_status() {
        let status = MachineStatus::parse(include_str!(
            "../../tests/recorded/7.2.22/showvminfo-dvd-description.txt"
        ))
        .unwrap();
        insta::assert_debug_snapshot!(status, @r#"
        MachineStatus {
            id: MachineId(
                60b68e35-fd26-488e-8d09-97ddb3cc17b1,
            ),
            name: "alpha",
            state: PoweredOff,
            state_changed: Some(
                "2026-11-21T03:16:12.737000000",
            ),
            settings_file: "/srv/rig/w/off/vms/alpha/alpha.vbox",
            snapshot_folder: Some(
                "/srv/rig/w/off/vms/alpha/Snapshots",
            ),
            state_file: None,
            nvram_file: Some(
                "/srv/rig/w/off/vms/alpha/alpha.nvram",
            ),
            session: None,
            current_virtualbox_snapshot: None,
            virtualbox_snapshots: [],
        }
        "#);
        let running =
            include_str!("../../tests/recorded/7.2.22/showvminfo-running-with-snapshot.txt");
        let running = MachineStatus::parse(running).unwrap();
        assert_eq!(
            (running.state, running.session.as_deref()),
            (MachineState::Running, Some("headless"))
        );
        assert_eq!(
            running.current_virtualbox_snapshot.unwrap().to_string(),
            "ba00b79e-4db5-4e5d-8510-3c530cf347a5"
        );
        assert_eq!(
            MachineStatus::parse("name=\"a\"\n"),
            Err("it has no line VMState=".to_owned())
        );
    }

    #[test]
    fn recorded_inaccessible_machine() {
        let text = include_str!("../../tests/recorded/7.2.22/list-vms-long-inaccessible.txt");
        let id = "63ab62a0-b780-4942-99e9-bee49035d9e7".parse().unwrap();
        assert_eq!(
            inaccessible_settings_file(text, id),
            Some("/tmp/vbxw/vms/p/p.vbox".into())
        );
        assert_eq!(inaccessible_settings_file(text, MachineId::default()), None);
    }
}
