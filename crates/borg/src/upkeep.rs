//! What keeps a repository in order: deleting, labels, space, checks.

use vrs_progress::{Phase, Progress};
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{
    CheckOptions, CheckReport, Loss, PruneOptions, PruneStats, SnapshotWords,
};
use vrs_repository::{Error, Result};

use crate::answers::LogLine;
use crate::archive::{Archive, Listing};
use crate::repository::BorgRepository;

impl BorgRepository {
    pub(crate) fn delete_archives(
        &self,
        snapshots: &[SnapshotId],
        progress: &dyn Progress,
    ) -> Result<()> {
        let names: Result<Vec<String>> = snapshots
            .iter()
            .map(|id| Ok(self.archive(id)?.name))
            .collect();
        self.delete_names(names?, Some(progress))?;
        let left = self.refresh()?.archives;
        match left.iter().find(|archive| snapshots.contains(&archive.id)) {
            None => Ok(()),
            Some(archive) => {
                let reason = format!("the archive '{}' is still listed", archive.name);
                Err(self.borg.failed("delete from", reason))
            }
        }
    }

    fn delete_names(&self, names: Vec<String>, progress: Option<&dyn Progress>) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        if let Some(progress) = progress {
            progress.step("remove archive");
        }
        let location = [self.borg.location.argument()];
        let arguments = location.into_iter().chain(names);
        self.borg
            .answer("delete from", &["delete"], arguments, None)?;
        Ok(())
    }

    /// Removes the hidden archive of a finished snapshot, and those that an ended vrs left. They do no
    /// harm, so a failure only warns.
    pub(crate) fn remove_leftovers(&self, own: &str, progress: &dyn Progress) {
        let removed = self.refresh().and_then(|Listing { archives, .. }| {
            let is_own = |archive: &Archive| archive.name.starts_with(own);
            let wanted = |archive: &&Archive| is_own(archive) || archive.is_left_over();
            let names = archives.iter().filter(wanted);
            self.delete_names(
                names.map(|archive| archive.name.clone()).collect(),
                Some(progress),
            )
        });
        if let Err(error) = removed {
            progress.warn(&format!(
                "an archive that only helped to make the snapshot was not removed: {error}"
            ));
        }
    }

    pub(crate) fn relabel_archive(
        &self,
        snapshot: &SnapshotId,
        words: &SnapshotWords,
        progress: &dyn Progress,
    ) -> Result<SnapshotId> {
        let archive = self.archive(snapshot)?;
        let label = archive.label.ok_or_else(|| Error::InvalidRequest {
            subject: format!("the archive '{}'", archive.name),
            reason: "vrs did not make it, so it has no tags and no description",
        })?;
        let label = label.with_words(words);
        progress.step("label archive");
        let arguments = [
            "--comment".to_owned(),
            label.to_comment(),
            self.borg.location.archive_argument(&archive.name),
        ];
        self.borg
            .answer("write to", &["recreate"], arguments, None)?;
        let now = self.refresh()?.archives;
        let made = now.into_iter().find(|other| other.name == archive.name);
        let made = made.filter(|made| made.label.as_ref() == Some(&label));
        made.map(|made| made.id).ok_or_else(|| {
            let reason = format!("the archive '{}' has not got its new label", archive.name);
            self.borg.failed("write to", reason)
        })
    }

    /// borg says what an archive uses alone, and not what several would leave together: at least so
    /// much comes back.
    pub(crate) fn plan_compact(
        &self,
        without: &[SnapshotId],
        progress: &dyn Progress,
    ) -> Result<PruneStats> {
        let used_bytes = self.info(Some(progress))?.cache.stats.unique_csize;
        let mut stats = PruneStats {
            used_bytes,
            ..PruneStats::default()
        };
        for id in without {
            let name = self.archive(id)?.name;
            let archive = [self.borg.location.archive_argument(&name)];
            let info: crate::answers::Info =
                self.borg
                    .json("read", &["info", "--json"], archive, Some(progress))?;
            for archive in info.archives {
                let freed = archive.stats.deduplicated_size;
                stats.unused_bytes = stats.unused_bytes.saturating_add(freed);
                stats.used_bytes = stats.used_bytes.saturating_sub(freed);
            }
        }
        Ok(stats)
    }

    /// `borg compact`. Archives that an ended vrs left go first.
    pub(crate) fn compact(
        &self,
        options: &PruneOptions,
        progress: &dyn Progress,
    ) -> Result<PruneStats> {
        let left_over = self
            .refresh()?
            .archives
            .into_iter()
            .filter(Archive::is_left_over);
        self.delete_names(
            left_over.map(|archive| archive.name).collect(),
            Some(progress),
        )?;
        progress.phase(Phase {
            name: "compacting",
            subject: String::new(),
            total_bytes: None,
        });
        progress.step("compact repository");
        let arguments = [
            "--threshold".to_owned(),
            options.max_unused_percent.min(100).to_string(),
            self.borg.location.argument(),
        ];
        let (_, ended) = self
            .borg
            .run(&["--info", "compact"], arguments, Some(progress))?;
        self.borg.require_success("compact", &ended)?;
        Ok(PruneStats {
            used_bytes: self.info(Some(progress))?.cache.stats.unique_csize,
            freed_bytes: ended.log.iter().find_map(freed_bytes).unwrap_or(0),
            ..PruneStats::default()
        })
    }

    /// `borg check`. Any share of the data means all of it: borg knows no less.
    pub(crate) fn check_archives(
        &self,
        options: &CheckOptions,
        progress: &dyn Progress,
    ) -> Result<CheckReport> {
        progress.phase(Phase {
            name: "checking",
            subject: String::new(),
            total_bytes: None,
        });
        let archives = self.refresh()?.archives;
        let log = self.run_check(&["check"], options, progress)?;
        let mut report = CheckReport::default();
        for line in &log {
            let message = line.message.trim();
            match line.levelname.as_str() {
                "ERROR" | "CRITICAL" => {
                    report.errors.push(message.to_owned());
                    report.losses.extend(loss(message, &archives));
                }
                "WARNING" if !is_of_index(line) => report.warnings.push(message.to_owned()),
                _ => {}
            }
        }
        report.losses.extend(self.losses_of_repairs(&archives)?);
        let damaged = report.losses.iter().map(|loss| loss.snapshot);
        let mut damaged: Vec<SnapshotId> = damaged.collect();
        damaged.sort_unstable();
        damaged.dedup();
        report.damaged_snapshots = damaged;
        Ok(report)
    }

    /// Files in which an earlier repair put zeros in place of what was lost.
    fn losses_of_repairs(&self, archives: &[Archive]) -> Result<Vec<Loss>> {
        let mut losses = Vec::new();
        for archive in archives.iter().filter(|archive| archive.label.is_some()) {
            let Ok(files) = self.archived_files(&archive.id) else {
                losses.push(Loss {
                    snapshot: archive.id,
                    path: String::new(),
                    ranges: Vec::new(),
                });
                continue;
            };
            let damaged = files.iter().filter(|file| !file.is_whole);
            losses.extend(damaged.map(|file| Loss {
                snapshot: archive.id,
                path: file.path.to_string(),
                ranges: Vec::new(),
            }));
        }
        Ok(losses)
    }

    /// `borg check --repair`: what is lost becomes zeros that borg remembers as lost, and a later repair
    /// puts back what a snapshot stored again meanwhile.
    pub(crate) fn repair_archives(
        &self,
        options: &CheckOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<String>> {
        progress.step("repair repository");
        let log = self.run_check(&["check", "--repair"], options, progress)?;
        let done = log.into_iter().filter(|line| {
            matches!(line.levelname.as_str(), "WARNING" | "ERROR") && !is_of_index(line)
        });
        Ok(done.map(|line| line.message.trim().to_owned()).collect())
    }

    /// What borg found. It ends with 1 when that is damage.
    fn run_check(
        &self,
        verb: &[&str],
        options: &CheckOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<LogLine>> {
        let mut arguments = Vec::new();
        if options.read_percent > 0 {
            arguments.push("--verify-data".to_owned());
        }
        arguments.push(self.borg.location.argument());
        let (_, ended) = self.borg.run(verb, arguments, Some(progress))?;
        let is_report = ended.status.code() == Some(1) && !ended.log.is_empty();
        if is_report || ended.status.success() {
            return Ok(ended.log);
        }
        Err(self.borg.error_of("check", &ended))
    }
}

/// One for each chunk, when the index is found wrong, after an error that says so.
fn is_of_index(line: &LogLine) -> bool {
    line.message.starts_with("ID: ")
}

/// "compaction freed about 3.76 kB repository space."
fn freed_bytes(line: &LogLine) -> Option<u64> {
    let rest = line.message.split_once("freed about ")?.1;
    let mut words = rest.split_whitespace();
    let number: f64 = words.next()?.parse().ok()?;
    let unit: f64 = match words.next()? {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "PB" => 1e15,
        _ => return None,
    };
    // Already rounded by borg; negative when it wrote more than it removed.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some((number * unit).max(0.0) as u64)
}

/// "web-2026: web/web.vdi: New missing file chunk detected (Byte 0-524288, Chunk 00ff). ..."
fn loss(message: &str, archives: &[Archive]) -> Option<Loss> {
    let (place, rest) = message.split_once(": New missing file chunk detected (Byte ")?;
    let (range, _) = rest.split_once(',')?;
    let (start, end) = range.split_once('-')?;
    let of_archive = |archive: &&Archive| {
        let rest = place.strip_prefix(&archive.name);
        rest.is_some_and(|rest| rest.starts_with(": "))
    };
    let archive = archives.iter().find(of_archive)?;
    let path = place.strip_prefix(&archive.name)?.strip_prefix(": ")?;
    Some(Loss {
        snapshot: archive.id,
        path: path.to_owned(),
        ranges: std::iter::once(start.parse().ok()?..end.parse().ok()?).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> LogLine {
        LogLine {
            levelname: "INFO".to_owned(),
            message: message.to_owned(),
            msgid: String::new(),
        }
    }

    #[test]
    fn freed_space_is_understood() {
        let freed = |number: &str| {
            freed_bytes(&line(&format!(
                "compaction freed about {number} repository space."
            )))
        };
        assert_eq!(freed("3.76 kB"), Some(3760));
        assert_eq!(freed("0 B"), Some(0));
        assert_eq!(freed("-40 B"), Some(0));
        assert_eq!(freed("much"), None);
    }
}
