//! How many requests a command sends to a server, one after the other or not: over a long line they are what
//! it takes its time for.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use vrs_progress::NoProgress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{FileSource, PreviousFile, SnapshotWords, read_to_vec};
use vrs_repository::{InitOptions, Location, OpenOptions, ResticRepository, SnapshotStore};
use vrs_testkit::{Proxy, ServerKind, StorageServer};

const NAME: &str = "repo";
const SNAPSHOTS: usize = 300;
const SIZE: usize = 512 + 100 * 4096;

/// A repository on a REST server behind a line that sees each request.
struct Scene {
    sandbox: Sandbox,
    server: StorageServer,
    proxy: Proxy,
    machine: [PathBuf; 2],
}

impl Scene {
    fn new() -> Self {
        let mut server = StorageServer::start(ServerKind::RcloneRest);
        let proxy = Proxy::slow(server.port(), Duration::ZERO);
        server.reach_through(&proxy);
        let sandbox = Sandbox::new();
        let machine = [1, 2].map(|seed| {
            let name = format!("machine/disk{seed}");
            sandbox.write(&name, &noise(seed, SIZE))
        });
        let scene = Self {
            sandbox,
            server,
            proxy,
            machine,
        };
        let mut options = InitOptions::default();
        options.access = access(&scene.server);
        ResticRepository::init(&scene.location(), &password(), &options).unwrap();
        scene
    }

    fn location(&self) -> Location {
        Location::parse(&self.server.location(NAME)).unwrap()
    }

    /// Adds snapshots and as many files of the index, where the server keeps them.
    fn add_many(&self) {
        let folder = self.server.root().join(NAME);
        let location = Location::parse(folder.to_str().unwrap()).unwrap();
        let mut options: OpenOptions = small_packs();
        (options.pack_bytes, options.index_every_bytes) = (4096, 1);
        // Two that end a pack at the same time write one file of the index.
        options.threads = 1;
        let repository = ResticRepository::open(&location, &password(), &options).unwrap();
        let content = noise(3, SNAPSHOTS * 4096);
        let local = self.sandbox.write("other", &content);
        let mut ingest = repository.ingest(&NoProgress).unwrap();
        ingest.file(&source("other", &local, GRID)).unwrap();
        let mut label = label();
        // Not the last of the machine.
        label.time = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut id = ingest.commit(&label).unwrap().0;
        for number in 1..SNAPSHOTS {
            let place = folder.join(format!("snapshots/{id}"));
            let object = std::fs::read(&place).unwrap();
            let words = SnapshotWords {
                tags: Vec::new(),
                description: Some(number.to_string()),
            };
            id = repository.relabel(&id, &words, &NoProgress).unwrap();
            // The former one stays.
            std::fs::write(&place, object).unwrap();
        }
    }

    /// What a list, a take and a restore send, by a repository that is opened for each; and the files that
    /// this host keeps copies in.
    fn all_requests(&self, cache: &Path) -> ([BTreeMap<String, usize>; 3], usize) {
        self.requests();
        self.open(Some(cache)).snapshots().unwrap();
        let list = self.requests();
        let id = self.take(&self.open(Some(cache)));
        let take = self.requests();
        self.restore(&self.open(Some(cache)), id);
        let is_tree = |file: &PathBuf| file.parent().unwrap().ends_with("trees");
        let files = files_below(cache).into_iter().filter(|file| !is_tree(file));
        ([list, take, self.requests()], files.count())
    }

    fn open(&self, cache: Option<&Path>) -> ResticRepository {
        let mut options: OpenOptions = small_packs();
        options.access = access(&self.server);
        options.cache_folder = cache.map(Path::to_owned);
        ResticRepository::open(&self.location(), &password(), &options).unwrap()
    }

    /// As a command that takes a snapshot goes about it.
    fn take(&self, repository: &ResticRepository) -> SnapshotId {
        let listed = repository.snapshots().unwrap();
        let previous = listed.snapshots.last().map(|record| record.id);
        let mut changes = "first".to_owned();
        if let Some(previous) = previous {
            assert_eq!(repository.files(&previous).unwrap().len(), 3);
            let manifest = path("vrs/manifest.json");
            let mut reader = repository.open_file(&previous, &manifest).unwrap();
            changes = String::from_utf8(read_to_vec(reader.as_mut(), 1 << 20).unwrap()).unwrap();
        }
        let mut ingest = repository.ingest(&NoProgress).unwrap();
        for (number, local) in self.machine.iter().enumerate() {
            let source = source(&format!("m/disk{number}"), local, GRID);
            let previous = previous.map(|snapshot| PreviousFile {
                snapshot,
                path: source.path.clone(),
                unchanged: std::iter::once(0..SIZE as u64).collect(),
            });
            ingest.file(&FileSource { previous, ..source }).unwrap();
        }
        // Another one each time, whichever of the same time it goes on from.
        changes.push_str(&format!(", {}", listed.snapshots.len()));
        ingest
            .bytes(&path("vrs/manifest.json"), changes.as_bytes())
            .unwrap();
        ingest.commit(&label()).unwrap().0
    }

