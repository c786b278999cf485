//! vrs is killed at random moments; the next run puts everything right.

use std::thread;
use std::time::{Duration, Instant};

use vrs_testkit::{Rig, RigMachine};

use crate::machines::branched;
use crate::observed::Observed;
use crate::vrs::Vrs;

const ROUNDS: u32 = 5;
const SOAK_ROUNDS: u32 = 100;

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
    vrs.is_sound(&["--read-data"]);
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
        vrs.is_sound(&[]);
    }
    vrs.is_sound(&["--read-data"]);
    vrs.restore(&id, "whole");
    Observed::of(&machine).is(&before, "after the restore");
}

/// A machine that is killed, restored and cloned at random, and what it may look like.
struct Soak<'rig> {
    rig: &'rig Rig,
    machine: &'rig RigMachine<'rig>,
    vrs: Vrs<'rig>,
    random: fastrand::Rng,
    /// How long each call takes that is not killed.
    whole: Duration,
    first: Observed,
    second: Observed,
}

impl Soak<'_> {
    /// Kills vrs, usually before it has ended.
    fn kill(&mut self, arguments: &[&str]) {
        let patience = self.whole.mul_f64(self.random.f64() * 1.2);
        kill_after(&self.vrs, arguments, patience);
    }

    fn killed_take(&mut self, id: &str, what: &str) {
        let before = Observed::of(self.machine);
        self.kill(&["take", id, "--force-read"]);
        self.vrs.run(["recover"]);
        Observed::of(self.machine).is(&before, what);
    }

    fn killed_restore(&mut self, id: &str, what: &str) {
        let before = Observed::of(self.machine);
        let (name, goal) = if self.random.bool() {
            ("first", self.first.clone())
        } else {
            ("second", self.second.clone())
        };
        let snapshot = format!("{id}@{name}");
        self.kill(&["restore", &snapshot, "--yes"]);
        let finish = ["recover"];
        let undo = ["recover", "--undo"];
        // What cannot be undone is finished.
        if self.random.bool() && self.vrs.output(undo).status.success() {
            let now = Observed::of(self.machine);
            assert!(
                now == before || now == goal,
                "{what}: neither before nor after"
            );
        } else {
            self.vrs.run(finish);
            let now = Observed::of(self.machine);
            assert!(
                now == before || now == goal,
                "{what}: neither before nor after"
            );
        }
        self.vrs.run(["restore", &snapshot, "--yes"]);
        Observed::of(self.machine).is(&goal, what);
    }

    fn killed_clone(&mut self, id: &str, what: &str) {
        let before = Observed::of(self.machine);
        let others = self.rig.run(["list", "vms"]);
        let name = what.replace(' ', "-");
        self.kill(&["clone", &format!("{id}@first"), "--name", &name]);
        if self.random.bool() {
            self.vrs.run(["recover"]);
        } else {
            // One that is complete is not owed.
            self.vrs.run(["recover", "--undo"]);
        }
        let listed = self.rig.run(["list", "vms"]);
        if listed.contains(&name) {
            self.rig.run(["unregistervm", &name, "--delete-all"]);
        }
        assert_eq!(self.rig.run(["list", "vms"]), others, "{what}");
        let folder = self.machine.folder().with_file_name(&name);
        assert!(!folder.exists(), "{what}: '{}' is left", folder.display());
        Observed::of(self.machine).is(&before, what);
    }
}

/// `VRS_SOAK_SEED` repeats a run.
#[test]
#[ignore = "soak: a hundred kills on the real VirtualBox take some minutes"]
fn soak_a_hundred_kills_at_random() {
    let seed = std::env::var("VRS_SOAK_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("VRS_SOAK_SEED is a number"),
    );
    println!("VRS_SOAK_SEED={seed}");
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let first = Observed::reread(&machine);
    vrs.take(&id, "first");
    machine.run_guest();
    machine.take_virtualbox_snapshot("later");
    let second = Observed::reread(&machine);
    let whole = time(&vrs, &["take", &id, "--name", "second"]);
    let whole = whole.max(time(&vrs, &["restore", &format!("{id}@first"), "--yes"]));
    let mut soak = Soak {
        rig: &rig,
        machine: &machine,
        vrs,
        random: fastrand::Rng::with_seed(seed),
        whole,
        first,
        second,
    };
    for round in 0..SOAK_ROUNDS {
        let what = format!("seed {seed} round {round}");
        match soak.random.u8(0..3) {
            0 => soak.killed_take(&id, &what),
            1 => soak.killed_restore(&id, &what),
            _ => soak.killed_clone(&id, &what),
        }
        if round % 10 == 9 {
            println!("{} kills, still sound", round + 1);
            soak.vrs.is_sound(&["--read-data"]);
        }
    }
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
