//! vrs is killed at random moments; the next run puts everything right.

use std::thread;
use std::time::{Duration, Instant};

use vrs_testkit::Rig;

use crate::machines::branched;
use crate::observed::Observed;
use crate::vrs::Vrs;

const ROUNDS: u32 = 8;

/// Runs the call to its end and returns how long it took.
fn time(vrs: &Vrs<'_>, arguments: &[&str]) -> Duration {
    let start = Instant::now();
    vrs.run(arguments);
    start.elapsed()
}

/// Starts the call and kills it after `patience`, unless it has ended before.
fn kill_after(vrs: &Vrs<'_>, arguments: &[&str], patience: Duration) {
    let mut child = vrs.command(arguments).spawn().unwrap();
    thread::sleep(patience);
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_killed_restore_is_finished_by_recover() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let first = Observed::reread(&machine);
    vrs.take(&id, "first");
    machine.run_guest();
    machine.take_virtualbox_snapshot("later");
    let second = Observed::reread(&machine);
    vrs.take(&id, "second");
    let back = ["restore", &format!("{id}@first"), "--yes"];
    let forward = ["restore", &format!("{id}@second"), "--yes"];
    let whole = time(&vrs, &back).max(time(&vrs, &forward));
    for round in 0..ROUNDS {
        let (call, goal) = if round % 2 == 0 {
            (&back, &first)
        } else {
            (&forward, &second)
        };
        kill_after(&vrs, call, whole * round / ROUNDS);
        vrs.output(["recover"]);
        if Observed::of(&machine) != *goal {
            // Killed before the journal was begun: nothing was changed then.
            vrs.run(call);
        }
        Observed::of(&machine).is(goal, &format!("round {round}"));
    }
    vrs.run(["check", "--read-data"]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_killed_take_leaves_machine_and_repository_whole() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let before = Observed::reread(&machine);
    let whole = time(&vrs, &["take", &id, "--name", "whole"]);
    for round in 0..ROUNDS {
        machine.write_vdi("SATA", 0, u64::from(round % 4), u64::from(round) + 100);
        let changed = Observed::reread(&machine);
        kill_after(&vrs, &["take", &id], whole * round / ROUNDS);
        Observed::of(&machine).is(&changed, &format!("round {round}"));
        vrs.run(["check"]);
    }
    vrs.run(["check", "--read-data"]);
    vrs.restore(&id, "whole");
    Observed::of(&machine).is(&before, "after the restore");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_killed_clone_leaves_the_original_alone_and_is_cleared_away() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let snapshot = format!("{id}@first");
    vrs.take(&id, "first");
    let before = Observed::reread(&machine);
    let whole = time(&vrs, &["clone", &snapshot, "--name", "whole"]);
    for round in 0..ROUNDS {
        let name = format!("clone {round}");
        kill_after(
            &vrs,
            &["clone", &snapshot, "--name", &name],
            whole * round / ROUNDS,
        );
        vrs.output(["recover"]);
        Observed::of(&machine).is(&before, &format!("round {round}"));
        let listed = rig.run(["list", "vms"]);
        if !listed.contains(&name) {
            vrs.run(["clone", &snapshot, "--name", &name]);
        }
    }
    assert_eq!(
        rig.run(["list", "vms"]).lines().count(),
        2 + ROUNDS as usize
    );
}
