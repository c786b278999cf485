//! What is read into a snapshot: a machine at rest, or what a capture froze of a running one.

use std::time::Duration;

use jiff::Timestamp;
use vrs_progress::{Phase, Progress};
use vrs_repository::store::{FileStamp, Ingest, SnapshotLabel, SnapshotStore, TreePath};

use super::plan::{FilePlan, TakePlan};
use crate::error::{Error, Result, stop_if_interrupted};
use crate::host::Host;
use crate::inventory::Inventory;
use crate::machine::Machine;
use crate::manifest::{
    CaptureRecord, FileRecord, FileRole, MANIFEST_VERSION, MachineRecord, Manifest, Stamp, own_path,
};
use crate::tracking::{self, ChangeLists, Tracker};
use crate::{grid, platform, portable, snapshot, ticks};

/// A machine while it is read.
pub(super) struct Subject<'a> {
    plan: &'a TakePlan,
    machine: Machine,
    inventory: Inventory,
    files: Vec<FilePlan>,
    /// How it was made to hold still.
    capture: Option<CaptureRecord>,
    /// The settings on disk, of a machine that is at rest while it is read.
    settings_on_disk: Option<String>,
    /// Whether the settings to store are others.
    has_own_settings: bool,
}

impl<'a> Subject<'a> {
    /// The machine as it was planned.
    pub(super) fn at_rest(host: &Host, plan: &'a TakePlan) -> Result<Self> {
        Ok(Self {
            plan,
            machine: plan.machine.clone(),
            inventory: plan.to_store(host, &plan.inventory)?,
            files: plan.files.clone(),
            capture: None,
            settings_on_disk: Some(plan.inventory.settings_text.clone()),
            has_own_settings: !plan.skipped.is_empty(),
        })
    }

    /// A machine at rest that is another now than it was planned, by what vrs did to it.
    pub(super) fn at_rest_again(
        host: &Host,
        plan: &'a TakePlan,
        machine: Machine,
        mut found: Inventory,
    ) -> Result<Self> {
        // VirtualBox's copy of the settings before knows what is gone.
        found
            .files
            .retain(|file| file.role != FileRole::PreviousSettings);
        let inventory = plan.to_store(host, &found)?;
        Ok(Self {
            plan,
            files: plan.files_of(&inventory)?,
            machine,
            inventory,
            capture: None,
            settings_on_disk: Some(found.settings_text),
            has_own_settings: !plan.skipped.is_empty(),
        })
    }

    /// What a capture holds of a machine that ran. The inventory's settings are the ones to store.
    pub(super) fn captured(
        host: &Host,
        plan: &'a TakePlan,
        machine: Machine,
        held: &Inventory,
        settings_on_disk: Option<String>,
        capture: CaptureRecord,
    ) -> Result<Self> {
        let inventory = plan.to_store(host, held)?;
        let is_on_disk = settings_on_disk.as_ref() == Some(&held.settings_text);
        Ok(Self {
            plan,
            files: plan.files_of(&inventory)?,
            capture: Some(capture),
            machine,
            inventory,
            has_own_settings: !is_on_disk || !plan.skipped.is_empty(),
            settings_on_disk,
        })
    }

