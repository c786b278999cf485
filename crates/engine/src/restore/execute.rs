//! Carrying out a restore, step by step, each step announced in the journal.

use std::path::{Path, PathBuf};

use vrs_progress::{Phase, Progress};
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{RestoreFile, RestoreRequest, RestoreStats, SeedFile, SnapshotStore};
use vrs_virtualbox::{DeviceType, Frontend, MachineSettings, Medium, VBoxManage};

use super::ownership::related_users;
use super::{Former, IntentImage, RestoreIntent, RestorePlan};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::journal::{Intent, Journal, Step};
use crate::lock::MachineLock;
use crate::machine::Machine;
use crate::manifest::tree_path;
use crate::{grid, migrate, permission, platform, portability, records, recover, tracking};

/// A machine that was brought back.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What was done.
    pub intent: RestoreIntent,
    /// What it cost.
    pub stats: RestoreStats,
}

/// Carries a plan out.
pub fn execute(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &RestorePlan,
    progress: &dyn Progress,
) -> Result<Restored> {
    let intent = &plan.intent;
    portability::refuse_or_warn(&intent.machine_name, &plan.portability, progress)?;
    let _lock = MachineLock::take(&host.state_folder, intent.machine, &intent.machine_name)?;
    recover::refuse_if_owed(host, intent.machine)?;
    // What it keeps would hold all that is written over now.
    tracking::forget(host, intent.machine, progress);
    let mut journal = host.journals().begin(
        intent.machine,
        Intent::Restore(Box::new(intent.clone())),
        progress,
    )?;
    match begin(host, store, plan, &mut journal, progress) {
        Ok(stats) => {
            journal.finish(progress)?;
            Ok(Restored {
                intent: intent.clone(),
                stats,
            })
        }
        Err(error) => {
            // What went wrong first is what the user has to know.
            let _ = recover::drop_if_unchanged(host, store, intent, journal, progress);
            Err(error)
        }
    }
}

/// Starts a machine that was restored.
pub fn start(
    host: &Host,
    plan: &RestorePlan,
    frontend: Frontend,
    progress: &dyn Progress,
) -> Result<()> {
    let virtualbox = host.require_virtualbox()?;
    progress.step("start");
    Ok(virtualbox.start(plan.intent.machine, frontend, progress)?)
}

