//! Scenes with a fake VirtualBox, kept in a folder of the scene so that child processes see it.

use std::path::Path;
use std::time::Duration;

use vrs_testkit::{FakeVBoxManage, SampleDisk, SampleMachine};
use vrs_virtualbox::{LocateOptions, VBoxManage};

use crate::common::{MIB, Scene};

/// The VirtualBox of the scene in `folder`; made if there is none.
pub fn virtualbox(folder: &Path) -> FakeVBoxManage {
    FakeVBoxManage::at(&folder.join("virtualbox"))
}

/// `scene` on a host with VirtualBox, whose driver loses its patience soon.
pub fn with_virtualbox(mut scene: Scene) -> Scene {
    let options = LocateOptions {
        program: Some(virtualbox(&scene.folder).program()),
        patience: Duration::from_secs(2),
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
