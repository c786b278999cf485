//! Scenes with a fake VirtualBox, kept in a folder of the scene so that child processes see it.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::Path;

use vrs_engine::machine::Machine;
use vrs_engine::recover::{self, Recovered};
use vrs_progress::NoProgress;
use vrs_testkit::{FakeVBoxManage, SampleDisk, SampleMachine};
use vrs_virtualbox::{LocateOptions, MachineSettings, VBoxManage};

use crate::common::{MIB, Scene, Tree, tree};

/// The VirtualBox of the scene in `folder`; made if there is none.
pub fn virtualbox(folder: &Path) -> FakeVBoxManage {
    FakeVBoxManage::at(&folder.join("virtualbox"))
}

/// `scene` on a host with VirtualBox.
pub fn with_virtualbox(mut scene: Scene) -> Scene {
    let options = LocateOptions {
        program: Some(virtualbox(&scene.folder).program()),
        ..LocateOptions::default()
    };
    scene.host.virtualbox = Ok(VBoxManage::locate(&options).unwrap());
    scene
}

/// The smallest machine that has a disk.
pub fn small_machine(scene: &Scene, name: &str) -> SampleMachine {
    let mut machine = SampleMachine::builder(&scene.machines(), name)
        .disk(SampleDisk::dynamic(4 * MIB))
        .nvram(300)
        .build();
    machine.fill(0, 0, 1 << 20, 1);
    machine
}

/// A machine that VirtualBox knows, running, and its guest has written something.
pub fn running_machine(folder: &Path) -> Scene {
    let scene = Scene::with_repository(folder);
    let machine = small_machine(&scene, "web");
    let fake = virtualbox(folder);
    fake.register(&machine.settings_path());
    fake.run(["startvm", "web", "--type", "headless"]);
    fake.write_as_guest(machine.id(), 0, MIB, b"written by the guest");
    Known::ToVirtualBox.scene(folder)
}

/// Who knows the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Known {
    ByItsFile,
    ToVirtualBox,
}

impl Known {
    pub fn scene(self, folder: &Path) -> Scene {
        let scene = Scene::new(folder);
        match self {
            Self::ByItsFile => scene,
            Self::ToVirtualBox => with_virtualbox(scene),
        }
    }
}

/// A machine whose first snapshot differs from its present state in every respect.
pub fn changed_machine(folder: &Path, known: Known) -> (Tree, Tree) {
    let scene = Scene::with_repository(folder);
    let mut machine = small_machine(&scene, "web");
    machine.take_virtualbox_snapshot("early");
    let first = tree(&scene.machines());
    scene.take(&machine);
    machine.fill(0, MIB, 200_000, 5);
    machine.take_virtualbox_snapshot("later");
    machine.fill(0, 2 * MIB, 200_000, 6);
    machine.save_state(b"ram");
    if known == Known::ToVirtualBox {
        virtualbox(folder).register(&machine.settings_path());
    }
    (first, tree(&scene.machines()))
}

pub fn find(scene: &Scene, folder: &Path) -> Machine {
    let settings_file = folder.join("machines/web/web.vbox");
    Machine::find(&scene.host, settings_file.to_str().unwrap()).unwrap()
}

/// VirtualBox lists just these machines, of the scene's folder, with just the images that their
/// settings name, all of them readable.
pub fn assert_listed(scene: &Scene, names: &[&str], what: &str) {
    let virtualbox = scene.host.virtualbox().unwrap();
    let listed = virtualbox.machines().unwrap();
    let mut listed: Vec<_> = listed
        .into_iter()
        .filter_map(|machine| machine.name)
        .collect();
    listed.sort();
    assert_eq!(listed, names, "{what}");
    let mut expected = Vec::new();
    for name in names {
        let machine = Machine::find(&scene.host, name).unwrap();
        let settings = MachineSettings::read(&machine.settings_file).unwrap();
        assert_eq!(machine.state, settings.resting_state(), "{what}");
        let disks = settings.all_hard_disks();
        expected.extend(
            disks.map(|disk| (disk.id, settings.resolve(machine.folder(), &disk.location))),
        );
    }
    let media = virtualbox.media().unwrap();
    assert!(
        media.iter().all(|medium| medium.access_error.is_none()),
        "{what}: {media:?}"
    );
    let mut media: Vec<_> = media
        .into_iter()
        .map(|medium| (medium.id, medium.location))
        .collect();
    media.sort();
    expected.sort();
    assert_eq!(media, expected, "{what}");
}

/// What `vrs recover` does.
pub fn recover_all(scene: &Scene) -> Vec<Recovered> {
    let owed = recover::owed(&scene.host).unwrap();
    owed.iter()
        .map(|journal| recover::finish(&scene.host, scene.store(), journal, &NoProgress).unwrap())
        .collect()
}
