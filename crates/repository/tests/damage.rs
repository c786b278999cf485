//! Every kind of damage to every kind of object: told, contained, never a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::path::{Path, PathBuf};

use common::*;
use rstest::rstest;
use vrs_progress::NoProgress;
use vrs_repository::store::{CheckOptions, read_to_vec};
use vrs_repository::{ErrorKind, InitOptions, Location, Password, ResticRepository, SnapshotStore};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Missing,
    Empty,
    Cut,
    Garbled,
}

impl Damage {
    fn apply(self, file: &Path) {
        let mut content = std::fs::read(file).unwrap();
        match self {
            Self::Missing => return std::fs::remove_file(file).unwrap(),
            Self::Empty => content.clear(),
            Self::Cut => content.truncate(content.len() / 2),
            Self::Garbled => {
                let middle = content.len() / 2;
                content[middle] ^= 0x55;
            }
        }
        // The file may be read-only, as stock restic makes them.
        std::fs::remove_file(file).unwrap();
        std::fs::write(file, content).unwrap();
    }
}

/// Two snapshots without a common chunk, and the objects that only the second one needs.
struct Pair {
    sandbox: Sandbox,
    first: Taken,
    second: Taken,
    disk: PathBuf,
}

impl Pair {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let repository = sandbox.open();
        let disk = sandbox.write("disk", &noise(1, 100_000));
        let first = take(&repository, &[source("disk", &disk, GRID)]);
        sandbox.write("disk", &noise(2, 100_000));
        let second = take(&repository, &[source("disk", &disk, GRID)]);
        Self {
            sandbox,
            first,
            second,
            disk,
        }
    }

    /// The newest objects of a kind belong to the second snapshot.
    fn of_second(&self, kind: &str) -> Vec<PathBuf> {
        let mut objects: Vec<_> = self.sandbox.objects(kind).into_iter().collect();
        objects.sort_by_key(|(path, _)| std::fs::metadata(path).unwrap().modified().unwrap());
        // Packs: two of data (64 KiB each) and one of trees; one index and one snapshot file.
        let count = if kind == "data" { 3 } else { 1 };
        objects
            .into_iter()
            .rev()
            .take(count)
            .map(|(path, _)| path)
            .collect()
    }

    fn read(
        &self,
        repository: &ResticRepository,
        taken: &Taken,
    ) -> vrs_repository::Result<Vec<u8>> {
        let mut reader = repository.open_file(&taken.id, &path("disk"))?;
        read_to_vec(&mut *reader, u64::MAX)
    }
}

#[rstest]
fn a_damaged_object_affects_only_what_needs_it(
    #[values(Damage::Missing, Damage::Empty, Damage::Cut, Damage::Garbled)] damage: Damage,
    #[values("data", "index", "snapshots")] kind: &str,
) {
    let pair = Pair::new();
    for (number, object) in pair.of_second(kind).iter().enumerate() {
        let sound = std::fs::read(object).unwrap();
        damage.apply(object);
        let repository = pair.sandbox.open();
        assert!(pair.read(&repository, &pair.first).unwrap() == noise(1, 100_000));
        let listed = repository.snapshots().unwrap();
        assert!(
            listed
                .snapshots
                .iter()
                .any(|record| record.id == pair.first.id)
        );
        let report = check(&repository);
        if kind == "snapshots" && damage == Damage::Missing {
            assert_eq!(
                (report.errors.len(), listed.snapshots.len()),
                (0, 1),
                "a deleted snapshot is no damage"
            );
        } else {
            assert!(!report.errors.is_empty(), "object {number} of {kind}");
            assert_eq!(
                report.damaged_snapshots,
                [pair.second.id],
                "object {number}: {:?}",
                report.errors
            );
            assert_eq!(
                pair.read(&repository, &pair.second).unwrap_err().kind(),
                ErrorKind::Damaged
            );
        }
        std::fs::write(object, sound).unwrap();
        assert_eq!(check(&pair.sandbox.open()).errors, Vec::<String>::new());
    }
}

/// What can be seen without reading everything is stored again by the next snapshot.
#[rstest]
fn the_next_snapshot_replaces_lost_chunks(
    #[values(Damage::Missing, Damage::Cut)] damage: Damage,
    #[values("data", "index")] kind: &str,
) {
    let pair = Pair::new();
    pair.of_second(kind)
        .iter()
        .for_each(|object| damage.apply(object));
    let repository = pair.sandbox.open();
    let third = take(&repository, &[source("disk", &pair.disk, GRID)]);
    assert_eq!(check(&repository).damaged_snapshots, []);
    for taken in [&pair.second, &third] {
        assert!(pair.read(&repository, taken).unwrap() == noise(2, 100_000));
    }
    let sent_again = third.files[0].new_chunks;
    assert_eq!(sent_again > 0, kind == "data", "{sent_again} chunks");
}

