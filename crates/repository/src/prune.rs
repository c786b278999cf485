//! Giving back the space that no snapshot uses.
//!
//! In two phases, so that nobody has to be kept away. A pack that nobody uses is only marked: index
//! files name it no more, except as one to be deleted (`packs_to_delete`, as rustic does it, which
//! stock restic takes for a pack without an index). It is removed by a prune after the grace period,
//! unless a snapshot needs it again by then. Packs that are partly used are copied first when too much
//! of them is unused. See `survival` for the other side of the agreement.
//!
//! Order: remove what is due, copy, write new index files, remove those that they replace. At every
//! moment each chunk in use is in a pack that an index file names, so that being killed anywhere costs
//! nothing but work. A copy of a chunk that an index file only claims to exist displaces no real one, see
//! `staying`. Memory: the index, one bit a blob, 40 bytes a pack, two megabytes
//! for the blobs that are copied next, and the packs in hand.
//!
//! Refused: a repository with an unreadable index file or snapshot, or with a needed chunk missing.
//! Removing anything might then take away what repairs it.

mod fate;
mod repack;
mod rewrite;
mod staying;
mod usage;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::SignedDuration;
use rustic_core::FileType;
use vrs_progress::{Phase, Progress};

use crate::error::{Error, Result, stop_if_interrupted};
use crate::id::{PackId, SnapshotId};
use crate::index::IndexPack;
use crate::loaded_index::{LoadedIndex, Mark};
use crate::lock::SharedLock;
use crate::repository::ResticRepository;
use crate::sink::Sink;
use crate::store::{PruneOptions, PruneStats};
use crate::survival::{holds, marked_packs};

use fate::Fates;
use usage::Usage;

/// What a prune knows about a repository.
struct Scene<'a> {
    repository: &'a ResticRepository,
    progress: &'a dyn Progress,
    options: &'a PruneOptions,
    snapshots: BTreeSet<SnapshotId>,
    loaded: Arc<LoadedIndex>,
    present: BTreeMap<PackId, u32>,
    usage: Usage,
    /// Copies that turned out to be none, by their place in the index.
    worthless: HashSet<(usize, u32)>,
    /// Packs written since then are left alone, for a snapshot in the making may need them.
    young_after: jiff::Timestamp,
}

/// See [`crate::SnapshotStore::plan_prune`].
pub(crate) fn plan(
    repository: &ResticRepository,
    options: &PruneOptions,
    without: &[SnapshotId],
    progress: &dyn Progress,
) -> Result<PruneStats> {
    let mut snapshots = snapshots_of(repository)?;
    snapshots.retain(|id| !without.contains(id));
    let mut scene = Scene::look(repository, options, snapshots, progress)?;
    let mut recovered_bytes = 0;
    if !scene.usage.missing.is_empty() {
        let needed = scene.needed_marked_packs()?;
        scene.require_found(&needed)?;
        recovered_bytes = needed.iter().map(|pack| u64::from(pack.size_bytes())).sum();
    }
    let fates = staying::decide(&mut scene)?;
    scene.require_nothing_lost(&fates)?;
    let mut stats = fates.stats;
    stats.recovered_bytes = recovered_bytes;
    stats.freed_bytes = scene.due().map(|mark| u64::from(mark.size_bytes)).sum();
    stats.waiting_bytes = stats.waiting_bytes.saturating_sub(stats.freed_bytes);
    Ok(stats)
}

