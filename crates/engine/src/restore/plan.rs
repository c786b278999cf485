//! What an in-place restore will do, decided before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vrs_progress::Progress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{RestoreRequest, RestoreStats, SnapshotStore};
use vrs_virtualbox::{MachineId, MachineSettings, MediumId, SettingsEdit};

use super::execute::request;
use super::ownership::{Present, refuse_if_in_the_way, related_users};
use super::place::Place;
use super::{Former, IntentFile, RestoreIntent};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::machine::Machine;
use crate::manifest::{FileRecord, FileRole, Manifest};
use crate::portability::{Move, Verdict};
use crate::records::{AcceptedMachine, MovedMachine};
use crate::snapshot::Snapshot;
use crate::verdict::forced_names;
use crate::{catalog, permission, portable, records};

/// What the user says about a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Power a running machine off first.
    pub power_off: bool,
    /// Put the machine folder into this folder, if the machine is not on this host any more.
    pub into: Option<PathBuf>,
    /// Leave the machine's RAM out, so that it boots from its disks.
    pub cold: bool,
    /// Take the machine over that moved into the snapshot.
    pub accept: bool,
    /// Take it over although another host did.
    pub accept_forced: bool,
    /// Names of portability verdicts that shall not stop the restore.
    pub force: Vec<String>,
    /// The machine's last snapshot of this host: files that are as it left them are not read. Nothing: all
    /// are. See [`super::last_taken_here`].
    pub last_taken: Option<SnapshotId>,
}

/// A restore, decided and not yet begun.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// What it holds.
    pub manifest: Manifest,
    /// Everything that will be done.
    pub intent: RestoreIntent,
    /// Whether the machine is running and will be powered off.
    pub power_off: bool,
    /// Base images that stay where they are, detached.
    pub left_behind: Vec<PathBuf>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// What may not go on here as it was.
    pub portability: Vec<Verdict>,
    /// Whether the machine is taken over although another host did.
    pub accept_forced: bool,
    /// What the files that are there hold.
    pub(crate) former: Former,
}

impl RestorePlan {
    /// Decides how to bring a machine back in place.
    pub fn make(
        host: &Host,
        store: &dyn SnapshotStore,
        snapshot: &Snapshot,
        options: &RestoreOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let manifest = catalog::manifest(store, &snapshot.id)?;
        let forced = forced_names(&options.force)?;
        let moved = records::moved(host).of_machine(manifest.machine.id)?;
        // Whoever registered it again by hand has taken it back.
        let is_here = Machine::registered(host, manifest.machine.id)?.is_some();
        let place = Place::decide(host, &manifest, options)?;
        let present = match moved.as_ref().filter(|_| !is_here) {
            Some(moved) if options.accept => Present::left(host, moved),
            Some(moved) => return Err(moved.error()),
            None => Present::find(host, manifest.machine.id, &place.settings_file)?,
        };
        refuse_a_silent_second_life(snapshot, &present, options)?;
        let power_off = match &present.machine {
            Some(machine) => permission::to_restore(machine, options.power_off)?,
            None => false,
        };
        let mut layout = Layout::decide(&manifest, &present, place);
        layout.refuse_if_in_the_way(&manifest, &present)?;
        let mut text = layout.settings(store, snapshot, &manifest)?;
        if options.cold {
            text = layout.without_memory(&text)?;
        }
        let targets = layout.all_targets();
        let intent = RestoreIntent {
            repository: store.id().to_string(),
            repository_location: store.location(),
            snapshot: snapshot.id.to_string(),
            is_clone: false,
            machine: manifest.machine.id,
            machine_name: manifest.machine.name.clone(),
            folder: layout.folder.clone(),
            settings_file: layout.settings_file.clone(),
            settings: text,
            set_aside: settings_to_set_aside(&present, &layout.settings_file, moved.as_ref()),
            files: layout.files.clone(),
            seeds: present.seeds(&targets),
            images: Vec::new(),
            remove: present.superfluous(&targets),
            register: host.virtualbox().is_some(),
            comes_back: moved.is_some(),
            accepts: accepted(snapshot, &manifest, options),
        };
        refuse_if_others_depend(host, store, &intent, &layout, &present, progress)?;
        refuse_if_media_are_taken(host, &intent, &layout)?;
        let portability = Move {
            host,
            store,
            snapshot: &snapshot.id,
            manifest: &manifest,
            intent: &intent,
        }
        .examine(&forced)?;
        Ok(Self {
            portability,
            accept_forced: options.accept_forced,
            former: Former::read(store, options.last_taken),
            snapshot: snapshot.clone(),
            left_behind: present.left_behind(&targets),
            notes: layout.notes,
            manifest,
            intent,
            power_off,
        })
    }

