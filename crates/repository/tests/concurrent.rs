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
const PIECE: usize = 20 << 10;
/// So long must a machine be able to stall without harm: half of it, from one look of a take to the next.
const GRACE: SignedDuration = SignedDuration::from_secs(4);
/// Nobody waits longer for anything; a bound for what hangs, not a measure.
const PATIENCE: Duration = Duration::from_secs(120);

/// What must have happened before the test ends, however long that takes.
struct Goals {
    taken: usize,
    deleted: usize,
    restored: usize,
    /// Prunes that removed something.
    freed: usize,
    killed: usize,
}

impl Goals {
    const SHORT: Self = Self {
        taken: 12,
        deleted: 4,
        restored: 8,
        freed: 3,
        killed: 2 * ROLES.len(),
    };
    const LONG: Self = Self {
        taken: 400,
        deleted: 200,
        restored: 200,
        freed: 40,
        killed: 40 * ROLES.len(),
    };

    fn are_reached(&self, folder: &Path, killed: usize) -> bool {
        let reached = |name, goal| lines(folder, name).len() >= goal;
        killed >= self.killed
            && reached("taken", self.taken)
            && reached("deleted", self.deleted)
            && reached("restored", self.restored)
            && reached("freed", self.freed)
    }
}

/// Short times, so that packs are marked and removed within the test.
fn open(folder: &Path) -> ResticRepository {
    let location = Location::parse(folder.join("repository").to_str().unwrap()).unwrap();
    let mut options = small_packs();
    options.threads = 1;
    options.grace = GRACE;
    options.upload_time = GRACE;
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
    let parent = std::os::unix::process::parent_id();
    // Whoever started it may be killed as well.
    while std::os::unix::process::parent_id() == parent {
        match role.as_str() {
            "restore" => restore_one(&repository, &folder, random(200)),
            "prune" => prune_once(&repository, &folder),
            role => take_one(&repository, &folder, role, &mut random),
        }
        log(&folder, &format!("{role}.rounds"), "done");
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
        assert!(begun.elapsed() < PATIENCE, "{}: {reason:?}", record.id);
        std::thread::sleep(Duration::from_millis(200));
    }
    log(folder, "restored", &record.id.to_string());
}

fn prune_once(repository: &ResticRepository, folder: &Path) {
    let options = PruneOptions {
        max_unused_percent: 0,
        ..PruneOptions::default()
    };
    let begun = Instant::now();
    loop {
        match repository.prune(&options, &NoProgress) {
            Ok(stats) if stats.freed_bytes > 0 => {
                log(
                    folder,
                    "freed",
                    &format!("{}: {}", jiff::Timestamp::now(), stats.freed_bytes),
                );
                break;
            }
            Ok(_) => break,
            // A take that stalled is about to withdraw its snapshot.
            Err(error) if begun.elapsed() < PATIENCE => log(folder, "waited", &error.to_string()),
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(200));
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

/// The processes, and who is killed next.
struct Crew<'a> {
    folder: &'a Path,
    members: Vec<(&'static str, Child)>,
    killed: usize,
}

impl<'a> Crew<'a> {
    fn start(folder: &'a Path) -> Self {
        let members = ROLES.map(|role| (role, start(role, folder))).into();
        Self {
            folder,
            members,
            killed: 0,
        }
    }

    fn rounds(&self, role: &str) -> usize {
        let rounds = std::fs::read(self.folder.join(format!("{role}.rounds")));
        rounds.unwrap_or_default().len()
    }

    fn complaints(&self, role: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("{role}.err"))).unwrap()
    }

    fn require_alive(&mut self) {
        for number in 0..self.members.len() {
            let (role, child) = &mut self.members[number];
            let (role, ended) = (*role, child.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("{role} ended ({status}): {}", self.complaints(role));
            }
        }
    }

    /// Kills one at whatever it is doing, and starts it again. Each has done something since it was
    /// started, so that all get on, however slow the machine is.
    fn kill_next(&mut self, random: &mut impl FnMut(u8) -> u8) {
        let number = self.killed % self.members.len();
        let role = self.members[number].0;
        let (before, begun) = (self.rounds(role), Instant::now());
        while self.rounds(role) == before {
            self.require_alive();
            assert!(begun.elapsed() < PATIENCE, "{role} does nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(u64::from(random(250))));
        self.require_alive();
        self.end_member(number);
        self.members[number].1 = start(role, self.folder);
        self.killed += 1;
    }

    fn end_member(&mut self, number: usize) {
        let child = &mut self.members[number].1;
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|number| self.end_member(number));
    }
}

#[test]
fn takes_restores_deletions_and_prunes_at_once_lose_nothing() {
    run_until(&Goals::SHORT);
}

#[test]
#[ignore = "long; scripts/test --soak runs it"]
fn soak_takes_restores_deletions_and_prunes_at_once_lose_nothing() {
    run_until(&Goals::LONG);
}

fn run_until(goals: &Goals) {
    let sandbox = Sandbox::new();
    let folder = sandbox.folder.path();
    let mut random = noise(7, 1 << 16).into_iter();
    let mut random = move |below: u8| random.next().unwrap_or(1) % below;
    let mut crew = Crew::start(folder);
    while !goals.are_reached(folder, crew.killed) {
        crew.kill_next(&mut random);
    }
    let killed = crew.killed + ROLES.len();
    drop(crew);
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
    assert_no_lock(&sandbox, killed);
    assert_eq!(check(&repository).errors, Vec::<String>::new());
    for record in &listed {
        assert!(
            is_whole(&repository, record, &sandbox.path("out")),
            "{}",
            record.id
        );
    }
    sandbox.restic(&["check", "--read-data"]);
}

/// Nothing in `locks` is a lock. A writer that was killed may have left one file each that never got its
/// name, which no program takes for a lock and a prune removes when it is a day old.
fn assert_no_lock(sandbox: &Sandbox, killed: usize) {
    let left: Vec<PathBuf> = sandbox.objects("locks").into_keys().collect();
    for file in &left {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(
            name.len() > 64 && name[64..].starts_with("-tmp-"),
            "{name} is a lock"
        );
    }
    assert!(left.len() <= killed, "{left:?}");
}
