//! Taking a snapshot of a machine that is at rest.
//!
//! Guarantees: the machine is not touched, not even with a VirtualBox snapshot. The snapshot
//! appears only if every file was the same before and after reading and the machine's state did
//! not change meanwhile. A file that is known unchanged is not read.
//!
//! Not guaranteed: that a program which changes an image and puts back its size, inode and both
//! times in nanoseconds is noticed.

mod plan;

use jiff::Timestamp;
use vrs_progress::{Phase, Progress};
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{
    FileSource, FileStamp, Ingest, IngestStats, SnapshotLabel, SnapshotStore,
};

pub use plan::{FilePlan, TakeOptions, TakePlan};

use crate::error::{Error, Result, stop_if_interrupted};
use crate::host::Host;
use crate::lock::MachineLock;
use crate::manifest::{FileRecord, MANIFEST_VERSION, MachineRecord, Manifest, Stamp, own_path};
use crate::{grid, platform, portable, recover, snapshot};

/// A snapshot that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its id.
    pub id: SnapshotId,
    /// What it says about the machine.
    pub manifest: Manifest,
    /// What it cost.
    pub stats: IngestStats,
}

/// Carries a plan out.
pub fn execute(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &TakePlan,
    progress: &dyn Progress,
) -> Result<Taken> {
    let _lock = MachineLock::take(&host.state_folder, plan.machine.id, &plan.machine.name)?;
    recover::refuse_if_owed(host, plan.machine.id)?;
    let begun = Timestamp::now();
    let mut ingest = store.ingest(progress)?;
    let mut files = Vec::with_capacity(plan.files.len());
    for file in &plan.files {
        stop_if_interrupted(
            progress,
            "nothing was changed; what was sent so far is reused by the next `vrs take`",
        )?;
        files.push(ingest_file(plan, file, ingest.as_mut(), progress)?);
    }
    let manifest = manifest(host, plan, files, begun, ingest.as_mut())?;
    verify_unchanged(host, plan, &manifest)?;
    let (id, stats) = ingest.commit(&label(host, plan, begun))?;
    Ok(Taken {
        id,
        manifest,
        stats,
    })
}

fn ingest_file(
    plan: &TakePlan,
    file: &FilePlan,
    ingest: &mut dyn Ingest,
    progress: &dyn Progress,
) -> Result<FileRecord> {
    refuse_if_written_to(&file.source)?;
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
    let ingested = ingest
        .file(&file.source)
        .map_err(|error| as_changed(plan, file, error))?;
    // What the plan vouched for was not read, so it has to be as the plan saw it.
    if ingested.stamp != file.stamp {
        return Err(changed(plan, file.source.local.display().to_string()));
    }
    Ok(FileRecord {
        path: file.source.path.to_string(),
        role: file.role,
        original: file.source.local.clone(),
        settled: is_settled(&ingested.stamp, read_at),
        stamp: Stamp::from(ingested.stamp),
        grid_bytes: grid::size_of(&file.source.chunking),
    })
}

fn as_changed(plan: &TakePlan, file: &FilePlan, error: vrs_repository::error::Error) -> Error {
    if error.kind() == vrs_repository::ErrorKind::Changed {
        changed(plan, file.source.local.display().to_string())
    } else {
        error.into()
    }
}

fn changed(plan: &TakePlan, what: String) -> Error {
    Error::ChangedWhileRead {
        name: plan.machine.name.clone(),
        what,
    }
}

fn refuse_if_written_to(source: &FileSource) -> Result<()> {
    match platform::writers_of(&source.local)?.into_iter().next() {
        Some(holder) => Err(Error::FileInUse {
            path: source.local.clone(),
            holder,
        }),
        None => Ok(()),
    }
}

/// Whether a change after reading would show in the stamp.
///
/// File times move in ticks: of a few milliseconds on Linux, of two seconds on FAT. A file that was
/// changed in the tick in which it was read could change once more without a trace; git's index
/// guards against the same. Such a file is read again the next time.
fn is_settled(stamp: &FileStamp, read_at: Timestamp) -> bool {
    const COARSEST_TICK_NS: i128 = 2_000_000_000;
    let latest = stamp.mtime_ns.max(stamp.ctime_ns);
    latest.saturating_add(COARSEST_TICK_NS) < read_at.as_nanosecond()
}

fn manifest(
    host: &Host,
    plan: &TakePlan,
    files: Vec<FileRecord>,
    begun: Timestamp,
    ingest: &mut dyn Ingest,
) -> Result<Manifest> {
    let inventory = &plan.inventory;
    let (settings_text, adjusted) = portable::stored_settings(inventory)?;
    let settings = plan.settings_path()?;
    let mut manifest = Manifest {
        format: Manifest::format_name(),
        version: MANIFEST_VERSION,
        written_by: env!("CARGO_PKG_VERSION").to_owned(),
        machine: MachineRecord {
            id: plan.machine.id,
            name: plan.machine.name.clone(),
            os_type: inventory.settings.os_type.clone(),
            state: plan.machine.state.to_string(),
            settings_file: plan.machine.settings_file.clone(),
        },
        name: plan.options.name.clone(),
        begun,
        host: host.record(),
        folder: inventory.folder.clone(),
        settings: settings.to_string(),
        original_settings: None,
        registry_was_rebuilt: inventory.needs_own_registry(),
        files,
        media: inventory.media.clone(),
        not_included: inventory.not_included.clone(),
    };
    if adjusted {
        let original = own_path(&inventory.folder, "original.vbox")?;
        ingest.discard(settings);
        ingest.bytes(&original, inventory.settings_text.as_bytes())?;
        ingest.bytes(settings, settings_text.as_bytes())?;
        manifest.original_settings = Some(original.to_string());
    }
    ingest.bytes(&Manifest::path_in(&inventory.folder)?, &manifest.to_json()?)?;
    Ok(manifest)
}

/// The last look before the snapshot becomes visible: every file as it was read, the machine as it
/// was planned.
fn verify_unchanged(host: &Host, plan: &TakePlan, manifest: &Manifest) -> Result<()> {
    for file in &manifest.files {
        let now = FileStamp::of(&file.original)
            .map_err(|error| Error::io("look at", &file.original, error))?;
        if Stamp::from(now) != file.stamp {
            return Err(changed(plan, file.original.display().to_string()));
        }
    }
    let now = plan.machine.again(host)?;
    if now != plan.machine {
        return Err(changed(plan, format!("it is {} now", now.state)));
    }
    // A machine that was started and stopped meanwhile shows here: VirtualBox writes the time of each
    // change of state. Its answers give that time too, but not the same one after it read the file.
    let text = std::fs::read_to_string(&plan.machine.settings_file)
        .map_err(|error| Error::io("read", &plan.machine.settings_file, error))?;
    if text != plan.inventory.settings_text {
        return Err(changed(plan, "its settings".to_owned()));
    }
    Ok(())
}

fn label(host: &Host, plan: &TakePlan, time: Timestamp) -> SnapshotLabel {
    let machine = &plan.machine;
    SnapshotLabel {
        time,
        hostname: host.name.clone(),
        tags: snapshot::tags_for(
            machine.id,
            &machine.name,
            plan.options.name.as_deref(),
            &plan.options.tags,
        ),
        description: plan.options.description.clone(),
    }
}
