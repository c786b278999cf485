//! The verbs of a repository on every kind of storage, with the real servers.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use jiff::SignedDuration;
use rstest::rstest;
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_repository::store::{Chunking, FileSource, PruneOptions};
use vrs_repository::{
    ErrorKind, InitOptions, Location, OpenOptions, Password, ResticRepository, Result,
    SnapshotStore,
};
use vrs_testkit::{Proxy, ServerKind, StorageServer};

const NAME: &str = "repo";
const SIZE: usize = 600_000;
const LARGE_GRID: Chunking = Chunking::Grid {
    chunk_bytes: 128 << 10,
    phase_bytes: 0,
};
const LATENCY: Duration = Duration::from_millis(50);

fn options(server: &StorageServer) -> OpenOptions {
    let mut options = small_packs();
    options.access = access(server);
    options
}

fn location(server: &StorageServer) -> Location {
    location_of(server, NAME)
}

fn location_of(server: &StorageServer, name: &str) -> Location {
    Location::parse(&server.location(name)).unwrap()
}

fn init(server: &StorageServer) -> Result<()> {
    init_of(server, NAME)
}

fn init_of(server: &StorageServer, name: &str) -> Result<()> {
    let mut options = InitOptions::default();
    options.access = access(server);
    ResticRepository::init(&location_of(server, name), &password(), &options)
}

fn open(server: &StorageServer) -> ResticRepository {
    ResticRepository::open(&location(server), &password(), &options(server)).unwrap()
}

/// A running server with an empty repository.
fn served(kind: ServerKind) -> StorageServer {
    let server = StorageServer::start(kind);
    init(&server).unwrap();
    server
}

/// Stock restic: whether it succeeded, and all it said.
fn restic(server: &StorageServer, arguments: &[&str]) -> (bool, String) {
    restic_of(server, NAME, arguments)
}

fn restic_of(server: &StorageServer, name: &str, arguments: &[&str]) -> (bool, String) {
    let output = server
        .restic(name)
        .args(arguments)
        .env("RESTIC_PASSWORD", PASSWORD)
        .output()
        .expect("these tests need stock restic: apt-get install restic");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// A folder with a disk in it.
struct Machine {
    folder: tempfile::TempDir,
    size: usize,
}

impl Machine {
    fn new() -> Self {
        Self::of_size(SIZE)
    }

    fn of_size(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("disk"), noise(1, size)).unwrap();
        Self { folder, size }
    }

    fn source(&self) -> FileSource {
        source("disk", &self.folder.path().join("disk"), GRID)
    }

    /// Restores a snapshot elsewhere and compares.
    fn assert_comes_back(&self, repository: &ResticRepository, taken: &Taken) {
        let out = self.folder.path().join("out");
        restore(repository, &request(taken.id, &[("disk", &out)]));
        assert!(std::fs::read(&out).unwrap() == noise(1, self.size));
        std::fs::remove_file(out).unwrap();
    }

    /// Deletes a snapshot with a disk of its own and prunes, without any patience.
    fn assert_gives_space_back(&self, server: &StorageServer) {
        let mut options = options(server);
        (options.grace, options.upload_time) = (SignedDuration::ZERO, SignedDuration::ZERO);
        let repository = ResticRepository::open(&location(server), &password(), &options).unwrap();
        let other = self.folder.path().join("other");
        std::fs::write(&other, noise(2, SIZE)).unwrap();
        let gone = take(&repository, &[source("other", &other, GRID)]);
        repository.delete(&[gone.id], &NoProgress).unwrap();
        let prune = || {
            let options = PruneOptions::default();
            repository.prune(&options, &NoProgress).unwrap()
        };
        let (marked, freed) = (prune().marked_bytes, prune().freed_bytes);
        assert!(marked >= SIZE as u64 && freed == marked, "{marked} {freed}");
    }
}

