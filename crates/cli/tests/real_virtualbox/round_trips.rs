//! Every kind of machine: take, change, take, back to the first in place, forward to the second.

use vrs_testkit::{RIG_MACHINE_KINDS, Rig, RigMachine, RigMachineKind};

use crate::observed::Observed;
use crate::vrs::Vrs;

fn take_change_and_restore(kind: &str) {
    let kind = RigMachineKind::named(kind);
    let rig = Rig::start();
    let machine = (kind.create)(&rig);
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let first = Observed::reread(&machine);
    vrs.take(&id, "first");
    Observed::of(&machine).is(&first, "taking a snapshot changes nothing");
    change(&machine, kind.name);
    let second = Observed::reread(&machine);
    assert_ne!(second, first);
    vrs.take(&id, "second");
    vrs.restore(&id, "first");
    Observed::of(&machine).is(&first, "after the restore");
    vrs.restore(&id, "second");
    Observed::of(&machine).is(&second, "after the restore");
    vrs.run(["check", "--read-data"]);
}

fn change(machine: &RigMachine<'_>, kind: &str) {
    if !["EFI nvram", "no disk"].contains(&kind) {
        machine.run_guest();
    }
    machine.modify(&["--memory", "24", "--description", "changed"]);
    machine.take_virtualbox_snapshot("later");
    if kind == "EFI nvram" {
        machine.call("modifynvram", &["inituefivarstore"]);
    }
}

macro_rules! round_trips {
    ($($test:ident: $kind:literal,)*) => {
        $(
            #[test]
            #[ignore = "needs the VirtualBox rig; scripts/test runs it"]
            fn $test() {
                take_change_and_restore($kind);
            }
        )*

        #[test]
        fn every_kind_is_tested() {
            let kinds: Vec<_> = RIG_MACHINE_KINDS.iter().map(|kind| kind.name).collect();
            assert_eq!(kinds, [$($kind),*]);
        }
    };
}

round_trips! {
    dynamic_and_fixed_vdi: "dynamic and fixed VDI",
    vmdk_and_vhd: "VMDK and VHD",
    several_controllers: "several controllers",
    efi_nvram: "EFI nvram",
    virtualbox_snapshots_with_a_branch: "VirtualBox snapshots with a branch",
    linked_clone: "linked clone",
    immutable_writethrough_and_multiattach: "immutable, writethrough and multiattach",
    blanks_and_quotes: "blanks and quotes",
    unicode: "Unicode",
    leading_dash: "leading dash",
    disk_outside_the_folder: "disk outside the folder",
    saved_state: "saved state",
    no_disk: "no disk",
}
