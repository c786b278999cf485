//! Machines that several tests start from.

use vrs_testkit::{Rig, RigMachine, RigMachineKind};

/// With two levels of VirtualBox snapshots and a branch.
pub fn branched(rig: &Rig) -> RigMachine<'_> {
    (RigMachineKind::named("VirtualBox snapshots with a branch").create)(rig)
}

/// With one disk.
pub fn plain<'rig>(rig: &'rig Rig, name: &str) -> RigMachine<'rig> {
    let machine = RigMachine::create(rig, name);
    machine.add_disk(0, "disk.vdi", "VDI", "Standard");
    machine
}