#[rstest]
fn every_verb_works(
    #[values(
        ServerKind::Sshd,
        ServerKind::RcloneSftp,
        ServerKind::RcloneRest,
        ServerKind::Moto,
        ServerKind::MotoOverTls,
        ServerKind::RcloneWebdav,
        ServerKind::RcloneClient
    )]
    kind: ServerKind,
) {
    let server = StorageServer::start(kind);
    let absent = ResticRepository::open(&location(&server), &password(), &options(&server));
    let absent = absent.unwrap_err().kind();
    assert!(
        matches!(absent, ErrorKind::NotFound | ErrorKind::NotARepository),
        "{absent:?}"
    );
    init(&server).unwrap();
    assert_eq!(init(&server).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let (repository, machine) = (open(&server), Machine::new());

    let first = take(&repository, &[machine.source()]);
    assert_eq!(first.files[0].new_chunks, 148);
    let unchanged = take(&repository, &[machine.source()]);
    assert_eq!(
        unchanged.stats.objects,
        [("index", 0), ("pack", 0), ("snapshot", 1)].into()
    );
    let listed = |repository: &ResticRepository| {
        let list = repository.snapshots().unwrap();
        assert_eq!(list.unreadable, Vec::<String>::new());
        list.snapshots.len()
    };
    assert_eq!(listed(&open(&server)), 2);
    machine.assert_comes_back(&open(&server), &first);
    repository.delete(&[first.id], &NoProgress).unwrap();
    assert_eq!(listed(&repository), 1);
    machine.assert_gives_space_back(&server);
    machine.assert_comes_back(&repository, &unchanged);
    let report = check(&repository);
    assert_eq!((report.errors, report.warnings), (Vec::new(), Vec::new()));
    // It would have to be told of the certificate, and of rclone.
    let is_known_to_restic = !matches!(
        kind,
        ServerKind::MotoOverTls | ServerKind::RcloneClient | ServerKind::RcloneWebdav
    );
    if is_known_to_restic {
        let (sound, text) = restic(&server, &["check", "--read-data"]);
        assert!(sound, "{text}");
    }
}

/// Escaped as in a URL, which an object's key and a file's name are not.
#[rstest]
fn a_name_with_a_space_is_the_same_for_stock_restic(
    #[values(
        ServerKind::Sshd,
        ServerKind::RcloneSftp,
        ServerKind::RcloneRest,
        ServerKind::Moto,
        ServerKind::GuardedMoto
    )]
    kind: ServerKind,
) {
    const NAME: &str = "100%25%20ours";
    let server = StorageServer::start(kind);
    init_of(&server, NAME).unwrap();
    let (is_opened, text) = restic_of(&server, NAME, &["cat", "config"]);
    assert!(is_opened, "{text}");
}

#[rstest]
fn stock_restic_sees_our_lock_and_we_see_its(
    #[values(
        ServerKind::Sshd,
        ServerKind::RcloneSftp,
        ServerKind::RcloneRest,
        ServerKind::Moto
    )]
    kind: ServerKind,
) {
    let (server, machine) = (served(kind), Machine::new());
    let repository = open(&server);
    let mut ingest = repository.ingest(&NoProgress).unwrap();
    ingest.file(&machine.source()).unwrap();
    let (pruned, text) = restic(&server, &["prune"]);
    assert!(!pruned && text.contains("already locked"), "{text}");
    ingest.commit(&label()).unwrap();
    let (_, locks) = restic(&server, &["--no-lock", "list", "locks"]);
    assert_eq!(
        locks.lines().filter(|line| line.len() == 64).count(),
        0,
        "{locks}"
    );
    let (pruned, text) = restic(&server, &["prune"]);
    assert!(pruned, "{text}");
    assert_eq!(check(&repository).errors, Vec::<String>::new());

    let slow_check = || {
        server
            .restic(NAME)
            .args(["check", "--read-data", "--limit-download", "1"])
            .env("RESTIC_PASSWORD", PASSWORD)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut holder = slow_check();
    let refused = loop {
        // It ends early when it meets the lock of one of the attempts below.
        if holder.try_wait().unwrap().is_some() {
            holder = slow_check();
        }
        match repository.ingest(&NoProgress).map(|_| ()) {
            Ok(()) => std::thread::sleep(Duration::from_millis(500)),
            Err(error) => break error,
        }
    };
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
    take(&repository, &[machine.source()]);
}

/// Asks to stop after some packs.
struct StopsAfter(AtomicUsize);

impl Progress for StopsAfter {
    fn phase(&self, _: Phase) {}
    fn add(&self, _: Counter, _: u64) {}
    fn warn(&self, _: &str) {}

    fn step(&self, step: &'static str) {
        if step == "write pack" {
            let left = self.0.load(Ordering::SeqCst).saturating_sub(1);
            self.0.store(left, Ordering::SeqCst);
        }
    }

    fn interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

#[rstest]
fn an_interrupted_take_is_continued(
    #[values(
        ServerKind::Sshd,
        ServerKind::RcloneSftp,
        ServerKind::RcloneRest,
        ServerKind::Moto,
        ServerKind::RcloneClient
    )]
    kind: ServerKind,
) {
    let (server, machine) = (served(kind), Machine::new());
    let stops = StopsAfter(AtomicUsize::new(4));
    let error = take_with(&open(&server), &[machine.source()], &stops)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    let repository = open(&server);
    assert!(repository.snapshots().unwrap().snapshots.is_empty());
    let taken = take(&repository, &[machine.source()]);
    assert!(taken.stats.reused_bytes > 150_000, "{:?}", taken.stats);
    machine.assert_comes_back(&repository, &taken);
    assert_eq!(check(&repository).errors, Vec::<String>::new());
}

