//! Giving up what an earlier run began, where finishing it is not wanted or not possible, for
//! example because the target's disk is full.
//!
//! Guarantees: a clone goes without a trace: VirtualBox forgets it, and the files that it was to
//! get are removed, no others; one that was used since it was completed is not touched. An in-place
//! restore is undone only as long as no file of the machine was written to: its settings file comes
//! back, and it is registered again if it was. The repository is not needed, nor room on the disk:
//! the intent in the journal says all, so nothing is added to it. An undoing that was cut can be
//! repeated; `vrs recover` can also still finish the operation instead.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
use std::path::{Path, PathBuf};

use vrs_progress::Progress;
use vrs_virtualbox::MachineSettings;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::previous_settings;
use crate::journal::{Intent, Step, Unfinished};
use crate::lock::MachineLock;
use crate::machine::Machine;
use crate::platform;
use crate::restore::{self, RestoreIntent};

const WRITTEN_OVER: &str = "files of the machine were written to already; finish it with `vrs recover`, or use `vrs clone` to get a second machine";
const LET_GO: &str =
    "it changes nothing for good; `vrs recover` makes the machine as it was before";
const MOVES: &str = "`vrs recover` leaves the machine as it was if its snapshot was not taken yet, and `vrs migrate --accept` brings it back if it was";
const USED: &str =
    "the new machine is complete and was used since; `vrs recover` keeps it as it is";

/// What giving an operation up does, decided and not yet begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UndoPlan {
    /// Whether the machine is taken out of VirtualBox's list.
    pub unregister: bool,
    /// Files that are removed, and folders if they are empty then.
    pub remove: Vec<PathBuf>,
    /// Settings files that come back to where they were.
    pub put_back: Vec<PathBuf>,
    /// The settings file of the machine that is registered again.
    pub register: Option<PathBuf>,
}

impl UndoPlan {
    /// Decides how to give an operation up; refuses where that would lose data.
    pub fn make(host: &Host, unfinished: &Unfinished) -> Result<Self> {
        let intent = restore_of(unfinished)?;
        let refused = |reason| Error::CannotUndo {
            title: intent.title(),
            reason,
        };
        if intent.register {
            host.require_virtualbox()?;
        }
        let machine = Machine::registered(host, intent.machine)?;
        if !intent.is_clone {
            return if unfinished.furthest_step > Some(Step::SetAside) {
                Err(refused(WRITTEN_OVER))
            } else {
                Ok(Self::of_restore(host, intent, unfinished, machine.as_ref()))
            };
        }
        match &machine {
            Some(machine) if is_used(machine, intent) => Err(refused(USED)),
            _ => Ok(Self::of_clone(intent, unfinished, machine.as_ref())),
        }
    }

    fn of_clone(
        intent: &RestoreIntent,
        unfinished: &Unfinished,
        machine: Option<&Machine>,
    ) -> Self {
        let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
        // Before the first write nothing that is there is the clone's.
        let is_begun = unfinished.furthest_step.is_some();
        Self {
            unregister: machine.is_some(),
            remove: files_of(intent)
                .filter(|path| is_begun && is_there(path))
                .collect(),
            ..Self::default()
        }
    }

    fn of_restore(
        host: &Host,
        intent: &RestoreIntent,
        unfinished: &Unfinished,
        machine: Option<&Machine>,
    ) -> Self {
        let kept = || restore::kept_settings(host, intent);
        let is_missing = |place: &Path, kept: &Path| kept.exists() && !place.exists();
        let is_to_register = unfinished.was_registered && machine.is_none();
        let is_of_machine = |file: &Path| {
            MachineSettings::read(file).is_ok_and(|settings| settings.id == intent.machine)
        };
        Self {
            put_back: kept()
                .filter(|(place, kept)| is_missing(place, kept))
                .map(|(place, _)| place.clone())
                .collect(),
            register: kept()
                .filter(|_| is_to_register)
                .find(|(place, kept)| is_of_machine(place) || is_of_machine(kept))
                .map(|(place, _)| place.clone()),
            ..Self::default()
        }
    }
}

fn restore_of(unfinished: &Unfinished) -> Result<&RestoreIntent> {
    match &unfinished.intent {
        Intent::Restore(intent) => Ok(intent),
        other => Err(Error::CannotUndo {
            title: other.title(),
            reason: match other {
                Intent::Migrate(_) => MOVES,
                _ => LET_GO,
            },
        }),
    }
}

