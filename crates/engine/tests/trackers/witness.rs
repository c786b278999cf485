//! Somebody who writes as the guest while the machine is captured, and keeps what the images were.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use uuid::Uuid;
use vrs_progress::{Counter, Phase, Progress};

use crate::common::{MIB, Scene};
use crate::registered::virtualbox;
use crate::scene::find;

/// Copies the images when all of them were read, and writes as the guest while the machine is captured.
pub struct Witness {
    folder: PathBuf,
    machine: Uuid,
    is_running: bool,
    wrote: AtomicU8,
    pub copies: Mutex<BTreeMap<PathBuf, PathBuf>>,
}

impl Witness {
    pub fn new(scene: &Scene) -> Self {
        let machine = find(scene);
        Self {
            folder: scene.folder.clone(),
            machine: machine.id.uuid(),
            is_running: machine.state.is_online(),
            wrote: AtomicU8::new(100),
            copies: Mutex::default(),
        }
    }

    fn copy(&self) {
        let mut copies = self.copies.lock().unwrap();
        if !copies.is_empty() {
            return;
        }
        for folder in ["machines/web", "machines/web/Snapshots"] {
            let files = std::fs::read_dir(self.folder.join(folder));
            for file in files.into_iter().flatten() {
                let path = file.unwrap().path();
                if path.is_dir() {
                    continue;
                }
                let copy = self.folder.join(format!("copy {}", copies.len()));
                std::fs::copy(&path, &copy).unwrap();
                copies.insert(path, copy);
            }
        }
    }

    fn write(&self) {
        let number = self.wrote.fetch_add(1, Ordering::SeqCst);
        let at = u64::from(number % 11) * MIB + 70_000;
        virtualbox(&self.folder).write_as_guest(self.machine, 0, at, &[number; 3000]);
    }
}

impl Progress for Witness {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, warning: &str) {
        panic!("{warning}");
    }
    fn step(&self, step: &'static str) {
        if ["tracker-take", "virtualbox-snapshot-delete"].contains(&step) {
            self.copy();
        }
        if self.is_running
            && [
                "tracker-delete",
                "tracker-take",
                "virtualbox-snapshot-delete",
            ]
            .contains(&step)
        {
            self.write();
        }
    }
}
