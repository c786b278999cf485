//! Carrying out a repair, each change after a copy of what it changes.

use std::path::{Path, PathBuf};

use vrs_progress::{NoProgress, Progress};
use vrs_repository::store::SnapshotStore;
use vrs_vdisk::VdiHead;
use vrs_virtualbox::{DeviceType, MachineId, MediumId};

use super::examination::{Scope, examine};
use super::finding::Finding;
use super::repair::{RepairAction, RepairIntent, RepairPlan};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::previous_settings;
use crate::journal::{Intent, Journal, Step};
use crate::lock::MachineLock;
use crate::machine::Machine;
use crate::restore::{self, RestoreIntent};
use crate::{permission, platform, recover};

/// A repair that was carried out and that helped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Copies of what was changed.
    pub kept: Vec<PathBuf>,
}

/// Carries out the repair of a finding, and looks for the trouble again.
///
/// # Errors
/// [`Error::NotCured`] if it is still there: everything that the plan says was done then, and
/// nothing is owed.
pub fn execute(
    host: &Host,
    store: Option<&dyn SnapshotStore>,
    finding: &Finding,
    progress: &dyn Progress,
) -> Result<Repaired> {
    let Some(plan) = finding.plan() else {
        return Err(Error::Usage {
            message: format!("nothing can be repaired here: {}", finding.problem),
        });
    };
    let intent = &plan.intent;
    let title = intent.title();
    let _lock = MachineLock::take(&host.state_folder, intent.machine, &title)?;
    recover::refuse_if_owed(host, intent.machine)?;
    refuse_if_in_use(host, intent)?;
    prepare(plan, progress)?;
    let owed = Intent::Repair(intent.clone());
    let mut journal = host.journals().begin(intent.machine, owed, progress)?;
    if let Err(error) = carry_out(host, store, intent, &mut journal, progress) {
        // What went wrong first is what the user has to know.
        let _ = recover::drop_if_not_begun(host, intent.machine, journal, progress);
        return Err(error);
    }
    journal.finish(progress)?;
    prove(host, store, finding)?;
    Ok(Repaired {
        kept: kept_files(intent),
    })
}

/// Refuses to change files of a machine that is not at rest.
fn refuse_if_in_use(host: &Host, intent: &RepairIntent) -> Result<()> {
    if let Some(machine) = registered(host, intent)? {
        permission::to_repair(&machine)?;
    }
    let images = intent.actions.iter().filter_map(|action| match action {
        RepairAction::WriteHead { image, .. } | RepairAction::SetParent { image, .. } => {
            Some(image)
        }
        _ => None,
    });
    images
        .into_iter()
        .try_for_each(|image| platform::refuse_if_written_to(image))
}

fn registered(host: &Host, intent: &RepairIntent) -> Result<Option<Machine>> {
    if intent.is_about_registry() {
        return Ok(None);
    }
    Machine::registered(host, intent.machine)
}

/// Saves what the actions need and the journal is too small for.
fn prepare(plan: &RepairPlan, progress: &dyn Progress) -> Result<()> {
    if plan.heads.is_empty() {
        return Ok(());
    }
    progress.step("head-save");
    platform::create_private_folder(&plan.intent.keep_in)?;
    plan.heads
        .iter()
        .try_for_each(|new| Ok(new.head.save(&new.place)?))
}

/// All changes from the intent on. Each may have been made before.
pub(crate) fn carry_out(
    host: &Host,
    store: Option<&dyn SnapshotStore>,
    intent: &RepairIntent,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<()> {
    let mut repair = Repair {
        host,
        store,
        intent,
        journal,
        progress,
    };
    intent
        .actions
        .iter()
        .try_for_each(|action| repair.act(action))
}

/// A repair that is being carried out.
pub(super) struct Repair<'a> {
    pub(super) host: &'a Host,
    pub(super) store: Option<&'a dyn SnapshotStore>,
    pub(super) intent: &'a RepairIntent,
    pub(super) journal: &'a mut Journal,
    pub(super) progress: &'a dyn Progress,
}