#[rstest]
#[case(ServerKind::Sshd, 200_000..500_000)]
#[case(ServerKind::RcloneSftp, 200_000..500_000)]
#[case(ServerKind::RcloneRest, 40_000..200_000)]
#[case(ServerKind::Moto, 40_000..200_000)]
fn a_slow_line_that_is_cut_again_and_again_loses_nothing(
    #[case] kind: ServerKind,
    #[case] after_bytes: std::ops::Range<u64>,
) {
    let (mut server, machine) = (served(kind), Machine::new());
    let proxy = Proxy::cutting(server.port(), LATENCY, after_bytes, 7);
    server.reach_through(&proxy);
    let repository = open(&server);
    let taken = take(&repository, &[machine.source()]);
    machine.assert_comes_back(&repository, &taken);
    assert!(proxy.cuts() > 0, "nothing was cut");
    assert_eq!(check(&repository).errors, Vec::<String>::new());
}

#[rstest]
#[case(ServerKind::Sshd)]
#[case(ServerKind::RcloneRest)]
#[case(ServerKind::Moto)]
fn many_requests_are_under_way_on_a_slow_line(#[case] kind: ServerKind) {
    const PACK_BYTES: u32 = 512 << 10;
    // Large enough for several threads.
    let (mut server, machine) = (served(kind), Machine::of_size(24 << 20));
    let proxy = Proxy::slow(server.port(), LATENCY);
    server.reach_through(&proxy);
    let mut options = options(&server);
    options.pack_bytes = PACK_BYTES;
    let repository = ResticRepository::open(&location(&server), &password(), &options).unwrap();
    let source = source("disk", &machine.folder.path().join("disk"), LARGE_GRID);
    let taken = take(&repository, &[source]);
    let under_way = proxy.most_bytes_under_way();
    assert!(
        under_way > 2 * u64::from(PACK_BYTES),
        "only {under_way} bytes"
    );
    machine.assert_comes_back(&repository, &taken);
    if kind != ServerKind::Sshd {
        let connections = proxy.most_connections();
        assert!((4..10).contains(&connections), "{connections} connections");
    }
}

#[rstest]
#[case(ServerKind::Sshd)]
#[case(ServerKind::RcloneRest)]
fn a_server_that_restarts_is_waited_for(#[case] kind: ServerKind) {
    struct Restarts(std::sync::Mutex<StorageServer>, AtomicUsize);
    impl Progress for Restarts {
        fn phase(&self, _: Phase) {}
        fn add(&self, _: Counter, _: u64) {}
        fn warn(&self, _: &str) {}

        fn step(&self, step: &'static str) {
            if step == "write pack" && self.1.fetch_add(1, Ordering::SeqCst) == 3 {
                self.0.lock().unwrap().restart();
            }
        }
    }
    let (server, machine) = (served(kind), Machine::new());
    let repository = open(&server);
    let restarts = Restarts(server.into(), AtomicUsize::new(0));
    let taken = take_with(&repository, &[machine.source()], &restarts).unwrap();
    assert!(restarts.1.load(Ordering::SeqCst) > 3);
    machine.assert_comes_back(&repository, &taken);
}