fn begin(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &RestorePlan,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<RestoreStats> {
    if let Some(accepted) = &plan.intent.accepts {
        let (name, force) = (&plan.intent.machine_name, plan.accept_forced);
        migrate::claim(host, store, accepted, name, force, progress)?;
    }
    if plan.power_off {
        power_off(host, &plan.intent, journal, progress)?;
    }
    carry_out(host, store, &plan.intent, &plan.former, journal, progress)
}

/// All steps from the intent to the registered machine. Every step may have been made before. After a
/// power failure nothing may be known by stamps: what was written can be there without its time.
pub(crate) fn carry_out(
    host: &Host,
    store: &dyn SnapshotStore,
    intent: &RestoreIntent,
    former: &Former,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<RestoreStats> {
    if intent.register {
        unregister(host, intent, journal, progress)?;
    }
    set_aside(host, intent, journal, progress)?;
    journal.record(Step::Write, progress)?;
    let stats = write_files(store, intent, former, progress)?;
    if !intent.images.is_empty() {
        journal.record(Step::Identify, progress)?;
        intent
            .images
            .iter()
            .try_for_each(|image| identify(host, image, progress))?;
    }
    journal.record(Step::Remove, progress)?;
    intent
        .remove
        .iter()
        .try_for_each(|path| remove(path, progress))?;
    journal.record(Step::Settle, progress)?;
    progress.step("settings-write");
    platform::replace_file(&intent.settings_file, intent.settings.as_bytes())?;
    remember(host, intent, progress)?;
    if intent.register {
        journal.record(Step::Register, progress)?;
        register(host, intent, progress)?;
    }
    Ok(stats)
}

/// Writes down that the machine lives here now.
fn remember(host: &Host, intent: &RestoreIntent, progress: &dyn Progress) -> Result<()> {
    if let Some(accepted) = &intent.accepts {
        progress.step("accepted-mark");
        records::accepted(host).write(intent.machine, accepted)?;
    }
    if intent.comes_back {
        progress.step("moved-unmark");
        records::moved(host).remove(intent.machine)?;
    }
    Ok(())
}

fn power_off(
    host: &Host,
    intent: &RestoreIntent,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(machine) = Machine::registered(host, intent.machine)? else {
        return Ok(());
    };
    if machine.state.is_online() {
        journal.record(Step::PowerOff, progress)?;
        progress.step("power-off");
        host.require_virtualbox()?.power_off(machine.id, progress)?;
    }
    Ok(())
}

fn unregister(
    host: &Host,
    intent: &RestoreIntent,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(machine) = Machine::registered(host, intent.machine)? else {
        return Ok(());
    };
    permission::to_restore(&machine, false)?;
    journal.record(Step::Unregister, progress)?;
    progress.step("unregister");
    Ok(host
        .require_virtualbox()?
        .unregister(machine.id, progress)?)
}

fn set_aside(
    host: &Host,
    intent: &RestoreIntent,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<()> {
    let mut present = kept_settings(host, intent)
        .filter(|(path, _)| path.exists())
        .peekable();
    if present.peek().is_none() {
        return Ok(());
    }
    journal.record(Step::SetAside, progress)?;
    for (path, kept) in present {
        progress.step("settings-set-aside");
        let content = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
        // A second run must not replace the true old settings with ones it wrote itself.
        if !kept.exists() {
            platform::replace_file(&kept, &content)?;
        }
        remove(path, progress)?;
    }
    Ok(())
}

/// Each settings file that is put aside, and where it is kept meanwhile.
pub(crate) fn kept_settings<'a>(
    host: &'a Host,
    intent: &'a RestoreIntent,
) -> impl Iterator<Item = (&'a PathBuf, PathBuf)> {
    let kept = |number| {
        let name = format!("old-settings-{number}");
        host.journals().attachment(intent.machine, &name)
    };
    intent
        .set_aside
        .iter()
        .enumerate()
        .map(move |(number, path)| (path, kept(number)))
}

fn write_files(
    store: &dyn SnapshotStore,
    intent: &RestoreIntent,
    former: &Former,
    progress: &dyn Progress,
) -> Result<RestoreStats> {
    let targets = intent.files.iter().map(|file| &file.target);
    // The settings file's folder too: a machine may have no disks.
    for target in targets.chain([&intent.settings_file]) {
        if let Some(folder) = target.parent() {
            progress.step("folder-create");
            platform::create_private_folder(folder)?;
        }
    }
    progress.phase(Phase {
        name: "restoring",
        subject: intent.machine_name.clone(),
        total_bytes: None,
    });
    Ok(store.restore(&request(intent, former)?, progress)?)
}

/// The part of an intent that the repository does.
pub(super) fn request(intent: &RestoreIntent, former: &Former) -> Result<RestoreRequest> {
    let snapshot =
        SnapshotId::from_hex(&intent.snapshot).ok_or_else(|| Error::SnapshotNotFound {
            wanted: intent.snapshot.clone(),
            reason: "it is no id".to_owned(),
        })?;
    let files = intent.files.iter().map(|file| {
        Ok(RestoreFile {
            path: tree_path(&file.path)?,
            target: file.target.clone(),
            local_chunking: Some(grid::chunking_of_local(&file.target)),
            known: former.of(&file.target),
        })
    });
    let seeds = intent.seeds.iter().map(|seed| SeedFile {
        local: seed.clone(),
        chunking: grid::chunking_of_local(seed),
        known: former.of(seed),
    });
    Ok(RestoreRequest {
        snapshot,
        files: files.collect::<Result<_>>()?,
        seeds: seeds.collect(),
    })
}

fn identify(host: &Host, image: &IntentImage, progress: &dyn Progress) -> Result<()> {
    progress.step("image-identify");
    if image.format.eq_ignore_ascii_case("VDI") {
        let parent = image.parent.map(|parent| parent.uuid());
        return Ok(vrs_vdisk::set_image_identity(
            &image.target,
            image.id.uuid(),
            parent,
        )?);
    }
    let virtualbox = host.require_virtualbox()?;
    virtualbox.set_image_uuid(&image.target, image.id)?;
    if let Some(parent) = image.parent {
        virtualbox.set_image_parent_uuid(&image.target, parent)?;
    }
    Ok(())
}

pub(crate) fn remove(path: &Path, progress: &dyn Progress) -> Result<()> {
    progress.step("file-remove");
    platform::remove_file(path)
}

fn register(host: &Host, intent: &RestoreIntent, progress: &dyn Progress) -> Result<()> {
    introduce(host, intent, progress)?;
    let settings = MachineSettings::parse(&intent.settings, &intent.settings_file)?;
    verify_registered(host, intent, &settings)
}

/// Makes VirtualBox know the machine, whatever it knew of it before.
pub(crate) fn introduce(
    host: &Host,
    intent: &RestoreIntent,
    progress: &dyn Progress,
) -> Result<()> {
    let virtualbox = host.require_virtualbox()?;
    let settings = MachineSettings::parse(&intent.settings, &intent.settings_file)?;
    close_stale_media(virtualbox, intent, &settings, progress)?;
    progress.step("register");
    virtualbox.register(&intent.settings_file, progress)?;
    save_registries(virtualbox, &settings, progress)
}

/// Entries that an earlier life of the machine left in VirtualBox's media registry would stop the
/// registration.
fn close_stale_media(
    virtualbox: &VBoxManage,
    intent: &RestoreIntent,
    settings: &MachineSettings,
    progress: &dyn Progress,
) -> Result<()> {
    let wanted: Vec<_> = settings
        .all_hard_disks()
        .map(|disk| (disk.id, settings.resolve(&intent.folder, &disk.location)))
        .collect();
    let clashes = |id, location: &Path| {
        wanted
            .iter()
            .any(|(other, place)| (id == *other) != (location == place.as_path()))
    };
    let clashes = |medium: &Medium| clashes(medium.id, &medium.location);
    close_unused_media(virtualbox, clashes, progress)
}

/// Makes VirtualBox forget images that no machine uses. Their files stay.
pub(crate) fn close_unused_media(
    virtualbox: &VBoxManage,
    is_unwanted: impl Fn(&Medium) -> bool,
    progress: &dyn Progress,
) -> Result<()> {
    // Children first: VirtualBox refuses to close an image that has some.
    for medium in virtualbox.media()?.iter().rev() {
        if is_unwanted(medium) && medium.used_by.is_empty() {
            progress.step("medium-close");
            virtualbox.close_medium(DeviceType::Disk, medium.id, progress)?;
        }
    }
    Ok(())
}

/// VirtualBox keeps each image in the settings of one machine only, and writes those of another
/// machine just when that machine changes: without this a linked clone could be lost from every
/// file and be inaccessible after the next start of VirtualBox (tried on 7.2.22).
pub(crate) fn save_registries(
    virtualbox: &VBoxManage,
    settings: &MachineSettings,
    progress: &dyn Progress,
) -> Result<()> {
    let own: Vec<_> = settings.all_hard_disks().map(|disk| disk.id).collect();
    let media = virtualbox.media()?;
    let mut sharing: Vec<_> = media
        .iter()
        .filter(|medium| own.contains(&medium.id))
        .flat_map(|medium| related_users(medium.id, &media))
        .filter(|user| *user != settings.id)
        .collect();
    sharing.sort_unstable();
    sharing.dedup();
    if sharing.is_empty() {
        return Ok(());
    }
    for machine in sharing.into_iter().chain([settings.id]) {
        progress.step("registry-save");
        virtualbox.save_settings(machine, progress)?;
    }
    Ok(())
}

fn verify_registered(
    host: &Host,
    intent: &RestoreIntent,
    settings: &MachineSettings,
) -> Result<()> {
    let not_as_expected = |what: String| Error::NotAsExpected {
        name: intent.machine_name.clone(),
        after: "registration",
        what,
    };
    let machine = Machine::registered(host, intent.machine)?
        .ok_or_else(|| not_as_expected("VirtualBox does not list it".to_owned()))?;
    if machine.state != settings.resting_state() {
        return Err(not_as_expected(format!(
            "it is {}, not {}",
            machine.state,
            settings.resting_state()
        )));
    }
    let media = host.require_virtualbox()?.media()?;
    let own = settings.all_hard_disks();
    for medium in own.filter_map(|disk| media.iter().find(|medium| medium.id == disk.id)) {
        if let Some(reason) = &medium.access_error {
            return Err(not_as_expected(format!(
                "'{}': {reason}",
                medium.location.display()
            )));
        }
    }
    Ok(())
}
