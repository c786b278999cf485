//! Several processes at once in one repository: takes, restores, deletions and prunes, some of them
//! killed. No locks to clear, nothing lost.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use jiff::SignedDuration;
use vrs_progress::NoProgress;
use vrs_repository::store::{PruneOptions, SnapshotLabel, SnapshotRecord};
use vrs_repository::{ErrorKind, Location, ResticRepository, SnapshotStore};

const ROLE: &str = "VRS_TEST_ROLE";
const FOLDER: &str = "VRS_TEST_FOLDER";
const ROLES: [&str; 4] = ["take one", "take two", "restore", "prune"];
const DURATION: Duration = Duration::from_secs(12);
const PIECE: usize = 20 << 10;

/// Short times, so that packs are marked and removed within the test.
fn open(folder: &Path) -> ResticRepository {
    let location = Location::parse(folder.join("repository").to_str().unwrap()).unwrap();
    let mut options = small_packs();
    options.threads = 1;
    options.grace = SignedDuration::from_secs(2);
    options.upload_time = SignedDuration::from_secs(2);
    ResticRepository::open(&location, &password(), &options).unwrap()
}

/// No test of its own: what each process does until it is killed.
#[test]
fn run_role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let mut random = noise(u64::from(std::process::id()), 1 << 16).into_iter();
    let mut random = move |below: u8| random.next().unwrap_or(1) % below;
    let repository = open(&folder);
    // Whoever started it may be killed as well.
    let begun = Instant::now();
    while begun.elapsed() < DURATION * 5 {
        match role.as_str() {
            "restore" => restore_one(&repository, &folder, random(200)),
            "prune" => prune_once(&repository, &folder),
            role => take_one(&repository, &folder, role, &mut random),
        }
    }
}