impl Repair<'_> {
    fn act(&mut self, action: &RepairAction) -> Result<()> {
        match action {
            RepairAction::Fetch {
                path,
                target,
                what,
                aside,
            } => self.fetch(path, target, *what, aside.as_deref()),
            RepairAction::WriteHead {
                image,
                image_bytes,
                head,
            } => self.write_head(image, *image_bytes, head),
            RepairAction::SetParent { image, own, parent } => {
                self.keep_beginning(image)?;
                self.journal.record(Step::Write, self.progress)?;
                self.progress.step("image-identify");
                Ok(vrs_vdisk::set_image_identity(image, *own, Some(*parent))?)
            }
            RepairAction::PutSettings {
                content,
                registered,
                ..
            } => self.put_settings(content, *registered),
            RepairAction::PutAside { file, aside } => self.put_aside(file, aside),
            RepairAction::DiscardState { damaged } => self.discard_state(damaged.as_ref()),
            RepairAction::RemoveExtraData { key } => self.remove_extra_data(key),
            RepairAction::SaveSettings => self.save_settings(),
            RepairAction::CloseMedium {
                medium,
                location,
                aside,
            } => self.close(*medium, location, aside.as_deref()),
        }
    }

    fn write_head(&mut self, image: &Path, image_bytes: u64, head: &Path) -> Result<()> {
        let length = image
            .metadata()
            .map_err(|error| Error::io("look at", image, error))?
            .len();
        if length != image_bytes {
            return Err(Error::RepairStopped {
                title: self.intent.title(),
                reason: format!("'{}' has changed meanwhile", image.display()),
            });
        }
        let head = VdiHead::of_image(head)?;
        let copy = self.place_for_copy(image, ".old-head")?;
        if !copy.exists() {
            self.progress.step("copy-keep");
            let unfinished = beside(&copy);
            // Left by a run that was cut short.
            let _ = std::fs::remove_file(&unfinished);
            head.keep_replaced(image, &unfinished)?;
            std::fs::rename(&unfinished, &copy)
                .map_err(|error| Error::io("keep a copy as", &copy, error))?;
        }
        self.journal.record(Step::Write, self.progress)?;
        self.progress.step("head-write");
        Ok(head.write(image)?)
    }

    /// A settings file that VirtualBox cannot read is put in place, and VirtualBox looks again when it
    /// is asked. One that it has read must go and come back.
    fn put_settings(&mut self, content: &str, was_registered: bool) -> Result<()> {
        self.keep_settings()?;
        let machine = registered(self.host, self.intent)?;
        if machine.is_some_and(|machine| !machine.state.is_inaccessible()) {
            self.unregister()?;
        }
        self.write_settings(content)?;
        if !was_registered {
            return Ok(());
        }
        match registered(self.host, self.intent)? {
            Some(machine) if !machine.state.is_inaccessible() => return Ok(()),
            Some(_) => {
                self.unregister()?;
                // VirtualBox may have written its own once more.
                self.write_settings(content)?;
            }
            None => {}
        }
        self.journal.record(Step::Register, self.progress)?;
        restore::introduce(self.host, &self.registration(content), self.progress)
    }

    fn write_settings(&mut self, content: &str) -> Result<()> {
        self.journal.record(Step::Settle, self.progress)?;
        self.progress.step("settings-write");
        platform::replace_file(&self.intent.settings_file, content.as_bytes())
    }

    fn unregister(&mut self) -> Result<()> {
        self.journal.record(Step::Unregister, self.progress)?;
        self.progress.step("unregister");
        let virtualbox = self.host.require_virtualbox()?;
        Ok(virtualbox.unregister(self.intent.machine, self.progress)?)
    }

    /// The registration alone, as a restore would make it.
    fn registration(&self, content: &str) -> RestoreIntent {
        let settings_file = self.intent.settings_file.clone();
        RestoreIntent {
            machine: self.intent.machine,
            machine_name: self.intent.machine_name.clone(),
            folder: settings_file.parent().unwrap_or(Path::new("/")).to_owned(),
            settings_file,
            settings: content.to_owned(),
            register: true,
            ..RestoreIntent::default()
        }
    }

    fn save_settings(&mut self) -> Result<()> {
        self.keep_settings()?;
        self.journal.record(Step::Settle, self.progress)?;
        self.progress.step("settings-write");
        let virtualbox = self.host.require_virtualbox()?;
        Ok(virtualbox.save_settings(self.intent.machine, self.progress)?)
    }

    fn discard_state(&mut self, damaged: Option<&(PathBuf, PathBuf)>) -> Result<()> {
        self.keep_settings()?;
        let virtualbox = self.host.require_virtualbox()?;
        self.journal.record(Step::Settle, self.progress)?;
        if let Some((damaged, place)) = damaged {
            self.put_aside(damaged, place)?;
        }
        self.progress.step("state-discard");
        Ok(virtualbox.discard_state(self.intent.machine, self.progress)?)
    }

    fn remove_extra_data(&mut self, key: &str) -> Result<()> {
        self.keep_settings()?;
        let virtualbox = self.host.require_virtualbox()?;
        self.journal.record(Step::Settle, self.progress)?;
        self.progress.step("extra-data-remove");
        Ok(virtualbox.set_extra_data(self.intent.machine, key, None, self.progress)?)
    }

    fn close(&mut self, medium: MediumId, location: &Path, aside: Option<&Path>) -> Result<()> {
        let virtualbox = self.host.require_virtualbox()?;
        self.journal.record(Step::Remove, self.progress)?;
        self.progress.step("medium-close");
        virtualbox.close_medium(DeviceType::Disk, medium, self.progress)?;
        aside.map_or(Ok(()), |aside| self.put_aside(location, aside))
    }

    fn keep_settings(&self) -> Result<()> {
        let file = &self.intent.settings_file;
        for file in [file.clone(), previous_settings(file)] {
            match std::fs::read(&file) {
                Ok(content) => self.keep(&file, "", &content)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", &file, error)),
            }
        }
        Ok(())
    }

    fn keep_beginning(&self, image: &Path) -> Result<()> {
        use std::io::Read as _;
        const HEADER_BYTES: u64 = 512;
        let failed = |error| Error::io("read", image, error);
        let file = std::fs::File::open(image).map_err(failed)?;
        let mut beginning = Vec::new();
        file.take(HEADER_BYTES)
            .read_to_end(&mut beginning)
            .map_err(failed)?;
        self.keep(image, ".old-head", &beginning)
    }

    /// Keeps a copy. A second run must not replace the true old content with what the first wrote.
    fn keep(&self, file: &Path, suffix: &str, content: &[u8]) -> Result<()> {
        let copy = self.place_for_copy(file, suffix)?;
        if copy.exists() {
            return Ok(());
        }
        self.progress.step("copy-keep");
        platform::replace_file(&copy, content)
    }

    fn place_for_copy(&self, file: &Path, suffix: &str) -> Result<PathBuf> {
        platform::create_private_folder(&self.intent.keep_in)?;
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        Ok(self.intent.keep_in.join(name))
    }
}

