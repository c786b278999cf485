//! Whatever happens between takes.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vrs_engine::capture::CaptureMode;
use vrs_testkit::SampleMachine;

use crate::common::{MIB, Scene};
use crate::registered::{virtualbox, with_virtualbox};
use crate::scene::{
    DISKS, delete_virtualbox_snapshot, find, names, power_off, sample_at_rest, start, take_right,
    take_virtualbox_snapshot, tracked, with,
};

/// What happens to a machine between two takes.
#[derive(Debug, Clone)]
enum Event {
    Write {
        disk: usize,
        at: u64,
        bytes: usize,
    },
    Zero {
        block: u64,
    },
    TakeVirtualBoxSnapshot,
    DeleteVirtualBoxSnapshot,
    StartOrStop,
    Compact,
    Grow,
    Kill,
    /// Takes go into the other repository from now on.
    ChangeRepository,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let write = (0..DISKS, 0..5 * MIB, 1..700_000usize);
    prop_oneof![
        6 => write.prop_map(|(disk, at, bytes)| Write { disk, at, bytes }),
        2 => (0..11u64).prop_map(|block| Zero { block }),
        1 => Just(TakeVirtualBoxSnapshot),
        2 => Just(DeleteVirtualBoxSnapshot),
        2 => Just(StartOrStop),
        1 => Just(Compact),
        1 => Just(Grow),
        1 => Just(Kill),
        2 => Just(ChangeRepository),
    ]
}

/// A machine to which things happen.
struct Story {
    scene: Scene,
    elsewhere: Scene,
    machine: SampleMachine,
    capacity_bytes: u64,
    seed: u8,
}

impl Story {
    fn happens(&mut self, event: &Event) {
        if matches!(event, Event::ChangeRepository) {
            std::mem::swap(&mut self.scene, &mut self.elsewhere);
            return;
        }
        let scene = &self.scene;
        let id = find(scene).id.uuid();
        let fake = virtualbox(&scene.folder);
        let is_online = find(scene).state.is_online();
        self.seed += 1;
        match *event {
            Event::Write { disk, at, bytes } => {
                fake.write_as_guest(id, disk, at, &vec![self.seed; bytes]);
            }
            Event::Zero { block } => {
                fake.write_as_guest(id, 0, block * MIB, &vec![0; MIB as usize]);
            }
            Event::TakeVirtualBoxSnapshot if !is_online => take_virtualbox_snapshot(scene, "mine"),
            Event::DeleteVirtualBoxSnapshot => {
                if let Some(name) = names(scene).last() {
                    delete_virtualbox_snapshot(scene, name);
                }
            }
            Event::StartOrStop if is_online => power_off(scene),
            Event::StartOrStop => start(scene),
            Event::Kill if is_online => fake.set_state(id, "aborted"),
            Event::Compact if !is_online => self.machine.compact(0),
            Event::Grow if !is_online && names(scene).is_empty() => {
                self.capacity_bytes += 3 * MIB;
                self.machine.grow(0, self.capacity_bytes);
            }
            _ => {}
        }
    }
}

fn whatever_happens(cases: u32) {
    let config = Config {
        cases,
        max_shrink_iters: 10,
        failure_persistence: None,
        ..Config::default()
    };
    let takes = prop::collection::vec(prop::collection::vec(event(), 0..4), 1..5);
    TestRunner::new(config)
        .run(&takes, |takes| {
            let folder = tempfile::tempdir().unwrap();
            let (scene, machine) = sample_at_rest(folder.path());
            let mut story = Story {
                elsewhere: with_virtualbox(scene.elsewhere()),
                scene,
                machine,
                capacity_bytes: 12 * MIB,
                seed: 10,
            };
            take_right(&story.scene, tracked());
            for events in takes {
                events.iter().for_each(|event| story.happens(event));
                take_right(&story.scene, with(CaptureMode::DisksOnly));
                let names = names(&story.scene);
                let ours = names.iter().filter(|name| name.starts_with("vrs "));
                // The user's on one of ours that has no other below leave none of ours.
                assert_eq!(
                    ours.count(),
                    usize::from(!names.contains(&"mine".to_owned()))
                );
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn tracked_is_as_scanned() {
    whatever_happens(3);
}

#[test]
#[ignore = "the same, longer"]
fn soak_tracked_is_as_scanned() {
    whatever_happens(15);
}
