//! What this computer can do at best: the speeds on which every program of this kind is built.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Instant;

use aes256ctr_poly1305aes::aead::Aead;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};

use crate::states::States;

const PIECE: usize = 512 << 10;
const MOST: u64 = 1 << 30;
const LEVEL: i32 = 1;

/// Megabytes a second on all cores, of the second state's image, which is in memory. What this process needs
/// for that would count as the peak of programs that it starts later.
#[must_use]
pub fn table(states: &States) -> String {
    let file = &states.image(1);
    let pieces = pieces(file);
    let sealed: Vec<Vec<u8>> = pieces.iter().map(|piece| seal(&compress(piece))).collect();
    let rows = [
        ("read", speed(file, &pieces, |_| ())),
        (
            "read, SHA-256",
            speed(file, &pieces, |number| {
                let _ = black_box(vrs_sha256::hash(&pieces[number]));
            }),
        ),
        (
            "the same, two halves at a time",
            speed(file, &pieces, |number| {
                let (one, other) = pieces[number].split_at(PIECE / 2);
                let _ = black_box(vrs_sha256::hash_all(&[one, other]));
            }),
        ),
        (
            "read, BLAKE3",
            speed(file, &pieces, |number| {
                let _ = black_box(blake3::hash(&pieces[number]));
            }),
        ),
        (
            "read, zstd 1",
            speed(file, &pieces, |number| drop(compress(&pieces[number]))),
        ),
        (
            "decrypt, decompress",
            speed_of(&pieces, |number| drop(open(&sealed[number]))),
        ),
    ];
    let rows = rows.map(|(title, speed)| format!("  {title:<32}{speed:>8.0}"));
    format!("on all cores, MB/s\n{}", rows.join("\n"))
}

fn pieces(file: &Path) -> Vec<Vec<u8>> {
    let bytes = file.metadata().expect("its length").len().min(MOST);
    let piece = |number| read(file, number);
    (0..bytes / PIECE as u64).map(piece).collect()
}

fn read(file: &Path, number: u64) -> Vec<u8> {
    let mut piece = vec![0; PIECE];
    let mut file = File::open(file).expect("a file");
    file.seek(SeekFrom::Start(number * PIECE as u64))
        .expect("a place in the file");
    file.read_exact(&mut piece).expect("a piece of the file");
    piece
}

/// Each piece is read again before the work on it.
fn speed(file: &Path, pieces: &[Vec<u8>], work: impl Fn(usize) + Sync) -> f64 {
    speed_of(pieces, |number| {
        drop(black_box(read(file, number as u64)));
        work(number);
    })
}

fn speed_of(pieces: &[Vec<u8>], work: impl Fn(usize) + Sync) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            scope.spawn(move || (thread..pieces.len()).step_by(threads).for_each(work));
        }
    });
    (pieces.len() * PIECE) as f64 / begun.elapsed().as_secs_f64() / 1e6
}

fn compress(piece: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(piece, LEVEL).expect("memory")
}

fn cipher() -> Aes256CtrPoly1305Aes {
    Aes256CtrPoly1305Aes::new(Key::from_slice(&[7; 64]))
}

fn seal(piece: &[u8]) -> Vec<u8> {
    cipher()
        .encrypt(&Nonce::default(), piece)
        .expect("a short piece")
}

fn open(sealed: &[u8]) -> Vec<u8> {
    let plain = cipher()
        .decrypt(&Nonce::default(), sealed)
        .expect("what was sealed");
    zstd::bulk::decompress(&plain, PIECE).expect("what was compressed")
}