/// See [`crate::SnapshotStore::prune`].
pub(crate) fn run(
    repository: &ResticRepository,
    options: &PruneOptions,
    progress: &dyn Progress,
) -> Result<PruneStats> {
    repository.require_writable()?;
    progress.step("lock repository");
    let lock = SharedLock::acquire_to_prune(repository.vault())?;
    let young = if lock.has_company()? {
        repository.options.upload_time
    } else {
        repository.options.grace
    };
    let sink = Sink::new(repository, progress, lock);
    let (mut scene, mut recovered_bytes) =
        look_until_complete(repository, options, progress, &sink, |all| all)?;
    repository.backend.remove_leftovers();
    scene.leave_alone(young);
    let mut fates = staying::decide(&mut scene)?;
    scene.require_nothing_lost(&fates)?;
    let gone = remove_due(&scene, &sink, &mut fates.stats)?;
    repack::run(&scene, &sink, &mut fates)?;
    rewrite::run(&scene, &sink, &fates, &gone)?;
    // A snapshot that appeared before the marks did looked for none; one that appears from now on
    // looks for them after it has appeared.
    let looked_at = scene.into_snapshots();
    let new = |mut all: BTreeSet<SnapshotId>| {
        all.retain(|id| !looked_at.contains(id));
        all
    };
    let (_, more) = look_until_complete(repository, options, progress, &sink, new)?;
    recovered_bytes = recovered_bytes.saturating_add(more);
    fates.stats.recovered_bytes = recovered_bytes;
    sink.lock.clear()?;
    Ok(fates.stats)
}

/// Takes marked packs back that snapshots need.
pub(crate) fn take_back(repository: &ResticRepository, sink: &Sink<'_>) -> Result<()> {
    let options = PruneOptions::default();
    look_until_complete(repository, &options, sink.progress, sink, |all| all).map(drop)
}

/// Writes the index anew without some packs that are no use. Those whose files are there are marked as if
/// nothing were known of their content, and long enough ago that nobody takes them back; the next prunes
/// remove them.
pub(crate) fn drop_packs(
    repository: &ResticRepository,
    packs: BTreeMap<PackId, u32>,
    sink: &Sink<'_>,
) -> Result<()> {
    let long_ago = repository
        .half_grace()
        .checked_add(SignedDuration::from_mins(1));
    let now = jiff::Timestamp::now();
    let options = PruneOptions {
        now: long_ago
            .and_then(|age| now.checked_sub(age).ok())
            .unwrap_or(now),
        ..PruneOptions::default()
    };
    let scene = Scene::look(repository, &options, BTreeSet::new(), sink.progress)?;
    let fates = Fates::dropping(packs, &scene.present);
    rewrite::run(&scene, sink, &fates, &BTreeSet::new())
}

fn snapshots_of(repository: &ResticRepository) -> Result<BTreeSet<SnapshotId>> {
    let listed = repository.backend.list::<SnapshotId>(FileType::Snapshot)?;
    Ok(listed.into_keys().collect())
}

/// Looks at those snapshots that `pick` chooses, and takes back what was marked and is needed again.
fn look_until_complete<'a>(
    repository: &'a ResticRepository,
    options: &'a PruneOptions,
    progress: &'a dyn Progress,
    sink: &Sink<'_>,
    pick: impl Fn(BTreeSet<SnapshotId>) -> BTreeSet<SnapshotId>,
) -> Result<(Scene<'a>, u64)> {
    let mut recovered_bytes: u64 = 0;
    loop {
        let snapshots = pick(snapshots_of(repository)?);
        let scene = Scene::look(repository, options, snapshots, progress)?;
        if scene.usage.missing.is_empty() {
            return Ok((scene, recovered_bytes));
        }
        let needed = scene.needed_marked_packs()?;
        scene.require_found(&needed)?;
        let bytes: u64 = needed.iter().map(|pack| u64::from(pack.size_bytes())).sum();
        recovered_bytes = recovered_bytes.saturating_add(bytes);
        progress.step("take marked packs back");
        sink.write_index_of(needed)?;
    }
}