    /// What would be fetched and found locally. Reads those local files once that are not as the last
    /// snapshot left them.
    pub fn estimate(
        &self,
        store: &dyn SnapshotStore,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        Ok(store.plan_restore(&request(&self.intent, &self.former)?, progress)?)
    }
}

/// A machine that is on its way is taken over, and its host remembers that; one that is here already
/// may be brought back to the point at which it moved.
fn refuse_a_silent_second_life(
    snapshot: &Snapshot,
    present: &Present,
    options: &RestoreOptions,
) -> Result<()> {
    if snapshot.migration.is_none() || options.accept || present.machine.is_some() {
        return Ok(());
    }
    Err(Error::OnItsWay {
        name: snapshot.machine_name.clone(),
        snapshot: snapshot.id.short(),
    })
}

fn accepted(
    snapshot: &Snapshot,
    manifest: &Manifest,
    options: &RestoreOptions,
) -> Option<AcceptedMachine> {
    let migration = snapshot.migration.clone().filter(|_| options.accept)?;
    Some(AcceptedMachine {
        machine: manifest.machine.id,
        migration,
        snapshot: snapshot.id.to_string(),
        from: snapshot.hostname.clone(),
        at: jiff::Timestamp::now(),
    })
}

/// Old settings files, and one that lies where the new one goes.
fn settings_to_set_aside(
    present: &Present,
    settings_file: &Path,
    moved: Option<&MovedMachine>,
) -> Vec<PathBuf> {
    let mut files: BTreeSet<PathBuf> = present.settings_files().into_iter().collect();
    files.extend(moved.map(|moved| moved.moved_file.clone()));
    files.extend(
        present
            .machine
            .iter()
            .map(|machine| machine.settings_file.clone()),
    );
    files.insert(settings_file.to_owned());
    files.into_iter().collect()
}

/// Where everything goes.
struct Layout {
    folder: PathBuf,
    settings_file: PathBuf,
    files: Vec<IntentFile>,
    /// Where each medium's main file goes.
    media: BTreeMap<MediumId, PathBuf>,
    notes: Vec<String>,
}

impl Layout {
    fn decide(manifest: &Manifest, present: &Present, place: Place) -> Self {
        let (folder, notes) = match &present.machine {
            Some(machine) => (machine.folder().to_owned(), None),
            None => (place.folder().to_owned(), place.note),
        };
        let mut layout = Self {
            settings_file: folder.join(portable::in_folder(&manifest.settings)),
            folder,
            files: Vec::new(),
            media: BTreeMap::new(),
            notes: notes.into_iter().collect(),
        };
        for file in manifest
            .files
            .iter()
            .filter(|file| file.role != FileRole::Settings)
        {
            layout.place(file, manifest, present);
        }
        layout
    }

    fn place(&mut self, file: &FileRecord, manifest: &Manifest, present: &Present) {
        let medium = manifest
            .media
            .iter()
            .find(|medium| medium.path == file.path)
            .map(|medium| medium.id);
        let target = self.target_of(
            file,
            manifest,
            medium.and_then(|medium| present.location_of(medium)),
        );
        self.media
            .extend(medium.map(|medium| (medium, target.clone())));
        self.files.push(IntentFile {
            path: file.path.clone(),
            target,
        });
    }

    /// Files of the machine folder go into it. Others go where the image is now, else where it was,
    /// else into the machine folder.
    fn target_of(
        &mut self,
        file: &FileRecord,
        manifest: &Manifest,
        now_at: Option<&Path>,
    ) -> PathBuf {
        let inside = self.folder.join(portable::in_folder(&file.path));
        let was_inside = manifest
            .machine
            .settings_file
            .parent()
            .is_some_and(|folder| file.original.starts_with(folder));
        if was_inside {
            return inside;
        }
        if let Some(location) = now_at {
            return location.to_owned();
        }
        if file.original.parent().is_some_and(Path::is_dir) {
            return file.original.clone();
        }
        self.notes.push(format!(
            "the folder of '{}' is not on this host; it goes to '{}'",
            file.original.display(),
            inside.display()
        ));
        inside
    }

    fn all_targets(&self) -> BTreeSet<PathBuf> {
        let files = self.files.iter().map(|file| file.target.clone());
        files.chain([self.settings_file.clone()]).collect()
    }

