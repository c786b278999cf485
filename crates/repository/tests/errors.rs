//! Every text says what happened, why, and what to do next.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::io;
use std::path::PathBuf;

use common::path;
use vrs_repository::Error;
use vrs_repository::id::{ChunkId, PackId, SnapshotId};
use vrs_repository::store::TreePath;

#[test]
fn texts() {
    let location = || "/srv/repo".to_owned();
    let file = || PathBuf::from("/vm/disk.vdi");
    let (chunk, pack) = (
        ChunkId::from_bytes([0xab; 32]),
        PackId::from_bytes([0xcd; 32]),
    );
    let snapshot = SnapshotId::from_bytes([0x12; 32]);
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    let damaged = || Error::DamagedChunk {
        location: location(),
        chunk,
        pack,
        reason: "it cannot be decrypted".to_owned(),
    };
    let incomplete = |more| Error::Incomplete {
        path: file(),
        offset: 4096,
        length_bytes: 512,
        more,
        source: Box::new(damaged()),
    };
    let errors = [
        Error::Interrupted,
        Error::NoRepository {
            location: location(),
        },
        Error::NotARepository {
            location: location(),
        },
        Error::AlreadyARepository {
            location: location(),
        },
        Error::NotEmpty {
            location: location(),
        },
        Error::WrongPassword {
            location: location(),
        },
        Error::NewerRepository {
            location: location(),
            version: 3,
        },
        Error::OldRepository {
            location: location(),
        },
        Error::Locked {
            location: location(),
            holder: "process 7 of me on host".to_owned(),
        },
        Error::DamagedObject {
            location: location(),
            object: "index 1234abcd".to_owned(),
            reason: "it is too short".to_owned(),
        },
        Error::Storage {
            location: location(),
            operation: "list",
            object: "the keys".to_owned(),
            source: denied().into(),
        },
        Error::Unreachable {
            location: location(),
            source: denied().into(),
        },
        Error::LoginRefused {
            location: location(),
            source: denied().into(),
        },
        Error::NotPermitted {
            location: location(),
            operation: "remove",
            object: "snapshot 1234abcd".to_owned(),
            source: denied().into(),
        },
        Error::NoProgram {
            location: location(),
            source: denied().into(),
        },
        Error::NoSpace {
            place: "/vm/disk.vdi".to_owned(),
            source: denied().into(),
        },
        Error::LocalFile {
            path: file(),
            operation: "read",
            offset: Some(512),
            source: denied(),
        },
        Error::LocalFile {
            path: file(),
            operation: "open",
            offset: None,
            source: denied(),
        },
        Error::NotAFile {
            path: file(),
            found: "folder",
        },
        Error::Changed { path: file() },
        Error::NoSnapshot {
            location: location(),
            snapshot,
        },
        Error::NoSuchFile {
            snapshot,
            path: path("a"),
        },
        Error::MissingChunk {
            location: location(),
            path: path("a"),
            offset: 0,
            chunk,
        },
        damaged(),
        incomplete(0),
        incomplete(2),
        Error::OutOfBounds {
            path: path("a"),
            offset: 10,
            length_bytes: 5,
            size_bytes: 12,
        },
        Error::UnusableName {
            snapshot,
            source: TreePath::new("../a").unwrap_err(),
        },
        Error::InvalidRequest {
            subject: "a chunk size of 3 bytes".to_owned(),
            reason: "it must be a power of two from 1 KiB to 4 MiB",
        },
        Error::Broken {
            location: location(),
        },
        Error::PrunedMeanwhile {
            location: location(),
        },
        Error::NotPrunable {
            location: location(),
            reason: "2 chunks that snapshots need are in no index".to_owned(),
        },
        Error::NoRandom,
        Error::NoThread {
            source: "Resource temporarily unavailable".into(),
        },
    ];
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    interrupted; what was stored so far will be reused by the next run
    there is no repository at /srv/repo: nothing exists there; check the location, or create one with 'vrs init'
    /srv/repo is not a repository: it holds no 'config'; check the location, or create a repository with 'vrs init'
    there is a repository at /srv/repo already; it was not touched; choose another place, or use it as it is
    /srv/repo is not empty; a repository needs a folder of its own; name an empty or a new folder
    wrong password for the repository at /srv/repo: it opens none of its keys; check the password and try again
    the repository at /srv/repo has format version 3, this program reads versions 1 and 2 and writes version 2; use a newer program
    the repository at /srv/repo has format version 1, which this program only reads; upgrade it with 'restic migrate upgrade_repo_v2'
    the repository at /srv/repo is locked by process 7 of me on host; wait until that has ended; if it has crashed on another computer, run 'restic unlock'
    index 1234abcd of the repository at /srv/repo is damaged: it is too short; run 'vrs check' to learn what it affects
    cannot list the keys of the repository at /srv/repo; check that the storage is reachable and its permissions, then try again
    cannot reach the repository at /srv/repo; check the address, the network and that its server runs, then try again: what was stored so far will be reused
    the server of the repository at /srv/repo refused the login; check user, key or password of the storage, and the clock
    the server does not permit to remove snapshot 1234abcd of the repository at /srv/repo; the login may be for reading or adding only: use one that may do it
    the repository at /srv/repo needs a program that could not be started; install it, or say where it is
    no space left while writing /vm/disk.vdi; free some space and run it again: what was stored so far will be reused
    cannot read /vm/disk.vdi at offset 512; check the disk and the file's permissions, then try again
    cannot open /vm/disk.vdi; check the disk and the file's permissions, then try again
    /vm/disk.vdi is not a regular file but a folder; nothing was done with it
    /vm/disk.vdi changed while it was being read, so it was not stored; make sure that nothing uses it and try again
    the repository at /srv/repo has no snapshot 1212121212121212121212121212121212121212121212121212121212121212; see 'vrs list'
    snapshot 12121212 holds no file a; see 'vrs show'
    chunk abababab at offset 0 of a is in no index of the repository at /srv/repo, so the file cannot be read completely; run 'vrs check', and restore another snapshot or from a copy of the repository
    chunk abababab in pack cdcdcdcd of the repository at /srv/repo is damaged: it cannot be decrypted; run 'vrs check' to learn what it affects
    /vm/disk.vdi is not complete: 512 bytes at offset 4096 could not be fetched; everything else is in place; repair the repository or fetch its copy, then run it again to complete the file
    /vm/disk.vdi is not complete: 512 bytes at offset 4096 could not be fetched (and 2 more ranges); everything else is in place; repair the repository or fetch its copy, then run it again to complete the file
    cannot read 5 bytes at offset 10 of a: it has only 12 bytes
    snapshot 12121212 holds a file that cannot be named here; restore it with another program
    a chunk size of 3 bytes cannot be used: it must be a power of two from 1 KiB to 4 MiB
    the snapshot cannot be completed because an earlier write to the repository at /srv/repo failed; run it again
    data that the snapshot shares with earlier ones was pruned from the repository at /srv/repo while it was taken; no snapshot was made; take it again, what was sent is reused
    the repository at /srv/repo is not pruned, because 2 chunks that snapshots need are in no index; 'vrs check' tells what is damaged; nothing was removed
    the system gave no random numbers, so nothing can be encrypted; try again later
    no thread could be started to derive the key from the password: Resource temporarily unavailable; end other programs and try again
    "#);
}