/// Removes the packs whose grace period is over. Returns all packs without which the index can be from
/// now on.
fn remove_due(
    scene: &Scene<'_>,
    sink: &Sink<'_>,
    stats: &mut PruneStats,
) -> Result<BTreeSet<PackId>> {
    let due: Vec<Mark> = scene.due().collect();
    let mut gone = BTreeSet::new();
    // Whoever wrote something since the look may need one of them. There will be another prune.
    if due.is_empty() || !scene.is_up_to_date()? {
        return Ok(gone);
    }
    scene.progress.phase(Phase {
        name: "pruning",
        subject: "packs".to_owned(),
        total_bytes: None,
    });
    for mark in due {
        scene.go_on(sink)?;
        if scene.present.contains_key(&mark.pack) {
            scene.progress.step("remove pack");
            scene.repository.backend.remove(FileType::Pack, mark.pack)?;
            let size_bytes = mark.size_bytes.into();
            stats.freed_bytes = stats.freed_bytes.saturating_add(size_bytes);
            stats.waiting_bytes = stats.waiting_bytes.saturating_sub(size_bytes);
        }
        gone.insert(mark.pack);
    }
    Ok(gone)
}

impl<'a> Scene<'a> {
    /// Snapshots are listed before the index is read, so that the index knows all that they need, and
    /// packs after it, so that all that it names were there.
    fn look(
        repository: &'a ResticRepository,
        options: &'a PruneOptions,
        snapshots: BTreeSet<SnapshotId>,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let loaded = repository.index()?;
        let present = repository.backend.list(FileType::Pack)?;
        if let Some(unreadable) = loaded.unreadable.first() {
            return Err(Error::NotPrunable {
                location: repository.backend.location().to_owned(),
                reason: format!("an index file cannot be read ({unreadable})"),
            });
        }
        let usage = Usage::of(repository, &loaded, &snapshots, progress)?;
        let mut scene = Self {
            repository,
            progress,
            options,
            snapshots,
            loaded,
            present,
            usage,
            worthless: HashSet::new(),
            young_after: jiff::Timestamp::MIN,
        };
        scene.leave_alone(repository.options.grace);
        Ok(scene)
    }

    /// Gives back the memory for all else.
    fn into_snapshots(self) -> BTreeSet<SnapshotId> {
        self.snapshots
    }

    /// Leaves packs alone that are no older.
    fn leave_alone(&mut self, age: SignedDuration) {
        let since = self.options.now.checked_sub(age);
        self.young_after = since.unwrap_or(jiff::Timestamp::MIN);
    }

    fn needed_marked_packs(&self) -> Result<Vec<IndexPack>> {
        marked_packs(self.repository, &self.loaded, |mark, pack| {
            self.present.contains_key(&mark.pack) && holds(pack, &self.usage.missing)
        })
    }

    /// Marks whose grace period is over.
    fn due(&self) -> impl Iterator<Item = Mark> + '_ {
        let grace = self.repository.options.grace;
        let is_due = move |mark: &&Mark| {
            mark.time
                .is_some_and(|time| self.options.now.duration_since(time) > grace)
        };
        self.loaded.marks.values().filter(is_due).copied()
    }

    /// Whether neither a snapshot nor an index file came since the look.
    fn is_up_to_date(&self) -> Result<bool> {
        let backend = &self.repository.backend;
        let mut snapshots = backend.list::<SnapshotId>(FileType::Snapshot)?.into_keys();
        Ok(snapshots.all(|id| self.snapshots.contains(&id))
            && self.repository.index_files()? == self.loaded.files)
    }

    /// Whether any marked pack has what is missing elsewhere.
    fn require_found(&self, needed: &[IndexPack]) -> Result<()> {
        if !needed.is_empty() {
            return Ok(());
        }
        let missing = self.usage.missing.len();
        Err(self.not_prunable(format!(
            "{missing} chunks that snapshots need are in no index"
        )))
    }

    fn require_nothing_lost(&self, fates: &Fates) -> Result<()> {
        match fates.lost {
            0 => Ok(()),
            lost => Err(self.not_prunable(format!(
                "{lost} chunks that snapshots need lie in packs that are missing or have a wrong size"
            ))),
        }
    }

    fn not_prunable(&self, reason: String) -> Error {
        Error::NotPrunable {
            location: self.repository.backend.location().to_owned(),
            reason,
        }
    }

    /// Between two steps: whether to go on. Keeps the lock alive.
    fn go_on(&self, sink: &Sink<'_>) -> Result<()> {
        stop_if_interrupted(self.progress)?;
        sink.lock.renew()
    }
}
