//! Machines whose repository is on a server: take, change, restore in place.

use rstest::rstest;
use vrs_testkit::{Rig, ServerKind, StorageServer};

use crate::machines::branched;
use crate::observed::Observed;
use crate::vrs::Vrs;

#[rstest]
#[case(ServerKind::Sshd)]
#[case(ServerKind::GuardedMoto)]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_comes_back_from_a_server(#[case] kind: ServerKind) {
    let (rig, server) = (Rig::start(), StorageServer::start(kind));
    let machine = branched(&rig);
    let vrs = Vrs::elsewhere(&rig, &server);
    vrs.run(["init"]);
    let id = machine.id().to_string();
    let first = Observed::reread(&machine);
    vrs.take(&id, "first");
    machine.run_guest();
    machine.modify(&["--memory", "24"]);
    machine.take_virtualbox_snapshot("later");
    assert_ne!(Observed::reread(&machine), first);
    vrs.restore(&id, "first");
    Observed::of(&machine).is(&first, "after the restore");
    vrs.run(["check", "--read-data"]);
}