    fn refuse_if_in_the_way(&self, manifest: &Manifest, present: &Present) -> Result<()> {
        let name = &manifest.machine.name;
        for file in &self.files {
            let medium = self
                .media
                .iter()
                .find(|(_, target)| **target == file.target)
                .map(|(id, _)| *id);
            refuse_if_in_the_way(present, name, &file.target, medium)?;
        }
        refuse_if_in_the_way(present, name, &self.settings_file, None)
    }

    /// The original settings where everything is where it was, else adjusted ones.
    fn settings(
        &self,
        store: &dyn SnapshotStore,
        snapshot: &Snapshot,
        manifest: &Manifest,
    ) -> Result<String> {
        let path = manifest
            .original_settings
            .as_ref()
            .filter(|_| !manifest.registry_was_rebuilt);
        let text = catalog::settings_text(store, &snapshot.id, path.unwrap_or(&manifest.settings))?;
        portable::settings_at(&text, &self.folder, &self.media)
    }

    /// The settings without the machine's own saved state, which is not restored then; those of its
    /// VirtualBox snapshots are.
    fn without_memory(&mut self, text: &str) -> Result<String> {
        let settings = MachineSettings::parse(text, &self.settings_file)?;
        let Some(location) = &settings.state_file else {
            return Ok(text.to_owned());
        };
        let of_snapshots: Vec<_> = settings
            .virtualbox_snapshots()
            .filter_map(|made| made.state_file.as_ref())
            .collect();
        if !of_snapshots.contains(&location) {
            let file = settings.resolve(&self.folder, location);
            self.files.retain(|other| other.target != file);
        }
        let mut edit = SettingsEdit::new(text)?;
        edit.set_state_file(None)?;
        Ok(edit.finish())
    }
}

/// Images that linked clones of other machines depend on must come out of the restore as they are.
fn refuse_if_others_depend(
    host: &Host,
    store: &dyn SnapshotStore,
    intent: &RestoreIntent,
    layout: &Layout,
    present: &Present,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(virtualbox) = host.virtualbox() else {
        return Ok(());
    };
    let media = virtualbox.media()?;
    let refuse = |path: &Path, users: Vec<MachineId>| -> Result<()> {
        Err(Error::OthersDepend {
            path: path.to_owned(),
            dependents: names_of(host, &users)?,
        })
    };
    let others = |medium| {
        let mut users = related_users(medium, &media);
        users.retain(|user| *user != intent.machine);
        users
    };
    let present_media = present
        .inventory
        .iter()
        .flat_map(|inventory| &inventory.media);
    for medium in present_media.filter(|medium| intent.remove.contains(&medium.location)) {
        let users = others(medium.id);
        if !users.is_empty() {
            return refuse(&medium.location, users);
        }
    }
    for (id, target) in &layout.media {
        let users = others(*id);
        if !users.is_empty() && !is_left_as_it_is(store, intent, target, progress)? {
            return refuse(target, users);
        }
    }
    Ok(())
}

fn names_of(host: &Host, machines: &[MachineId]) -> Result<Vec<String>> {
    let name = |id: &MachineId| {
        Ok(Machine::registered(host, *id)?.map_or_else(|| id.to_string(), |machine| machine.name))
    };
    machines.iter().map(name).collect()
}

fn is_left_as_it_is(
    store: &dyn SnapshotStore,
    intent: &RestoreIntent,
    target: &Path,
    progress: &dyn Progress,
) -> Result<bool> {
    let whole = request(intent, &Former::default())?;
    let files: Vec<_> = whole
        .files
        .into_iter()
        .filter(|file| file.target == target)
        .collect();
    let one = RestoreRequest {
        snapshot: whole.snapshot,
        files,
        seeds: Vec::new(),
    };
    let stats = store.plan_restore(&one, progress)?;
    let same_length = std::fs::metadata(target).is_ok_and(|file| file.len() == stats.total_bytes);
    Ok(same_length && stats.in_place_bytes == stats.total_bytes)
}

/// A medium that another machine uses somewhere else would stop the registration.
fn refuse_if_media_are_taken(host: &Host, intent: &RestoreIntent, layout: &Layout) -> Result<()> {
    let Some(virtualbox) = host.virtualbox() else {
        return Ok(());
    };
    for medium in virtualbox.media()? {
        let is_elsewhere = layout
            .media
            .get(&medium.id)
            .is_some_and(|target| *target != medium.location);
        let other = medium.used_by.iter().find(|user| **user != intent.machine);
        if let Some(user) = other.filter(|_| is_elsewhere) {
            return Err(Error::MediumTaken {
                medium: medium.id,
                location: medium.location.clone(),
                user: format!("machine {user}"),
            });
        }
    }
    Ok(())
}
