//! A machine that runs.

use vrs_engine::capture::CaptureMode;
use vrs_engine::machine::Machine;
use vrs_engine::take::{self, TakeOptions};
use vrs_progress::NoProgress;
use vrs_testkit::LoopDisk;

use crate::common::{self, MIB};
use crate::registered::{running_machine, virtualbox};
use crate::story::{NO_NOTES, report, tracked};

/// A machine that runs is cloned while VirtualBox writes to another image.
#[test]
#[ignore = "mounts file systems, as root"]
fn a_running_machine_is_tracked() {
    for kind in ["btrfs", "xfs"] {
        let disk = LoopDisk::mount(kind, "");
        let scene = running_machine(disk.path());
        let fake = virtualbox(disk.path());
        let take = |mode| {
            let machine = Machine::find(&scene.host, "web").unwrap();
            let options = TakeOptions {
                mode: Some(mode),
                ..tracked()
            };
            let plan = take::TakePlan::make(&scene.host, scene.store(), &machine, options);
            take::execute(&scene.host, scene.store(), &plan.unwrap(), &NoProgress).unwrap()
        };
        let id = Machine::find(&scene.host, "web").unwrap().id.uuid();
        for (number, mode) in [
            CaptureMode::Memory,
            CaptureMode::DisksOnly,
            CaptureMode::SaveState,
            CaptureMode::Memory,
        ]
        .into_iter()
        .enumerate()
        {
            let text = format!("written before take {number}");
            fake.write_as_guest(id, 0, 2 * MIB, text.as_bytes());
            let guest = fake.guest_bytes(id, 0);
            let taken = take(mode);
            let tracking = report(&taken);
            assert_eq!(tracking.notes, NO_NOTES);
            assert_eq!(tracking.images.len(), number.min(1));
            assert_eq!(fake.guest_bytes(id, 0), guest);
            // The guest's disk as the snapshot has it.
            let clone = scene
                .plan_clone("web@latest", &format!("copy {number}"))
                .unwrap();
            vrs_engine::restore::execute(&scene.host, scene.store(), &clone, &NoProgress).unwrap();
            let copy = Machine::find(&scene.host, &format!("copy {number}")).unwrap();
            assert_eq!(
                fake.guest_bytes(copy.id.uuid(), 0),
                guest,
                "{kind} {mode:?}"
            );
            let machines = scene.folder.join("machines");
            let files = common::tree(&machines);
            let clones = files
                .keys()
                .filter(|path| path.parent().unwrap().ends_with(".vrs-tracking"));
            assert_eq!(clones.count(), 1);
        }
    }
}
