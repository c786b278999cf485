//! The archives of a repository, and what each of them is.

use std::time::Duration;

use vrs_repository::Result;
use vrs_repository::id::SnapshotId;
use vrs_repository::local;
use vrs_repository::store::{ORIGINAL, SnapshotRecord};

use crate::answers::{self, ArchiveList, ListedArchive};
use crate::label::Label;
use crate::program::Borg;

/// What an archive in the making is called: this, the host, the process and a random part.
const INCOMPLETE: &str = "vrs-incomplete-";
/// What borg appends to the names of its own unfinished ones.
const UNFINISHED: [&str; 2] = [".checkpoint", ".recreate"];

/// How the script that vrs comes from named its archives: the machine, the date, and one of these.
const ORIGINALS: [&str; 2] = ["-online", "-offline"];

/// An archive as the list shows it.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    pub(crate) id: SnapshotId,
    pub(crate) name: String,
    /// When borg began it.
    pub(crate) begun: jiff::Timestamp,
    /// Where borg ran.
    pub(crate) hostname: String,
    /// None: vrs did not make it, or did not finish it.
    pub(crate) label: Option<Label>,
}

/// What a repository holds.
pub(crate) struct Listing {
    /// As borg writes it.
    pub(crate) repository_id: String,
    /// Unfinished ones among them.
    pub(crate) archives: Vec<Archive>,
    /// One text for each that cannot be understood.
    pub(crate) unreadable: Vec<String>,
}

/// Lists all archives. borg reads no more than their headers for that.
pub(crate) fn list(borg: &Borg) -> Result<Listing> {
    let format = [
        "--json",
        "--consider-checkpoints",
        "--format",
        "{comment}{hostname}",
        &borg.location.argument(),
    ];
    let list: ArchiveList = borg.json("list", &["list"], format, None)?;
    let mut listing = Listing {
        repository_id: list.repository.id,
        archives: Vec::with_capacity(list.archives.len()),
        unreadable: Vec::new(),
    };
    for listed in list.archives {
        let name = listed.name.clone();
        match Archive::of(listed) {
            Some(archive) => listing
                .archives
                .push(archive.after(listing.archives.last())),
            None => listing
                .unreadable
                .push(format!("archive '{name}': borg's list is not understood")),
        }
    }
    Ok(listing)
}

impl Archive {
    fn of(listed: ListedArchive) -> Option<Self> {
        Some(Self {
            id: SnapshotId::from_hex(&listed.id)?,
            begun: answers::time(&listed.start)?,
            label: Label::of_comment(&listed.comment).filter(|_| !is_unfinished(&listed.name)),
            name: listed.name,
            hostname: listed.hostname,
        })
    }

    /// borg lists archives in the order in which they were begun, but tells whole seconds only.
    fn after(mut self, previous: Option<&Self>) -> Self {
        if let Some(previous) = previous
            && self.begun.as_second() == previous.begun.as_second()
        {
            let later = previous.begun.checked_add(Duration::from_micros(1));
            self.begun = later.unwrap_or(self.begun);
        }
        self
    }

    /// As a snapshot that vrs or its original made, if it is one.
    pub(crate) fn record(&self) -> Option<SnapshotRecord> {
        let Some(label) = self.label.clone() else {
            return self.is_original().then(|| self.original_record());
        };
        Some(SnapshotRecord {
            id: self.id,
            time: label.time,
            hostname: label.hostname,
            tags: label.tags,
            description: label.description,
            size_bytes: label.size_bytes,
            added_bytes: label.added_bytes,
        })
    }

    fn is_original(&self) -> bool {
        let is_named = ORIGINALS.iter().any(|end| self.name.ends_with(end));
        is_named && !is_unfinished(&self.name)
    }

    fn original_record(&self) -> SnapshotRecord {
        SnapshotRecord {
            id: self.id,
            time: self.begun,
            hostname: self.hostname.clone(),
            tags: vec![ORIGINAL.to_owned()],
            description: Some(format!("borg archive {}", self.name)),
            size_bytes: None,
            added_bytes: None,
        }
    }

    /// Whether it is what an ended vrs of this host left behind.
    pub(crate) fn is_left_over(&self) -> bool {
        let Some(rest) = self.name.strip_prefix(INCOMPLETE) else {
            return false;
        };
        let own = rest
            .strip_prefix(&host_part())
            .and_then(|rest| rest.strip_prefix('-'));
        let pid = own.and_then(|rest| rest.split('-').next()?.parse().ok());
        pid.is_some_and(|pid| pid != std::process::id() && !local::is_running(pid))
    }
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with(INCOMPLETE) || UNFINISHED.iter().any(|end| name.ends_with(end))
}

/// A name for an archive in the making.
pub(crate) fn incomplete_name() -> String {
    let (pid, random) = (std::process::id(), uuid::Uuid::new_v4().simple());
    format!("{INCOMPLETE}{}-{pid}-{random}", host_part())
}

fn host_part() -> String {
    plain(&local::hostname())
}

/// A name for a finished archive: the folder that it holds, the time, and a part that no other one has.
pub(crate) fn finished_name(folder: &str, time: jiff::Timestamp, random: uuid::Uuid) -> String {
    let random = random.simple().to_string();
    let random = random.get(..8).unwrap_or_default();
    format!(
        "{}-{}-{random}",
        plain(folder),
        time.strftime("%Y%m%dT%H%M%SZ")
    )
}

/// Without what means something to borg or a shell.
fn plain(text: &str) -> String {
    let replace = |character: char| {
        let is_plain = character.is_alphanumeric() || matches!(character, '_' | '.' | '+');
        if is_plain { character } else { '_' }
    };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_nothing_that_means_something() {
        let time = "2026-11-26T21:48:05.1234567Z".parse().unwrap();
        let name = finished_name("we b{now}::/-ü", time, uuid::Uuid::nil());
        assert_eq!(name, "we_b_now_____ü-20261126T214805Z-00000000");
    }

    #[test]
    fn archives_of_the_same_second_keep_their_order() {
        let archive = |begun: &str| Archive {
            id: SnapshotId::from_bytes([1; 32]),
            name: String::new(),
            begun: begun.parse().unwrap(),
            hostname: String::new(),
            label: None,
        };
        let first = archive("2026-11-26T21:48:05Z").after(None);
        let second = archive("2026-11-26T21:48:05Z").after(Some(&first));
        let third = archive("2026-11-26T21:48:05Z").after(Some(&second));
        let fourth = archive("2026-11-26T21:48:06Z").after(Some(&third));
        assert!(first.begun < second.begun && second.begun < third.begun);
        assert!(third.begun < fourth.begun && fourth.begun.subsec_nanosecond() == 0);
    }

    #[test]
    fn only_what_an_ended_process_left_is_left_over() {
        let archive = |name: String| Archive {
            id: SnapshotId::from_bytes([1; 32]),
            name,
            begun: jiff::Timestamp::UNIX_EPOCH,
            hostname: String::new(),
            label: None,
        };
        assert!(!archive(incomplete_name()).is_left_over());
        let of_nobody = |end: &str| {
            archive(format!("{INCOMPLETE}{}-{}-x{end}", host_part(), i32::MAX)).is_left_over()
        };
        assert!(of_nobody("") && of_nobody(".checkpoint"));
        assert!(!archive(format!("{INCOMPLETE}elsewhere-{}-x", i32::MAX)).is_left_over());
        assert!(is_unfinished("web.recreate"));
    }
}