    /// As a command that restores a snapshot goes about it: nothing is missing.
    fn restore(&self, repository: &ResticRepository, snapshot: SnapshotId) {
        assert!(!repository.snapshots().unwrap().snapshots.is_empty());
        assert_eq!(repository.files(&snapshot).unwrap().len(), 3);
        let [one, other] = &self.machine;
        let request = request(snapshot, &[("m/disk0", one), ("m/disk1", other)]);
        repository.plan_restore(&request, &NoProgress).unwrap();
        let stats = restore(repository, &request);
        assert_eq!(stats.fetched_chunks, 0);
    }

    /// Requests by method and kind, with the number of each since the last call.
    fn requests(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in self.proxy.take_requests() {
            let (method, place) = request.split_once(' ').unwrap();
            let place = place.strip_prefix(&format!("/{NAME}/")).unwrap();
            let (kind, name) = place.split_once('/').unwrap_or((place, "one"));
            let what = match (method, name) {
                ("GET", "") => "list",
                ("GET", _) => "read",
                ("POST", _) => "write",
                ("DELETE", _) => "remove",
                _ => method,
            };
            *counts.entry(format!("{what} {kind}")).or_default() += 1;
        }
        counts
    }
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    let expected = expected.into_iter();
    expected
        .map(|(what, count)| (what.to_owned(), count))
        .collect()
}

#[test]
fn each_command_asks_once_for_what_it_needs() {
    let scene = Scene::new();
    let cache = scene.sandbox.path("cache");
    scene.take(&scene.open(Some(&cache)));
    scene.take(&scene.open(Some(&cache)));
    scene.requests();
    let open = [("read config", 1), ("list keys", 1), ("read keys", 1)];
    let also = |more: &[(&str, usize)]| {
        let all = open.iter().chain(more).copied();
        all.map(|(what, count)| (what.to_owned(), count))
            .collect::<BTreeMap<_, _>>()
    };

    let repository = scene.open(Some(&cache));
    assert_eq!(scene.requests(), counts(open));
    repository.snapshots().unwrap();
    assert_eq!(scene.requests(), counts([("list snapshots", 1)]));

    let id = scene.take(&scene.open(Some(&cache)));
    // The index is looked at before the snapshot, on both sides of its appearance, and for reading the last
    // one; the locks before and after one's own is there. The manifest is read, the new one and the folders
    // written; this host has copies of the folders.
    let take = [
        ("list snapshots", 1),
        ("list index", 4),
        ("list locks", 2),
        ("write locks", 1),
        ("remove locks", 1),
        ("list data", 1),
        ("read data", 1),
        ("write data", 2),
        ("write index", 1),
        ("write snapshots", 1),
    ];
    assert_eq!(scene.requests(), also(&take));

    scene.restore(&scene.open(Some(&cache)), id);
    let restore = [("list snapshots", 1), ("list index", 2)];
    assert_eq!(scene.requests(), also(&restore));
}

#[test]
fn three_hundred_snapshots_take_no_more_requests_than_a_few() {
    let scene = Scene::new();
    let cache = scene.sandbox.path("cache");
    scene.take(&scene.open(Some(&cache)));
    scene.take(&scene.open(Some(&cache)));
    let few = scene.all_requests(&cache);
    scene.add_many();
    // Each travels once.
    scene.requests();
    let repository = scene.open(Some(&cache));
    let listed = repository.snapshots().unwrap();
    let last = listed.snapshots.last().unwrap().id;
    repository.files(&last).unwrap();
    let first_time = scene.requests();
    assert_eq!(first_time["read snapshots"], SNAPSHOTS);
    assert!(first_time["read index"] >= SNAPSHOTS);
    assert_eq!(listed.snapshots.len(), 3 + SNAPSHOTS);
    let (many, files) = scene.all_requests(&cache);
    assert_eq!(many, few.0);
    // Beside the copies lies what was gathered of them.
    assert_eq!(files, few.1 + 2);

    // Which is enough by itself.
    for name in ["index.copies", "snapshots.copies"] {
        let copies = files_below(&cache)
            .into_iter()
            .find(|file| file.ends_with(name));
        std::fs::remove_file(copies.unwrap()).unwrap();
    }
    let (without_copies, _) = scene.all_requests(&cache);
    for (requests, usual) in without_copies.iter().zip(&many) {
        for kind in ["read index", "read snapshots"] {
            let read = |requests: &BTreeMap<String, usize>| requests.get(kind).copied();
            let more = read(requests).unwrap_or_default() - read(usual).unwrap_or_default();
            assert!(more < 10, "{requests:?}");
        }
    }
}