/// A name beside a file for what is to become it.
pub(super) fn beside(file: &Path) -> PathBuf {
    let mut name = file.to_owned().into_os_string();
    name.push(".vrs-repair");
    name.into()
}

/// Everything kept: copies, without the heads that were put into images, and what was put aside.
fn kept_files(intent: &RepairIntent) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&intent.keep_in)
        .into_iter()
        .flatten()
        .flatten();
    let copies = entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_none_or(|name| name != "new-head.vdi"));
    let aside = intent.put_aside().map(Path::to_owned);
    let mut files: Vec<PathBuf> = copies.chain(aside.filter(|place| place.exists())).collect();
    files.sort();
    files
}

/// Looks for the trouble again.
fn prove(host: &Host, store: Option<&dyn SnapshotStore>, finding: &Finding) -> Result<()> {
    let scope = match &finding.machine {
        None => Scope::All,
        Some(_) => Scope::Machine(shown_to_find(host, finding)?),
    };
    let again = examine(host, store, &scope, &NoProgress)?;
    match again
        .findings
        .iter()
        .find(|found| found.is_same_as(finding))
    {
        None => Ok(()),
        Some(still) => Err(Error::NotCured {
            title: finding
                .plan()
                .map_or_else(String::new, |plan| plan.intent.title()),
            what: still.problem.to_string(),
        }),
    }
}

/// Machines that VirtualBox does not list are found by their settings file only.
fn shown_to_find(host: &Host, finding: &Finding) -> Result<String> {
    let intent = finding.plan().map(|plan| &plan.intent);
    let id = finding
        .machine
        .as_ref()
        .map_or_else(MachineId::default, |machine| machine.id);
    if Machine::registered(host, id)?.is_some() {
        return Ok(id.to_string());
    }
    Ok(intent.map_or_else(
        || id.to_string(),
        |intent| intent.settings_file.display().to_string(),
    ))
}
