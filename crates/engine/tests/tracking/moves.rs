//! File systems that move data.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use vrs_testkit::LoopDisk;

use crate::common::{MIB, Scene};
use crate::story::Story;

/// The file system moves data while it is asked where that is.
#[test]
#[ignore = "mounts file systems, as root"]
fn data_that_moves_meanwhile_is_no_lie() {
    let disk = LoopDisk::mount("btrfs", "");
    let scene = Scene::with_repository(disk.path());
    let mut story = Story::new(&scene);
    story.assert_taken_right();
    let is_done = AtomicBool::new(false);
    let moves = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                call(
                    &["btrfs", "balance", "start", "--full-balance"],
                    disk.path(),
                );
                moves.fetch_add(1, Ordering::SeqCst);
            }
        });
        let _done = SetOnDrop(&is_done);
        let mut takes = 0;
        while takes < 4 || (moves.load(Ordering::SeqCst) < 4 && !mover.is_finished()) {
            story
                .machine
                .fill(0, takes * 700_000 % (8 * MIB), 60_000, takes);
            story.assert_taken_right();
            takes += 1;
        }
    });
}

/// Or between two takes. Programs that do it have the image open for writing, so that no take begins.
#[test]
#[ignore = "mounts file systems, as root"]
fn data_that_moved_is_read() {
    let movers: [(&str, &[&str]); 2] = [
        (
            "btrfs",
            &["btrfs", "filesystem", "defragment", "-f", "-t", "1G"],
        ),
        ("xfs", &["xfs_fsr", "-v"]),
    ];
    for (kind, mover) in movers {
        let disk = LoopDisk::mount(kind, "");
        let scene = Scene::with_repository(disk.path());
        let mut story = Story::new(&scene);
        story.machine.sprinkle(0, 12 * MIB, 16 << 10);
        story.assert_taken_right();
        for seed in 0..3 {
            story.machine.fill(0, 2 * MIB, 60_000, seed);
            call(mover, &story.base());
            story.assert_taken_right();
            call(mover, &story.clones()[0]);
            story.assert_taken_right();
        }
    }
}

fn call(words: &[&str], path: &Path) {
    let mut command = std::process::Command::new(words[0]);
    let folders = std::env::var("PATH").unwrap() + ":/usr/sbin:/sbin";
    let output = command
        .args(&words[1..])
        .arg(path)
        .env("PATH", folders)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// Ends a thread however the test ends.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