#[rstest]
#[case(ServerKind::Sshd)]
#[case(ServerKind::RcloneRest)]
#[case(ServerKind::Moto)]
fn a_server_that_is_not_there_is_told(#[case] kind: ServerKind) {
    let mut server = StorageServer::start(kind);
    server.stop();
    let error = init(&server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    let location = location(&server).to_string();
    assert!(error.to_string().contains(&location), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.to_lowercase().contains("refused"), "{cause}");
}

#[rstest]
#[case(ServerKind::Sshd)]
#[case(ServerKind::RcloneRest)]
fn wrong_credentials_are_told(#[case] kind: ServerKind) {
    let (server, other) = (served(kind), StorageServer::start(ServerKind::Sshd));
    let mut options = options(&server);
    let known_hosts = |server: &StorageServer| server.certificate().with_file_name("known_hosts");
    if kind == ServerKind::Sshd {
        std::fs::copy(known_hosts(&server), known_hosts(&other)).unwrap();
    }
    options.access.ssh = other.ssh();
    options.access.rest_login = Some(("me".to_owned(), Password::new("hunter2".to_owned())));
    let error = ResticRepository::open(&location(&server), &password(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let whole = format!("{error:?} {error}");
    assert!(
        whole.contains("refused the login") && !whole.contains("hunter2"),
        "{whole}"
    );
}

#[test]
fn a_wrong_key_of_s3_is_told() {
    let server = served(ServerKind::GuardedMoto);
    for (id, secret) in [("AKIANOBODY", "hunter2"), (server.s3_key().0, "hunter2")] {
        let mut options = options(&server);
        options.access.s3_key = Some(vrs_repository::S3Key {
            id: id.to_owned(),
            secret: Password::new(secret.to_owned()),
            session_token: None,
        });
        let error = ResticRepository::open(&location(&server), &password(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let whole = format!("{error:?} {error}");
        assert!(
            whole.contains("refused the login") && !whole.contains("hunter2"),
            "{whole}"
        );
    }
}

#[rstest]
#[case(ServerKind::Sshd)]
#[case(ServerKind::GuardedMoto)]
fn a_login_that_may_only_read_lists_and_restores_and_is_told_what_it_may_not(
    #[case] kind: ServerKind,
) {
    let (mut server, machine) = (served(kind), Machine::new());
    let taken = take(&open(&server), &[machine.source()]);
    let read_only = if kind == ServerKind::Sshd {
        StorageServer::start_at(ServerKind::ReadOnlySshd, server.root())
    } else {
        server.log_in_as("reading");
        server
    };
    let repository = open(&read_only);
    machine.assert_comes_back(&repository, &taken);
    let error = repository.ingest(&NoProgress).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("the server does not permit to write lock "),
        "{text}"
    );
}

#[rstest]
#[case(ServerKind::AppendOnlyRest, "", false)]
#[case(ServerKind::GuardedMoto, "adding", false)]
// Nothing at all may be removed: locks stay, and are stale half an hour later.
#[case(ServerKind::GuardedMoto, "adding-only", true)]
fn who_may_only_add_takes_snapshots_and_deletes_none(
    #[case] kind: ServerKind,
    #[case] user: &str,
    #[case] leaves_locks: bool,
) {
    let (mut server, machine) = (served(kind), Machine::new());
    if kind == ServerKind::GuardedMoto {
        server.log_in_as(user);
    }
    let repository = open(&server);
    take(&repository, &[machine.source()]);
    take(&open(&server), &[machine.source()]);
    let taken = take(&repository, &[machine.source()]);
    let error = repository.delete(&[taken.id], &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    machine.assert_comes_back(&repository, &taken);
    let (_, locks) = restic(&server, &["--no-lock", "list", "locks"]);
    let count = locks.lines().filter(|line| line.len() == 64).count();
    assert_eq!(count > 0, leaves_locks, "{locks}");
}

#[rstest]
fn a_killed_upload_leaves_no_short_object(
    #[values(ServerKind::Sshd, ServerKind::RcloneRest)] kind: ServerKind,
) {
    let (mut server, machine) = (served(kind), Machine::new());
    // Not even one pack passes, and nobody waits for a better line.
    let proxy = Proxy::cutting(server.port(), Duration::ZERO, 30_000..40_000, 3);
    server.reach_through(&proxy);
    let mut options = options(&server);
    options.pack_bytes = 1 << 20;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = std::sync::Arc::clone(&stop);
    options.access.interrupted =
        vrs_repository::Interrupted::new(move || asked.load(Ordering::SeqCst));
    let repository = ResticRepository::open(&location(&server), &password(), &options).unwrap();
    stop.store(true, Ordering::SeqCst);
    take_with(&repository, &[machine.source()], &NoProgress)
        .map(|_| ())
        .unwrap_err();
    let data = server.root().join(NAME).join("data");
    for folder in std::fs::read_dir(data).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap();
            let is_object = name.len() == 64;
            let hash = vrs_testkit::sha256(&std::fs::read(&file).unwrap());
            assert!(!is_object || hash == name, "{}", file.display());
        }
    }
}

/// In a folder, and on a server that can tell how old a file is.
#[rstest]
fn what_writers_left_long_ago_is_removed_by_a_take_and_a_prune(
    #[values(false, true)] is_server: bool,
) {
    let (server, machine) = (served(ServerKind::Sshd), Machine::new());
    let folder = server.root().join(NAME);
    let location = if is_server {
        location(&server)
    } else {
        Location::parse(folder.to_str().unwrap()).unwrap()
    };
    let open = || ResticRepository::open(&location, &password(), &options(&server)).unwrap();
    let name = "ab".repeat(32);
    let places = [format!("data/ab/{name}"), format!("index/{name}")];
    let left = |ending: &str, age_hours: u64| {
        let files = places
            .each_ref()
            .map(|place| folder.join(format!("{place}{ending}")));
        for path in &files {
            let file = std::fs::File::create(path).unwrap();
            let age = Duration::from_secs(age_hours * 3600);
            file.set_modified(std::time::SystemTime::now() - age)
                .unwrap();
        }
        files
    };
    let stays = [left("-tmp-young", 23), left(".txt", 1000)].concat();
    let take = || _ = take(&open(), &[machine.source()]);
    let prune = || _ = open().prune(&PruneOptions::default(), &NoProgress).unwrap();
    let verbs: [&dyn Fn(); 2] = [&take, &prune];
    for verb in verbs {
        let goes = left("-tmp-old", 25);
        verb();
        assert!(goes.iter().all(|path| !path.exists()), "{goes:?}");
        assert!(stays.iter().all(|path| path.exists()), "{stays:?}");
    }
}

#[test]
fn limits_are_kept() {
    let (server, machine) = (served(ServerKind::RcloneRest), Machine::new());
    let mut options = options(&server);
    options.access.upload_kib_per_second = NonZeroU32::new(400);
    options.access.download_kib_per_second = NonZeroU32::new(400);
    let repository = ResticRepository::open(&location(&server), &password(), &options).unwrap();
    // Never faster than the limit: a slow computer only makes it slower.
    let least = Duration::from_secs_f64(SIZE as f64 / (400.0 * 1024.0)) * 9 / 10;
    let start = std::time::Instant::now();
    let taken = take(&repository, &[machine.source()]);
    assert!(start.elapsed() > least, "{:?}", start.elapsed());
    let start = std::time::Instant::now();
    machine.assert_comes_back(&repository, &taken);
    assert!(start.elapsed() > least, "{:?}", start.elapsed());
}

/// Opens with copies of what was read before in a folder of this host.
fn open_caching(server: &StorageServer, machine: &Machine) -> ResticRepository {
    let mut options = options(server);
    options.cache_folder = Some(machine.folder.path().join("cache"));
    ResticRepository::open(&location(server), &password(), &options).unwrap()
}

fn damage_all(folder: &std::path::Path) {
    for file in files_below(folder) {
        let mut content = std::fs::read(&file).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        let mut permissions = file.metadata().unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(&file, permissions).unwrap();
        std::fs::write(file, content).unwrap();
    }
}

#[test]
fn objects_that_were_read_before_are_not_fetched_again() {
    let server = served(ServerKind::Sshd);
    let machine = Machine::new();
    let first = take(&open(&server), &[machine.source()]);
    let second = take(&open(&server), &[machine.source()]);
    machine.assert_comes_back(&open_caching(&server, &machine), &first);
    let listed = open_caching(&server, &machine).snapshots().unwrap();
    assert_eq!(listed.snapshots.len(), 2);

    // Proof: on the server they are unreadable now, and nobody but the check notices.
    let stored = server.root().join(NAME);
    ["index", "snapshots"]
        .iter()
        .for_each(|kind| damage_all(&stored.join(kind)));
    let cached = open_caching(&server, &machine);
    assert_eq!(cached.snapshots().unwrap(), listed);
    machine.assert_comes_back(&cached, &second);
    assert_eq!(check(&cached).damaged_snapshots.len(), 2);
    assert_eq!(open(&server).snapshots().unwrap().unreadable.len(), 2);
}

#[test]
fn damaged_copies_are_fetched_again_and_old_ones_go() {
    let server = served(ServerKind::Sshd);
    let machine = Machine::new();
    let first = take(&open(&server), &[machine.source()]);
    let second = take(&open(&server), &[machine.source()]);
    let copies = machine.folder.path().join("cache");
    let size_bytes = |kind: &str| {
        let all = files_below(&copies).into_iter();
        let mut of_kind = all.filter(|file| file.file_stem().unwrap() == kind);
        of_kind.next().unwrap().metadata().unwrap().len()
    };
    machine.assert_comes_back(&open_caching(&server, &machine), &first);
    open_caching(&server, &machine).snapshots().unwrap();
    let (of_index, of_two) = (size_bytes("index"), size_bytes("snapshots"));
    damage_all(&copies);
    let repository = open_caching(&server, &machine);
    assert!(repository.snapshots().unwrap().unreadable.is_empty());
    machine.assert_comes_back(&repository, &second);
    repository.delete(&[first.id], &NoProgress).unwrap();
    assert_eq!(repository.snapshots().unwrap().snapshots.len(), 1);
    assert!(size_bytes("snapshots") < of_two * 2 / 3);
    // What replaced the damaged ones takes their room.
    assert_eq!(size_bytes("index"), of_index);
}

/// A bucket of which every version of every object is locked for a day, whoever asks.
struct LockedBucket {
    address: String,
}

/// This server looks at nothing else in it.
const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

impl LockedBucket {
    fn make(server: &StorageServer) -> Self {
        let address = format!("http://127.0.0.1:{}/vrs-bucket", server.port());
        let bucket = Self { address };
        let make = bucket
            .put("")
            .header("x-amz-bucket-object-lock-enabled", "true");
        make.send_empty().unwrap();
        let rule = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
            <Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
        bucket.put("?object-lock").send(rule).unwrap();
        bucket
    }

    fn put(&self, what: &str) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        ureq::put(format!("{}{what}", self.address)).header("Authorization", SIGNATURE)
    }

    fn get(&self, what: &str) -> Vec<u8> {
        let request = ureq::get(format!("{}{what}", self.address));
        let answer = request.header("Authorization", SIGNATURE).call().unwrap();
        answer.into_body().read_to_vec().unwrap()
    }

    /// Keys and versions, the oldest of each key last.
    fn versions(&self) -> Vec<(String, String)> {
        let list = String::from_utf8(self.get("?versions")).unwrap();
        let field = |text: &str, name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let versions = list.split("<Version>").skip(1);
        versions
            .map(|text| (field(text, "Key"), field(text, "VersionId")))
            .collect()
    }

    fn read(&self, key: &str, version: &str) -> Vec<u8> {
        self.get(&format!("/{key}?versionId={version}"))
    }

    fn write(&self, key: &str, content: &[u8]) {
        use base64::Engine as _;
        use md5::Digest as _;
        // A locked bucket takes nothing without it.
        let sum = base64::engine::general_purpose::STANDARD.encode(md5::Md5::digest(content));
        let request = self.put(&format!("/{key}")).header("Content-MD5", sum);
        request.send(content).unwrap();
    }

    fn delete(&self, key: &str, version: &str) -> std::result::Result<(), ureq::Error> {
        let request = ureq::delete(format!("{}/{key}?versionId={version}", self.address));
        request
            .header("Authorization", SIGNATURE)
            .call()
            .map(|_| ())
    }
}

#[test]
fn whatever_a_stolen_key_does_to_locked_objects_can_be_undone() {
    let server = StorageServer::start(ServerKind::Moto);
    let bucket = LockedBucket::make(&server);
    init(&server).unwrap();
    let machine = Machine::new();
    let taken = take(&open(&server), &[machine.source()]);

    // A key that may do everything, in the wrong hands.
    open(&server).delete(&[taken.id], &NoProgress).unwrap();
    assert!(open(&server).snapshots().unwrap().snapshots.is_empty());
    let there: Vec<_> = bucket
        .versions()
        .into_iter()
        .filter(|(key, _)| !key.contains("/locks/"))
        .collect();
    for (key, version) in &there {
        let refused = bucket.delete(key, version).unwrap_err();
        assert!(
            matches!(refused, ureq::Error::StatusCode(403)),
            "{key}: {refused}"
        );
        if key.contains("/data/") {
            bucket.write(key, b"nothing");
        }
    }
    let damaged = check(&open(&server));
    assert!(!damaged.errors.is_empty());

    // The oldest versions are what vrs wrote.
    for (key, version) in &there {
        bucket.write(key, &bucket.read(key, version));
    }
    let repository = open(&server);
    assert_eq!(check(&repository).errors, Vec::<String>::new());
    machine.assert_comes_back(&repository, &taken);
    take(&repository, &[machine.source()]);
    machine.assert_gives_space_back(&server);
}