/// The settings come first: without them nobody takes the rest for a machine.
fn files_of(intent: &RestoreIntent) -> impl Iterator<Item = PathBuf> {
    let settings = &intent.settings_file;
    let others = intent.files.iter().map(|file| file.target.clone());
    let of_settings = [
        settings.clone(),
        previous_settings(settings),
        platform::unfinished(settings),
    ];
    of_settings.into_iter().chain(others)
}

/// Whether a machine that VirtualBox can read is more than what vrs made: running, or with files of
/// its own, such as the log that each start leaves.
fn is_used(machine: &Machine, intent: &RestoreIntent) -> bool {
    let own: BTreeSet<PathBuf> = files_of(intent).collect();
    let is_at_rest = machine.state.is_at_rest() || machine.state.is_inaccessible();
    !is_at_rest || !holds_only(&intent.folder, &own)
}

fn holds_only(folder: &Path, own: &BTreeSet<PathBuf>) -> bool {
    let Ok(mut entries) = fs::read_dir(folder) else {
        return true;
    };
    entries.all(|entry| {
        entry.is_ok_and(|entry| {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            own.contains(&entry.path()) || (is_folder && holds_only(&entry.path(), own))
        })
    })
}

/// Gives an operation up, and says what that took.
pub fn execute(host: &Host, unfinished: &Unfinished, progress: &dyn Progress) -> Result<UndoPlan> {
    let machine = unfinished.machine;
    let _lock = MachineLock::take(&host.state_folder, machine, &unfinished.intent.title())?;
    // Another vrs may have gone on with it until now.
    let Some(unfinished) = host.journals().of_machine(machine)? else {
        return Ok(UndoPlan::default());
    };
    let plan = UndoPlan::make(host, &unfinished)?;
    let intent = restore_of(&unfinished)?;
    if intent.is_clone && unfinished.furthest_step.is_some() {
        remove_clone(host, intent, &plan, progress)?;
    }
    for (place, kept) in restore::kept_settings(host, intent) {
        if plan.put_back.contains(place) {
            put_back(&kept, place, progress)?;
        }
    }
    if let Some(settings_file) = &plan.register {
        register(host, settings_file, progress)?;
    }
    host.journals().finish(machine, progress)?;
    Ok(plan)
}

fn remove_clone(
    host: &Host,
    intent: &RestoreIntent,
    plan: &UndoPlan,
    progress: &dyn Progress,
) -> Result<()> {
    if intent.register {
        forget(host, intent, plan, progress)?;
    }
    let mut files = plan.remove.iter();
    files.try_for_each(|path| restore::remove(path, progress))?;
    remove_empty_folders(intent, progress)
}

fn forget(
    host: &Host,
    intent: &RestoreIntent,
    plan: &UndoPlan,
    progress: &dyn Progress,
) -> Result<()> {
    let virtualbox = host.require_virtualbox()?;
    if plan.unregister {
        progress.step("unregister");
        virtualbox.unregister(intent.machine, progress)?;
    }
    let own: BTreeSet<_> = intent.images.iter().map(|image| image.id).collect();
    restore::close_unused_media(virtualbox, |medium| own.contains(&medium.id), progress)
}

/// The clone's folder and those in it, the innermost first.
fn remove_empty_folders(intent: &RestoreIntent, progress: &dyn Progress) -> Result<()> {
    let folders: BTreeSet<PathBuf> = files_of(intent)
        .flat_map(|file| file.ancestors().map(Path::to_owned).collect::<Vec<_>>())
        .filter(|folder| folder.starts_with(&intent.folder) && folder.is_dir())
        .collect();
    for folder in folders.iter().rev() {
        progress.step("folder-remove");
        match fs::remove_dir(folder) {
            Err(error) if !matches!(error.kind(), NotFound | DirectoryNotEmpty) => {
                return Err(Error::io("remove the folder", folder, error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn put_back(kept: &Path, place: &Path, progress: &dyn Progress) -> Result<()> {
    progress.step("settings-put-back");
    if fs::rename(kept, place).is_ok() {
        return place.parent().map_or(Ok(()), platform::sync_folder);
    }
    // The machine may be on another file system than the journal.
    let content = fs::read(kept).map_err(|error| Error::io("read", kept, error))?;
    platform::replace_file(place, &content)
}

/// VirtualBox knew the machine before, so whatever is wrong with its images was so then.
fn register(host: &Host, settings_file: &Path, progress: &dyn Progress) -> Result<()> {
    let virtualbox = host.require_virtualbox()?;
    progress.step("register");
    virtualbox.register(settings_file, progress)?;
    let settings = MachineSettings::read(settings_file)?;
    restore::save_registries(virtualbox, &settings, progress)
}