fn log(folder: &Path, name: &str, line: &str) {
    let mut options = std::fs::OpenOptions::new();
    let file = options.append(true).create(true).open(folder.join(name));
    // One write, so that lines of several processes do not mix.
    file.unwrap()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

fn content(pieces: &str) -> Vec<u8> {
    let seeds = pieces.split(',').map(|seed| seed.parse().unwrap());
    seeds.flat_map(|seed| noise(seed, PIECE)).collect()
}

/// Takes a snapshot that says in its description what it holds, and deletes an own older one now and
/// then.
fn take_one(
    repository: &ResticRepository,
    folder: &Path,
    role: &str,
    random: &mut impl FnMut(u8) -> u8,
) {
    let pieces: Vec<String> = (0..3 + random(5)).map(|_| random(20).to_string()).collect();
    let pieces = pieces.join(",");
    let local = folder.join(role);
    std::fs::write(&local, content(&pieces)).unwrap();
    let taken = repository.ingest(&NoProgress).and_then(|mut ingest| {
        ingest.file(&source("disk", &local, GRID))?;
        // Time for a prune to come between.
        std::thread::sleep(Duration::from_millis(u64::from(random(120))));
        ingest.commit(&SnapshotLabel {
            time: jiff::Timestamp::now(),
            hostname: role.to_owned(),
            tags: vec![],
            description: Some(pieces.clone()),
        })
    });
    match taken {
        Ok((id, _)) => log(folder, "taken", &id.to_string()),
        // Pruned meanwhile: takes longer than the grace period of this test have to be repeated.
        Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
    }
    let own = repository.snapshots().unwrap().snapshots.into_iter();
    let own: Vec<_> = own.filter(|record| record.hostname == role).collect();
    if own.len() > 4 {
        let victim = own[usize::from(random(4))].id;
        log(folder, "deleted", &victim.to_string());
        repository.delete(&[victim], &NoProgress).unwrap();
    }
}

fn is_whole(repository: &ResticRepository, record: &SnapshotRecord, out: &Path) -> bool {
    let wanted = content(record.description.as_deref().unwrap());
    let restored = repository.restore(&request(record.id, &[("disk", out)]), &NoProgress);
    restored.is_ok() && std::fs::read(out).unwrap() == wanted
}

fn restore_one(repository: &ResticRepository, folder: &Path, random: u8) {
    let list = repository.snapshots().unwrap();
    assert_eq!(list.unreadable, Vec::<String>::new());
    if list.snapshots.is_empty() {
        return;
    }
    let record = &list.snapshots[usize::from(random) % list.snapshots.len()];
    let out = folder.join("out");
    // It may be deleted and pruned in between, within the short times of this test.
    let is_listed = || {
        let list = repository.snapshots().unwrap().snapshots;
        list.iter().any(|present| present.id == record.id)
    };
    // A snapshot whose take was killed when it had just appeared may have to wait for the next prune.
    let begun = Instant::now();
    while !is_whole(repository, record, &out) && is_listed() {
        let request = request(record.id, &[("disk", &out)]);
        let reason = repository
            .restore(&request, &NoProgress)
            .map_err(|error| error.to_string());
        log(folder, "waited", &format!("{} {reason:?}", record.id));
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{}: {reason:?}",
            record.id
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    log(folder, "restored", &record.id.to_string());
}

fn prune_once(repository: &ResticRepository, folder: &Path) {
    let options = PruneOptions {
        max_unused_percent: 0,
        ..PruneOptions::default()
    };
    match repository.prune(&options, &NoProgress) {
        Ok(stats) => log(folder, "freed", &stats.freed_bytes.to_string()),
        Err(error) => panic!("{error}"),
    }
    std::thread::sleep(Duration::from_millis(50));
}

fn start(role: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run_role", "--nocapture"])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join(format!("{role}.err"))).unwrap())
        .spawn()
        .unwrap()
}

fn lines(folder: &Path, name: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "long; scripts/test --soak runs it"]
fn soak_takes_restores_deletions_and_prunes_at_once_lose_nothing() {
    let sandbox = Sandbox::new();
    let folder = sandbox.folder.path();
    let mut children: Vec<(&str, Child)> = ROLES
        .iter()
        .map(|role| (*role, start(role, folder)))
        .collect();
    let begun = Instant::now();
    let mut turn = 0;
    while begun.elapsed() < DURATION {
        std::thread::sleep(Duration::from_millis(700));
        for (role, child) in &mut children {
            if let Some(status) = child.try_wait().unwrap() {
                let text = std::fs::read_to_string(folder.join(format!("{role}.err")));
                panic!("{role} ended ({status}): {}", text.unwrap());
            }
        }
        // Killed in turn, at whatever they are doing.
        turn = (turn + 1) % (2 * ROLES.len());
        if let Some((role, child)) = children.get_mut(turn) {
            child.kill().unwrap();
            child.wait().unwrap();
            *child = start(role, folder);
        }
    }
    for (_, child) in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let repository = open(folder);
    let listed = repository.snapshots().unwrap().snapshots;
    let ids: BTreeSet<String> = listed.iter().map(|record| record.id.to_string()).collect();
    let (taken, deleted) = (lines(folder, "taken"), lines(folder, "deleted"));
    let lost: Vec<&String> = taken
        .difference(&deleted)
        .filter(|id| !ids.contains(*id))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    // What was killed last left its locks, and perhaps a mark on what its snapshot needs; whoever
    // prunes next takes both away.
    prune_once(&repository, folder);
    // Half a file of a killed writer is no lock; it goes after a day.
    let mut left = sandbox.objects("locks").into_keys();
    let is_half = |file: &Path| file.to_string_lossy().contains("-tmp-");
    assert!(left.all(|file| is_half(&file)));
    assert_eq!(check(&repository).errors, Vec::<String>::new());
    for record in &listed {
        assert!(
            is_whole(&repository, record, &sandbox.path("out")),
            "{}",
            record.id
        );
    }
    sandbox.restic(&["check", "--read-data"]);
    let freed: u64 = lines(folder, "freed")
        .iter()
        .map(|bytes| bytes.parse::<u64>().unwrap())
        .sum();
    let restored = lines(folder, "restored").len();
    println!("waited: {:?}", lines(folder, "waited"));
    println!(
        "{} taken, {} deleted, {restored} restored, {freed} bytes freed",
        taken.len(),
        deleted.len()
    );
    assert!(taken.len() > 10 && deleted.len() > 3 && restored > 3 && freed > 100_000);
}
