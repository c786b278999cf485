//! What this computer hashes in a second, one text at a time and two at a time, with one thread and with all:
//! `cargo run --release -p vrs-sha256 --example speed`.
#![allow(clippy::print_stdout, clippy::arithmetic_side_effects)]

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use vrs_sha256::{Hash, hash, hash_all};

/// As long as the chunks of a disk.
const TEXT_BYTES: usize = 512 << 10;
const REPEATS: usize = 2000;

fn main() {
    let all = thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, all] {
        println!("MB/s with {threads} threads");
        let one = |text: &[u8]| vec![hash(text), hash(text)];
        println!("  one at a time {:>6.0}", speed(threads, one));
        let two = |text: &[u8]| hash_all(&[text, text]);
        println!("  two at a time {:>6.0}", speed(threads, two));
    }
}

/// `hash_twice` hashes a text two times.
fn speed(threads: usize, hash_twice: impl Fn(&[u8]) -> Vec<Hash> + Sync) -> f64 {
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let text: Vec<u8> = (0..=u8::MAX).cycle().take(TEXT_BYTES).collect();
                for _ in 0..REPEATS {
                    black_box(hash_twice(black_box(&text)));
                }
            });
        }
    });
    let bytes = (threads * REPEATS * 2 * TEXT_BYTES) as f64;
    bytes / begun.elapsed().as_secs_f64() / 1e6
}
