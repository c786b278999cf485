//! What goes wrong outside of vrs: each with its text and exit code, nothing lost, and the next run
//! succeeds.

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::path::{Path, PathBuf};

use vrs_progress::NoProgress;
use vrs_repository::store::{SnapshotLabel, SnapshotStore, TreePath};
use vrs_repository::{Location, OpenOptions as OpenRepository, Password, ResticRepository};
use vrs_testkit::{ReadErrors, SampleDisk, SampleMachine, TinyDisk};

use crate::environment::{Environment, MIB, Run, settings};
use crate::errors::walk;

pub fn content(machine: &SampleMachine) -> Vec<Vec<u8>> {
    let files = machine.files();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

pub fn is_sound(environment: &Environment) -> bool {
    environment.json(&["check", "--read-data"])["sound"]
        .as_bool()
        .unwrap()
}

#[test]
fn a_disk_that_cannot_be_read_is_named_and_nothing_is_stored() {
    let (environment, machine) = Environment::with_snapshot("web");
    let disk = machine.chain(0)[0].clone();
    let (aside, list) = (
        disk.with_extension("aside"),
        environment.succeeds(&["list"]),
    );
    fs::rename(&disk, &aside).unwrap();
    let take = || {
        let text = environment.fails(&["take", &settings(&machine)]);
        text.replace(disk.file_name().unwrap().to_str().unwrap(), "DISK")
    };
    insta::assert_snapshot!(take(), @r"
    1
    error: 'FOLDER/machines/web/DISK' is part of machine 'web' but is not there; put it back, or detach it from the machine
    ");
    fs::create_dir(&disk).unwrap();
    insta::assert_snapshot!(take(), @r"
    1
    error: 'FOLDER/machines/web/DISK' is part of machine 'web' but is not there; put it back, or detach it from the machine
    ");
    fs::remove_dir(&disk).unwrap();
    std::os::unix::fs::symlink("nowhere", &disk).unwrap();
    insta::assert_snapshot!(take(), @r"
    1
    error: 'FOLDER/machines/web/DISK' is part of machine 'web' but is not there; put it back, or detach it from the machine
    ");
    fs::remove_file(&disk).unwrap();
    assert_eq!(environment.succeeds(&["list"]), list);
    fs::rename(&aside, &disk).unwrap();
    environment.succeeds(&["take", &settings(&machine)]);
    assert!(is_sound(&environment));
}

/// The vrs of an environment, for which some bytes of a file cannot be read.
fn struck(environment: &Environment, arguments: &[&str], file: &Path, bytes: Range<u64>) -> Run {
    let mut command = environment.command(arguments);
    let errors = ReadErrors::new();
    errors.strike(&mut command, file, bytes);
    environment.finish(command)
}

#[test]
fn an_unreadable_sector_of_a_disk_is_told_and_nothing_is_stored() {
    let (environment, machine) = Environment::with_snapshot("web");
    let disk = machine.chain(0)[0].clone();
    let list = environment.succeeds(&["list"]);
    let sector = 2 * MIB as u64 + 4096;
    let take = ["take", &settings(&machine)];
    let run = struck(&environment, &take, &disk, sector..sector + 512);
    let name = disk.file_name().unwrap().to_str().unwrap();
    insta::assert_snapshot!(run.failure().replace(name, "DISK"), @r"
    1
    error: cannot read FOLDER/machines/web/DISK at offset 2097152; check the disk and the file's permissions, then try again
      caused by: Input/output error (os error 5)
    ");
    assert_eq!(environment.succeeds(&["list"]), list);
    assert!(is_sound(&environment));
    environment.succeeds(&take);
    assert!(is_sound(&environment));
}

#[test]
fn a_restore_from_a_pack_on_an_unreadable_sector_is_owed_until_it_can_be_read() {
    let (environment, machine, pack, first) = with_pack();
    let name = pack.file_name().unwrap().to_str().unwrap();
    let restore = ["restore", "web@first", "--yes"];
    let run = struck(&environment, &restore, &pack, middle(&pack));
    let told = run.failure().replace(&name[..8], "PACK");
    assert!(
        told.starts_with("1\nnote: restoring machine 'web' was interrupted; run `vrs recover`\n")
            && told.contains(" is not complete: ")
            && told.contains("cannot read pack PACK of the repository at FOLDER/repository; ")
            && told.ends_with("caused by: Input/output error (os error 5)\n"),
        "{told}"
    );
    let check = ["check", "--read-data"];
    let check = struck(&environment, &check, &pack, middle(&pack));
    assert_eq!(check.code, 1, "{}", check.stderr);
    assert!(
        check.stdout.contains("Input/output error"),
        "{}",
        check.stdout
    );
    is_owed_until_recovered(&environment, &machine, &first);
}

#[test]
fn a_disk_held_open_for_writing_is_not_taken() {
    let (environment, machine) = Environment::with_snapshot("web");
    let disk = machine.chain(0)[0].clone();
    let held = OpenOptions::new().append(true).open(&disk).unwrap();
    let run = environment.run(&["take", &settings(&machine)]);
    assert_eq!(run.code, 5, "{}", run.stderr);
    assert!(
        run.stderr.contains("is open for writing by ")
            && run.stderr.contains(&std::process::id().to_string()),
        "{}",
        run.stderr
    );
    drop(held);
    environment.succeeds(&["take", &settings(&machine)]);
}

/// The largest pack, which holds data.
fn pack(environment: &Environment) -> PathBuf {
    let packs = walk(&environment.repository().join("data"));
    let bytes = |path: &PathBuf| fs::metadata(path).unwrap().len();
    packs.into_iter().max_by_key(bytes).unwrap()
}

fn make_writable(path: &Path) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
}

/// A part of a pack with chunks of a disk. Settings and manifest lie at the ends.
fn middle(pack: &Path) -> Range<u64> {
    let bytes = fs::metadata(pack).unwrap().len();
    bytes / 4..bytes / 2
}

/// An environment with a snapshot that was restored once, its machine, and its pack. Then the whole
/// disk was changed.
fn with_pack() -> (Environment, SampleMachine, PathBuf, Vec<Vec<u8>>) {
    let (environment, mut machine) = Environment::with_snapshot("web");
    environment.succeeds(&["restore", "web@first", "--yes"]);
    let first = content(&machine);
    machine.fill(0, 0, 3 * MIB, 55);
    let pack = pack(&environment);
    make_writable(&pack);
    (environment, machine, pack, first)
}

/// After a restore that failed on the way: no half machine is taken, and what was restored is kept.
fn is_owed_until_recovered(environment: &Environment, machine: &SampleMachine, first: &[Vec<u8>]) {
    let take = environment.run(&["take", &settings(machine)]);
    assert_eq!(take.code, 4, "{}", take.stderr);
    let recover = environment.run(&["recover"]);
    assert_eq!((recover.code, recover.stderr.as_str()), (0, ""));
    assert_eq!(content(machine), first);
    assert!(is_sound(environment));
}

#[test]
fn a_restore_from_a_damaged_pack_is_owed_until_the_pack_is_whole() {
    let (environment, machine, pack, first) = with_pack();
    let whole = fs::read(&pack).unwrap();
    let mut damaged = whole.clone();
    for byte in middle(&pack) {
        damaged[usize::try_from(byte).unwrap()] ^= 0x55;
    }
    fs::write(&pack, damaged).unwrap();
    assert!(!is_sound(&environment));
    let restore = environment.run(&["restore", "web@first", "--yes"]);
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert_eq!(restore.code, 1, "{}", restore.stderr);
    assert!(restore.stderr.contains(&name[..8]), "{}", restore.stderr);
    fs::write(&pack, whole).unwrap();
    is_owed_until_recovered(&environment, &machine, &first);
}

#[test]
fn a_restore_from_a_missing_pack_changes_nothing() {
    let (environment, machine, pack, first) = with_pack();
    let changed = content(&machine);
    let whole = fs::read(&pack).unwrap();
    fs::remove_file(&pack).unwrap();
    assert!(!is_sound(&environment));
    let name = pack.file_name().unwrap().to_str().unwrap();
    let restore = environment.fails(&["restore", "web@first", "--yes"]);
    insta::assert_snapshot!(restore.replace(&name[..8], "PACK"), @r"
    1
    error: pack PACK of the repository at FOLDER/repository is damaged: it is missing; run 'vrs check' to learn what it affects
    ");
    assert_eq!(content(&machine), changed);
    environment.succeeds(&["take", &settings(&machine), "--name", "second"]);
    fs::write(&pack, whole).unwrap();
    environment.succeeds(&["restore", "web@first", "--yes"]);
    assert_eq!(content(&machine), first);
    environment.succeeds(&["restore", "web@second", "--yes"]);
    assert_eq!(content(&machine), changed);
    assert!(is_sound(&environment));
}

#[test]
fn a_folder_with_something_else_is_no_repository() {
    let environment = Environment::new();
    environment.write(&environment.repository().join("notes.txt"), "mine");
    insta::assert_snapshot!(environment.fails(&["list"]), @r"
    1
    error: FOLDER/repository is not a repository: it holds no 'config'; check the location, or create a repository with 'vrs init'
    ");
    insta::assert_snapshot!(environment.fails(&["init"]), @r"
    1
    error: FOLDER/repository is not empty; a repository needs a folder of its own; name an empty or a new folder
    ");
    assert_eq!(
        fs::read(environment.repository().join("notes.txt")).unwrap(),
        b"mine"
    );
}

#[test]
fn a_snapshot_of_the_future_is_shown_and_refused() {
    let (environment, machine) = Environment::with_snapshot("web");
    let before = content(&machine);
    let location = Location::parse(environment.repository().to_str().unwrap()).unwrap();
    let password = Password::new("correct horse".to_owned());
    let store = ResticRepository::open(&location, &password, &OpenRepository::default()).unwrap();
    let mut ingest = store.ingest(&NoProgress).unwrap();
    let path = TreePath::new(".vrs/web/manifest.json").unwrap();
    ingest
        .bytes(
            &path,
            br#"{"format":"vrs-manifest","version":99,"written_by":"9.0.0","news":[]}"#,
        )
        .unwrap();
    let record = store.snapshots().unwrap().snapshots.remove(0);
    let tags = record.tags.into_iter().filter(|tag| !tag.contains("first"));
    let label = SnapshotLabel {
        time: "2099-01-01T00:00:00Z".parse().unwrap(),
        hostname: record.hostname,
        tags: tags.collect(),
        description: None,
    };
    let (id, _) = ingest.commit(&label).unwrap();
    drop(store);
    let neutral = |text: String| text.replace(id.short().as_str(), "SNAPSHOT");
    assert!(
        environment
            .succeeds(&["list"])
            .contains(id.short().as_str())
    );
    for verb in [
        &["show", "web@latest"][..],
        &["restore", "web@latest", "--yes"],
    ] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(neutral(environment.fails(verb)), @r"
    1
    error: snapshot SNAPSHOT was written by vrs 9.0.0 in manifest version 99, which this vrs does not know; it is sound: use vrs 9.0.0 or newer
    ");
        }
    }
    assert_eq!(content(&machine), before);
    environment.succeeds(&["take", &settings(&machine)]);
    assert!(is_sound(&environment));
}

#[test]
fn a_repository_may_be_anywhere() {
    let environment = Environment::new();
    let machine = environment.machine("web", MIB);
    let names = [
        "with blanks",
        "quo\"te's",
        "ünï ☃",
        "./-dash",
        "two\nlines",
        "deep/er",
        "local:x",
    ];
    for name in names {
        for arguments in [&["init"][..], &["take", &settings(&machine)], &["list"]] {
            let mut command = environment.command(arguments);
            command.env("VRS_REPOSITORY", name);
            let run = environment.finish(command);
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{name:?}");
        }
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_full_repository_keeps_its_snapshots_and_takes_the_next_one_when_there_is_room() {
    let disk = TinyDisk::mount(5 * MIB as u64);
    let environment = Environment::new();
    let repository = disk.path().join("repository");
    let command = |arguments: &[&str]| {
        let mut command = environment.command(arguments);
        command.env("VRS_REPOSITORY", &repository);
        command
    };
    let run = |arguments: &[&str]| environment.finish(command(arguments));
    assert_eq!(run(&["init"]).code, 0);
    let mut machine = environment.machine("web", 2 * MIB);
    assert_eq!(
        run(&["take", &settings(&machine), "--name", "first"]).code,
        0
    );
    let first = content(&machine);
    machine.fill(0, 0, 2 * MIB, 11);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 2 * MIB]).unwrap();
    let full = run(&["take", &settings(&machine)]);
    assert_eq!(full.code, 1, "{}", full.stderr);
    assert!(
        full.stderr.contains("No space left on device"),
        "{}",
        full.stderr
    );
    assert!(run(&["list"]).stdout.ends_with("\n1 snapshot\n"));
    fs::remove_file(&ballast).unwrap();
    assert_eq!(run(&["take", &settings(&machine)]).code, 0);
    assert_eq!(run(&["check", "--read-data"]).code, 0);
    assert_eq!(run(&["restore", "web@first", "--yes"]).code, 0);
    assert_eq!(content(&machine), first);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_whose_disk_is_full_is_owed_until_there_is_room() {
    let disk = TinyDisk::mount(8 * MIB as u64);
    let environment = Environment::with_repository();
    let mut machine = SampleMachine::builder(disk.path(), "web")
        .disk(SampleDisk::dynamic(6 * MIB as u64))
        .build();
    machine.fill(0, 0, 4 * MIB, 1);
    environment.succeeds(&["take", &settings(&machine), "--name", "first"]);
    let first = content(&machine);
    for file in machine.files() {
        fs::remove_file(file).unwrap();
    }
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 6 * MIB]).unwrap();
    for verb in [
        &["restore", "web@first", "--yes"][..],
        &["clone", "web@first", "--name", "two"],
    ] {
        let full = environment.run(verb);
        assert_eq!(full.code, 1, "{verb:?}: {}", full.stderr);
        assert!(
            full.stderr.contains("No space left on device"),
            "{verb:?}: {}",
            full.stderr
        );
    }
    // It stays full, so the clone is given up.
    let clone = disk.path().join("two");
    assert!(clone.is_dir());
    assert_eq!(environment.run(&["recover", "two"]).code, 4);
    let undo = environment.run(&["recover", "--undo", "two"]);
    assert_eq!(undo.code, 0, "{}", undo.stderr);
    assert!(!clone.exists());
    let undo = environment.run(&["recover", "--undo"]);
    assert_eq!(undo.code, 4, "{}", undo.stderr);
    fs::remove_file(&ballast).unwrap();
    let recover = environment.run(&["recover", "web"]);
    assert_eq!(recover.code, 0, "{}", recover.stderr);
    assert_eq!(content(&machine), first);
    assert!(is_sound(&environment));
}
