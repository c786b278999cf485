//! A line that is slower than this computer is full as long as there is something to send or fetch.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, missing_docs)]

mod common;

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;
use rstest::rstest;
use vrs_repository::store::Chunking;
use vrs_repository::{InitOptions, Location, OpenOptions, ResticRepository};
use vrs_testkit::{Proxy, ServerKind, StorageServer};

const NAME: &str = "repo";
/// 20 Mbit/s, and 20 ms there and back.
const BYTES_A_SECOND: u64 = 2_500_000;
const LATENCY: Duration = Duration::from_millis(10);
const ATTEMPTS: usize = 4;
/// What does not count at both ends: the first and last requests carry no content.
const EDGE_BYTES: u64 = 256 << 10;

/// What passes the line.
#[derive(Clone, Copy)]
struct Load {
    size_bytes: usize,
    pack_bytes: u32,
    chunking: Chunking,
}

/// In small packs, so that what is done once for each pack weighs more.
const SMALL: Load = Load {
    size_bytes: 5 << 20,
    pack_bytes: 512 << 10,
    // A grid is read in ranges that hold several of such packs, and one thread sends all packs of a range.
    chunking: Chunking::ContentDefined {
        average_bytes: 64 << 10,
    },
};
/// As users have it.
const USUAL: Load = Load {
    size_bytes: 96 << 20,
    pack_bytes: 16 << 20,
    chunking: Chunking::Grid {
        chunk_bytes: 512 << 10,
        phase_bytes: 0,
    },
};

/// How much of the line was in use from the first to the last byte of content.
fn share_in_use(load: Load, bytes: impl Fn() -> u64 + Sync, operation: impl FnOnce()) -> f64 {
    let (before, ended) = (bytes(), AtomicBool::new(false));
    let counts = std::thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let mut counts = Vec::new();
            while !ended.load(Ordering::SeqCst) {
                counts.push((Instant::now(), bytes() - before));
                std::thread::sleep(Duration::from_millis(5));
            }
            counts
        });
        operation();
        ended.store(true, Ordering::SeqCst);
        observer.join().unwrap()
    });
    let all = bytes() - before;
    assert!(
        all >= load.size_bytes as u64,
        "only {all} bytes went over the line"
    );
    let within = |(_, count): &&(Instant, u64)| (EDGE_BYTES..=all - EDGE_BYTES).contains(count);
    let first = counts.iter().find(within).unwrap();
    let last = counts.iter().rfind(within).unwrap();
    let could = (last.0 - first.0).as_secs_f64() * BYTES_A_SECOND as f64;
    (last.1 - first.1) as f64 / could
}

/// The bounds lie between what was measured and what one request at a time reaches.
#[rstest]
#[case(ServerKind::Sshd, 0.7)]
#[case(ServerKind::RcloneRest, 0.85)]
#[case(ServerKind::Moto, 0.85)]
fn the_line_is_full_while_there_is_something_to_move(
    #[case] kind: ServerKind,
    #[case] least_share: f64,
) {
    require_full(kind, SMALL, least_share);
}

#[rstest]
#[case(ServerKind::Sshd)]
#[case(ServerKind::RcloneRest)]
#[case(ServerKind::Moto)]
#[ignore = "soak: some minutes"]
fn soak_the_line_is_full_with_packs_of_the_usual_size(#[case] kind: ServerKind) {
    require_full(kind, USUAL, 0.95);
}

fn require_full(kind: ServerKind, load: Load, least_share: f64) {
    // Whatever else the computer does can only lower a share.
    let mut shares = (0..ATTEMPTS).map(|_| shares_of(kind, load));
    let is_full =
        |&(sending, fetching): &(f64, f64)| sending >= least_share && fetching >= least_share;
    assert!(shares.any(|share| is_full(&share)), "see the shares above");
}

/// To send, and to fetch.
fn shares_of(kind: ServerKind, load: Load) -> (f64, f64) {
    let mut server = StorageServer::start(kind);
    let location = Location::parse(&server.location(NAME)).unwrap();
    let mut new = InitOptions::default();
    new.access = access(&server);
    ResticRepository::init(&location, &password(), &new).unwrap();
    let proxy = Proxy::slow(server.port(), LATENCY);
    proxy.limit(NonZeroU64::new(BYTES_A_SECOND));
    server.reach_through(&proxy);
    let location = Location::parse(&server.location(NAME)).unwrap();
    let mut options = OpenOptions::default();
    options.access = access(&server);
    options.pack_bytes = load.pack_bytes;
    let repository = ResticRepository::open(&location, &password(), &options).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("disk");
    std::fs::write(&local, noise(1, load.size_bytes)).unwrap();
    let mut taken = None;
    let sending = share_in_use(
        load,
        || proxy.sent_bytes(),
        || taken = Some(take(&repository, &[source("disk", &local, load.chunking)])),
    );
    let out = folder.path().join("out");
    let request = request(taken.unwrap().id, &[("disk", &out)]);
    let fetching = share_in_use(
        load,
        || proxy.received_bytes(),
        || {
            restore(&repository, &request);
        },
    );
    println!("{kind:?}: {sending:.3} of the line to send, {fetching:.3} to fetch");
    assert!(std::fs::read(&out).unwrap() == noise(1, load.size_bytes));
    (sending, fetching)
}
