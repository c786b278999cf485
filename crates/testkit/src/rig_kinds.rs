//! The kinds of machines on which vrs has to prove itself, made by the real VirtualBox.

use crate::rig::Rig;
use crate::rig_machine::RigMachine;

/// A kind of machine.
#[derive(Debug, Clone, Copy)]
pub struct RigMachineKind {
    /// What is special about it.
    pub name: &'static str,
    /// Makes one. More machines may come into being along with it.
    pub create: for<'rig> fn(&'rig Rig) -> RigMachine<'rig>,
}

impl RigMachineKind {
    /// The kind of this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let kind = RIG_MACHINE_KINDS.iter().find(|kind| kind.name == name);
        *kind.unwrap_or_else(|| panic!("no kind of machine is called {name:?}"))
    }
}

/// All kinds. Each machine's guest starts from the disk at SATA port 0.
pub const RIG_MACHINE_KINDS: &[RigMachineKind] = &[
    RigMachineKind {
        name: "dynamic and fixed VDI",
        create: dynamic_and_fixed,
    },
    RigMachineKind {
        name: "VMDK and VHD",
        create: vmdk_and_vhd,
    },
    RigMachineKind {
        name: "several controllers",
        create: several_controllers,
    },
    RigMachineKind {
        name: "EFI nvram",
        create: efi,
    },
    RigMachineKind {
        name: "VirtualBox snapshots with a branch",
        create: branched,
    },
    RigMachineKind {
        name: "linked clone",
        create: linked_clone,
    },
    RigMachineKind {
        name: "immutable, writethrough and multiattach",
        create: medium_types,
    },
    RigMachineKind {
        name: "blanks and quotes",
        create: |rig| named(rig, "two \"words\" and 'more'"),
    },
    RigMachineKind {
        name: "Unicode",
        create: |rig| named(rig, "ünï-日本"),
    },
    RigMachineKind {
        name: "leading dash",
        create: |rig| named(rig, "-dash"),
    },
    RigMachineKind {
        name: "disk outside the folder",
        create: disk_outside,
    },
    RigMachineKind {
        name: "saved state",
        create: saved_state,
    },
    RigMachineKind {
        name: "no disk",
        create: |rig| RigMachine::create(rig, "diskless"),
    },
];

fn dynamic_and_fixed(rig: &Rig) -> RigMachine<'_> {
    let machine = named(rig, "dynamic and fixed");
    machine.add_disk(1, "fixed.vdi", "VDI", "Fixed");
    machine
}

fn vmdk_and_vhd(rig: &Rig) -> RigMachine<'_> {
    let machine = RigMachine::create(rig, "formats");
    machine.add_disk(0, "a.vmdk", "VMDK", "Standard");
    machine.add_disk(1, "split.vmdk", "VMDK", "Split2G");
    machine.add_disk(2, "a.vhd", "VHD", "Standard");
    machine.take_virtualbox_snapshot("one");
    machine
}

fn several_controllers(rig: &Rig) -> RigMachine<'_> {
    let machine = named(rig, "controllers");
    for (name, bus) in [("My \"IDE\"", "ide"), ("LSI", "scsi"), ("NVMe", "pcie")] {
        machine.add_controller(name, bus);
        let disk = machine.create_disk(format!("{bus}.vdi"), "VDI", "Standard", 2);
        machine.attach(name, 0, &disk);
    }
    machine
}

fn efi(rig: &Rig) -> RigMachine<'_> {
    let machine = named(rig, "efi");
    machine.modify(&["--firmware", "efi"]);
    machine.call("modifynvram", &["inituefivarstore"]);
    machine.take_virtualbox_snapshot("with nvram");
    machine.call("modifynvram", &["enrollmssignatures"]);
    // The sample guest is no EFI program; the nvram file is there without EFI running, and BIOS
    // ignores it.
    machine
}

fn branched(rig: &Rig) -> RigMachine<'_> {
    let machine = named(rig, "branched");
    let first = machine.take_virtualbox_snapshot("first");
    machine.run_guest();
    machine.take_virtualbox_snapshot("second \"level\"");
    machine.run_guest();
    machine.restore_virtualbox_snapshot(first);
    machine.run_guest();
    machine.take_virtualbox_snapshot("branch");
    machine
}

fn linked_clone(rig: &Rig) -> RigMachine<'_> {
    let original = named(rig, "original");
    let snapshot = original.take_virtualbox_snapshot("base of the clone");
    original.linked_clone(snapshot, "linked clone")
}

fn medium_types(rig: &Rig) -> RigMachine<'_> {
    let machine = named(rig, "types");
    for (port, kind) in [(1, "immutable"), (2, "writethrough"), (3, "multiattach")] {
        let disk = machine.create_disk(format!("{kind}.vdi"), "VDI", "Standard", 2);
        machine.attach_as(kind, "SATA", port, &disk);
    }
    machine.take_virtualbox_snapshot("one");
    machine
}

fn disk_outside(rig: &Rig) -> RigMachine<'_> {
    let machine = named(rig, "scattered");
    machine.add_disk(
        1,
        rig.folder().join("other place/outside.vdi"),
        "VDI",
        "Standard",
    );
    machine.take_virtualbox_snapshot("one");
    machine
}

fn saved_state(rig: &Rig) -> RigMachine<'_> {
    let machine = named(rig, "saved");
    machine.save_state();
    machine
}

fn named<'rig>(rig: &'rig Rig, name: &str) -> RigMachine<'rig> {
    let machine = RigMachine::create(rig, name);
    machine.add_disk(0, "disk.vdi", "VDI", "Standard");
    machine
}
