//! What `borg --json` and `borg --log-json` say, as far as it is used.

use serde::Deserialize;

/// `borg list --json`.
#[derive(Debug, Deserialize)]
pub(crate) struct ArchiveList {
    pub(crate) repository: RepositoryInfo,
    pub(crate) archives: Vec<ListedArchive>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListedArchive {
    pub(crate) name: String,
    pub(crate) id: String,
    /// In the time zone of the process, without its name.
    pub(crate) start: String,
    #[serde(default)]
    pub(crate) comment: String,
    #[serde(default)]
    pub(crate) hostname: String,
}

/// `borg info --json`, with and without archives.
#[derive(Debug, Deserialize)]
pub(crate) struct Info {
    pub(crate) cache: CacheInfo,
    #[serde(default)]
    pub(crate) archives: Vec<ArchiveInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RepositoryInfo {
    pub(crate) id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CacheInfo {
    pub(crate) stats: CacheStats,
}

/// Sums over all archives.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct CacheStats {
    pub(crate) total_unique_chunks: u64,
    /// Compressed.
    pub(crate) unique_csize: u64,
    pub(crate) unique_size: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ArchiveInfo {
    pub(crate) stats: ArchiveStats,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ArchiveStats {
    /// What only this archive uses, compressed.
    pub(crate) deduplicated_size: u64,
}

/// `borg import-tar --json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Imported {
    pub(crate) archive: ArchiveInfo,
    pub(crate) cache: CacheInfo,
}

/// A line of `borg list --json-lines` for an archive.
#[derive(Debug, Deserialize)]
pub(crate) struct Item {
    /// `-` for a regular file.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) size: u64,
    #[serde(default = "healthy")]
    pub(crate) healthy: bool,
    /// In the time zone of the process, without its name.
    pub(crate) mtime: String,
}

const fn healthy() -> bool {
    true
}

/// A line of `borg diff --json-lines`.
#[derive(Debug, Deserialize)]
pub(crate) struct Difference {
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) added: Option<u64>,
    #[serde(default)]
    pub(crate) size: Option<u64>,
}

/// A line on stderr.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LogLine {
    #[serde(default)]
    pub(crate) levelname: String,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) msgid: String,
}

/// A time of `borg` that ran with `TZ=UTC`.
pub(crate) fn time(text: &str) -> Option<jiff::Timestamp> {
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}