#[test]
fn restore_writes_everything_but_the_lost_chunk_and_says_where() {
    let pair = Pair::new();
    let object = pair
        .of_second("data")
        .into_iter()
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let mut content = std::fs::read(&object).unwrap();
    content[10] ^= 1;
    std::fs::write(&object, &content).unwrap();
    let repository = pair.sandbox.open();
    let target = pair.sandbox.path("target");
    let error = repository
        .restore(&request(pair.second.id, &[("disk", &target)]), &NoProgress)
        .unwrap_err();
    let text = error.to_string();
    let begin = format!("{} is not complete: ", target.display());
    assert!(
        text.starts_with(&begin) && text.contains(" bytes at offset "),
        "{text}"
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    let pack = object.file_name().unwrap().to_str().unwrap();
    assert!(
        cause.contains(&pack[..8]) && cause.contains("cannot be decrypted"),
        "{cause}"
    );
    let (restored, wanted) = (std::fs::read(&target).unwrap(), noise(2, 100_000));
    assert_eq!(restored.len(), wanted.len());
    let differing = restored
        .iter()
        .zip(&wanted)
        .filter(|(one, other)| one != other)
        .count();
    assert!((1..=4096).contains(&differing), "{differing} bytes");
    content[10] ^= 1;
    std::fs::write(&object, &content).unwrap();
    let recorder = Recorder::default();
    let stats = repository
        .restore(&request(pair.second.id, &[("disk", &target)]), &recorder)
        .unwrap();
    assert_eq!(stats.fetched_chunks, 1);
    assert!(std::fs::read(&target).unwrap() == wanted);
}

#[rstest]
fn a_damaged_key_or_configuration_is_told(
    #[values(Damage::Missing, Damage::Empty, Damage::Cut, Damage::Garbled)] damage: Damage,
    #[values("keys", "config")] kind: &str,
) {
    let sandbox = Sandbox::new();
    let object = match kind {
        "config" => sandbox.repository_folder().join("config"),
        _ => sandbox.objects(kind).into_keys().next().unwrap(),
    };
    damage.apply(&object);
    let error =
        ResticRepository::open(&sandbox.location(), &password(), &sandbox.options).unwrap_err();
    let expected = match (kind, damage) {
        ("config", Damage::Missing) => ErrorKind::NotARepository,
        _ => ErrorKind::Damaged,
    };
    assert_eq!(error.kind(), expected, "{error}");
}

#[test]
fn a_damaged_key_does_not_hide_a_sound_one() {
    let sandbox = Sandbox::new();
    let keys = sandbox.repository_folder().join("keys");
    std::fs::write(keys.join("0".repeat(64)), b"{").unwrap();
    let hostile = r#"{"kdf":"scrypt","N":0,"r":4000000000,"p":1,"data":"","salt":""}"#;
    std::fs::write(keys.join("1".repeat(64)), hostile).unwrap();
    let repository = sandbox.open();
    let report = repository
        .check(&CheckOptions::default(), &NoProgress)
        .unwrap();
    assert_eq!(report.errors.len(), 2, "{:?}", report.errors);
}

#[test]
fn opening_tells_apart_what_is_wrong() {
    let sandbox = Sandbox::new();
    let open = |place: &str, password: &str| {
        let location = Location::parse(sandbox.path(place).to_str().unwrap()).unwrap();
        ResticRepository::open(
            &location,
            &Password::new(password.to_owned()),
            &sandbox.options,
        )
        .unwrap_err()
        .kind()
    };
    sandbox.write("file", b"");
    std::fs::create_dir(sandbox.path("folder")).unwrap();
    assert_eq!(open("absent", PASSWORD), ErrorKind::NotFound);
    assert_eq!(open("folder", PASSWORD), ErrorKind::NotARepository);
    assert_eq!(open("file", PASSWORD), ErrorKind::NotARepository);
    assert_eq!(open("repository", "wrong"), ErrorKind::WrongPassword);
}

#[test]
fn init_touches_nothing_that_is_there() {
    let sandbox = Sandbox::new();
    let init = |location: &Location| {
        ResticRepository::init(location, &password(), &InitOptions::default())
    };
    assert_eq!(
        init(&sandbox.location()).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    sandbox.write("taken/letter.txt", b"dear");
    let taken = Location::parse(sandbox.path("taken").to_str().unwrap()).unwrap();
    assert_eq!(init(&taken).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_dir(sandbox.path("taken")).unwrap().count(), 1);
    // A repository that has lost its configuration still has data.
    let local = sandbox.write("disk", b"content");
    take(&sandbox.open(), &[source("disk", &local, GRID)]);
    std::fs::remove_file(sandbox.repository_folder().join("config")).unwrap();
    assert_eq!(
        init(&sandbox.location()).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(sandbox.objects("keys").len(), 1);
}

#[test]
fn an_interrupted_init_can_be_repeated() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.repository_folder().join("config")).unwrap();
    ResticRepository::init(&sandbox.location(), &password(), &InitOptions::default()).unwrap();
    sandbox.open();
    assert!(sandbox.restic(&["check"]).contains("no errors were found"));
}

#[test]
fn stray_files_and_incomplete_packs_are_no_obstacle() {
    let pair = Pair::new();
    let folder = pair.sandbox.repository_folder();
    std::fs::create_dir_all(folder.join("data/ab")).unwrap();
    std::fs::write(folder.join("data/ab").join("ab".repeat(32)), b"short").unwrap();
    std::fs::write(folder.join("data/ab/notes.txt"), b"?").unwrap();
    std::fs::write(folder.join("snapshots/readme"), b"?").unwrap();
    let repository = pair.sandbox.open();
    let report = check(&repository);
    assert_eq!(
        (report.errors.len(), report.warnings.len()),
        (0, 1),
        "{report:?}"
    );
    let recorder = Recorder::default();
    take_with(&repository, &[source("disk", &pair.disk, GRID)], &recorder).unwrap();
    assert_eq!(
        *recorder.warnings.lock().unwrap(),
        ["pack abababab is incomplete and in no index; it is not used"]
    );
}