    /// Finds out what need not be read, if the user wants that, while all files hold still.
    pub(super) fn track<'b>(
        &mut self,
        host: &'b Host,
        store: &'b dyn SnapshotStore,
        lists: ChangeLists,
        progress: &'b dyn Progress,
    ) -> Option<Tracker<'b>>
    where
        'a: 'b,
    {
        if !self.plan.options.track {
            tracking::forget(host, self.machine.id, progress);
            return None;
        }
        let files = &mut self.files;
        Some(Tracker::begin(
            host, store, self.plan, lists, files, progress,
        ))
    }

    /// Tells how long the machine stood still in the end.
    pub(super) fn set_paused(&mut self, paused: Option<Duration>) {
        if let Some(capture) = &mut self.capture {
            capture.paused_ms = paused.and_then(|paused| u64::try_from(paused.as_millis()).ok());
        }
    }

    /// Stores every file.
    pub(super) fn store_files(
        &self,
        ingest: &mut dyn Ingest,
        progress: &dyn Progress,
    ) -> Result<Vec<FileRecord>> {
        let mut records = Vec::with_capacity(self.files.len());
        for file in &self.files {
            stop_if_interrupted(
                progress,
                "nothing was changed; what was sent so far is reused by the next `vrs take`",
            )?;
            match file.role {
                // The running machine's own say what it is now.
                FileRole::Settings if self.has_own_settings => {
                    records.push(record(file, file.stamp, false));
                }
                FileRole::PreviousSettings if self.has_own_settings => {}
                _ => records.push(self.store_file(file, ingest, progress)?),
            }
        }
        Ok(records)
    }

    fn store_file(
        &self,
        file: &FilePlan,
        ingest: &mut dyn Ingest,
        progress: &dyn Progress,
    ) -> Result<FileRecord> {
        platform::refuse_if_written_to(&file.source.local)?;
        progress.phase(Phase {
            name: "reading",
            subject: file
                .source
                .path
                .as_str()
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned(),
            total_bytes: Some(file.stamp.size_bytes),
        });
        let read_at = Timestamp::now();
        let ingested = ingest.file(&file.source).map_err(|error| {
            if error.kind() == vrs_repository::ErrorKind::Changed {
                self.changed(file.source.local.display().to_string())
            } else {
                error.into()
            }
        })?;
        // What the plan vouched for was not read, so it has to be as the plan saw it.
        if ingested.stamp != file.stamp {
            return Err(self.changed(file.source.local.display().to_string()));
        }
        let settled = ticks::is_settled(&ingested.stamp, read_at);
        Ok(record(file, ingested.stamp, settled))
    }

    /// The last look before the snapshot becomes visible: every file as it was read, a machine at rest
    /// as it was planned.
    pub(super) fn verify(&self, host: &Host, files: &[FileRecord]) -> Result<()> {
        self.verify_files(files)?;
        let Some(settings_on_disk) = &self.settings_on_disk else {
            return Ok(());
        };
        self.machine.verify_unchanged(host)?;
        // A machine that was started and stopped meanwhile shows here: VirtualBox writes the time of
        // each change of state. Its answers give that time too, but not the same one after it read
        // the file.
        let text = std::fs::read_to_string(&self.machine.settings_file)
            .map_err(|error| Error::io("read", &self.machine.settings_file, error))?;
        if text != *settings_on_disk {
            return Err(self.changed("its settings".to_owned()));
        }
        Ok(())
    }

    /// Every file is still as it was read.
    fn verify_files(&self, files: &[FileRecord]) -> Result<()> {
        let is_read =
            |file: &&FileRecord| !(self.has_own_settings && file.role == FileRole::Settings);
        for file in files.iter().filter(is_read) {
            let now = FileStamp::of(&file.original)
                .map_err(|error| Error::io("look at", &file.original, error))?;
            if Stamp::from(now) != file.stamp {
                return Err(self.changed(file.original.display().to_string()));
            }
        }
        Ok(())
    }

    pub(super) fn changed(&self, what: String) -> Error {
        Error::ChangedWhileRead {
            name: self.machine.name.clone(),
            what,
        }
    }

    /// Stores the settings and the manifest.
    pub(super) fn store_manifest(
        &self,
        host: &Host,
        files: Vec<FileRecord>,
        begun: Timestamp,
        set: Option<&str>,
        ingest: &mut dyn Ingest,
    ) -> Result<Manifest> {
        let inventory = &self.inventory;
        let (settings_text, adjusted) = portable::stored_settings(inventory)?;
        let settings = self.settings_path()?;
        let mut manifest = Manifest {
            format: Manifest::format_name(),
            version: MANIFEST_VERSION,
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            machine: self.machine_record(),
            name: self.plan.options.name.clone(),
            begun,
            host: host.record(),
            folder: inventory.folder.clone(),
            settings: settings.to_string(),
            original_settings: None,
            registry_was_rebuilt: inventory.needs_own_registry(),
            files,
            media: inventory.media.clone(),
            not_included: inventory.not_included.clone(),
            capture: self.capture.clone(),
            set: set.map(ToOwned::to_owned),
        };
        if adjusted {
            let original = own_path(&inventory.folder, "original.vbox")?;
            ingest.bytes(&original, inventory.settings_text.as_bytes())?;
            manifest.original_settings = Some(original.to_string());
        }
        if adjusted || self.has_own_settings {
            ingest.discard(settings);
            ingest.bytes(settings, settings_text.as_bytes())?;
        }
        ingest.bytes(&Manifest::path_in(&inventory.folder)?, &manifest.to_json()?)?;
        Ok(manifest)
    }

    fn machine_record(&self) -> MachineRecord {
        let state = if self.has_own_settings {
            self.inventory.settings.resting_state()
        } else {
            self.machine.state.clone()
        };
        MachineRecord {
            id: self.machine.id,
            name: self.machine.name.clone(),
            os_type: self.inventory.settings.os_type.clone(),
            state: state.to_string(),
            settings_file: self.machine.settings_file.clone(),
        }
    }

    /// Where the settings file is stored.
    fn settings_path(&self) -> Result<&TreePath> {
        self.inventory
            .settings_path()
            .ok_or_else(|| Error::MissingFile {
                name: self.machine.name.clone(),
                path: self.machine.settings_file.clone(),
            })
    }

    /// What the snapshot is called in the list.
    pub(super) fn label(&self, host: &Host, time: Timestamp, set: Option<&str>) -> SnapshotLabel {
        let options = &self.plan.options;
        SnapshotLabel {
            time,
            hostname: host.name.clone(),
            tags: snapshot::tags_for(
                self.machine.id,
                &self.machine.name,
                options.name.as_deref(),
                set,
                options.migration.as_deref(),
                &options.tags,
            ),
            description: options.description.clone(),
        }
    }
}

fn record(file: &FilePlan, stamp: FileStamp, settled: bool) -> FileRecord {
    FileRecord {
        path: file.source.path.to_string(),
        role: file.role,
        original: file.source.local.clone(),
        settled,
        stamp: Stamp::from(stamp),
        grid_bytes: grid::size_of(&file.source.chunking),
    }
}
