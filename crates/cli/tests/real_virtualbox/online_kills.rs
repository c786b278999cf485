//! Somebody dies while a running machine is taken: vrs, `VBoxManage`, the machine's own process or
//! VirtualBox's daemon; or a disk is full. `vrs recover` puts everything right.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use vrs_testkit::{Rig, RigMachine, write_script};

use crate::online::{counting, files_in, goes_on, is_clean};
use crate::vrs::Vrs;

const MODES: [&str; 3] = ["--memory", "--disks-only", "--savestate"];

/// The processes of `program` that work for the machine.
fn processes(program: &str, machine: &RigMachine<'_>) -> Vec<String> {
    let id = machine.id().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|process| {
        let command = fs::read(process.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).into_owned();
        let is_it = command.contains(program) && command.contains(&id);
        is_it.then(|| process.file_name().into_string().unwrap())
    });
    numbers.collect()
}

/// Waits until there are such processes, or there are none; whether `child` is still running then.
fn wait_for(program: &str, is_there: bool, machine: &RigMachine<'_>, child: &mut Child) -> bool {
    while child.try_wait().unwrap().is_none() {
        if processes(program, machine).is_empty() != is_there {
            return true;
        }
        thread::sleep(Duration::from_millis(2));
    }
    false
}

/// Kills such a process as soon as there is one, or gives up when `child` has ended.
fn kill_when_there(program: &str, machine: &RigMachine<'_>, child: &mut Child) {
    if wait_for(program, true, machine, child) {
        send("-KILL", &processes(program, machine));
    }
}

/// Who has ended meanwhile gets nothing.
fn send(signal: &str, processes: &[String]) {
    Command::new("kill")
        .arg(signal)
        .args(processes)
        .status()
        .unwrap();
}

/// Kills vrs at so many moments of a take, in turn in every mode.
fn kill_vrs(rounds: u32) {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let time = |mode: &str| {
        let start = Instant::now();
        vrs.run(["take", &id, mode]);
        start.elapsed()
    };
    let whole = MODES.map(time);
    for round in 0..rounds {
        let at = round as usize % MODES.len();
        let mut take = vrs.command(["take", &id, MODES[at]]).spawn().unwrap();
        thread::sleep(whole[at] * round / rounds);
        let _ = take.kill();
        take.wait().unwrap();
        vrs.run(["recover"]);
        goes_on(&machine, &format!("round {round}, {}", MODES[at]));
    }
    vrs.is_sound(&["--read-data"]);
    vrs.run(["take", &id]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_killed_vrs_leaves_nothing_that_recover_does_not_mend() {
    kill_vrs(6);
}

#[test]
#[ignore = "long; scripts/test --soak runs it"]
fn soak_a_killed_vrs_leaves_nothing_that_recover_does_not_mend() {
    kill_vrs(100);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_killed_vboxmanage_is_survived() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    for (mode, program) in [
        ("--memory", "snapshot\0"),
        ("--disks-only", "snapshot\0"),
        ("--savestate", "controlvm\0"),
    ] {
        let mut take = vrs.command(["take", &id, mode]).spawn().unwrap();
        kill_when_there(program, &machine, &mut take);
        take.wait().unwrap();
        vrs.output(["recover"]);
        goes_on(&machine, mode);
    }
    vrs.is_sound(&[]);
}

/// A machine whose process died so long after the call began is aborted, its disks are whole, and
/// nothing is left of the capture: not even what shows only when VirtualBox reads its files again.
fn dies_in_between(verb: &str, delay_ms: u64) {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let call = format!("snapshot\0{id}\0{verb}");
    // A take may be over before it is seen at this step.
    let is_dead = (0..8).any(|_| {
        let mut take = vrs.command(["take", &id]).spawn().unwrap();
        wait_for(&call, true, &machine, &mut take);
        thread::sleep(Duration::from_millis(delay_ms));
        kill_when_there("VBoxHeadless", &machine, &mut take);
        take.wait().unwrap();
        processes("VBoxHeadless", &machine).is_empty()
    });
    assert!(is_dead, "every take was over before the machine was killed");
    let recovered = vrs.output(["recover"]);
    rig.reread();
    if !recovered.status.success() {
        let told = String::from_utf8_lossy(&recovered.stderr);
        assert_eq!(recovered.status.code(), Some(4), "{told}");
        assert!(told.contains("end every program that uses it"), "{told}");
        vrs.run(["recover"]);
    }
    assert_eq!(machine.state(), "aborted");
    let settings = fs::read_to_string(machine.settings_path()).unwrap();
    assert_eq!(settings.matches("<HardDisk ").count(), 2, "{settings}");
    is_clean(&machine, verb);
    machine.last_round().unwrap();
    machine.start_counting();
    goes_on(&machine, verb);
    vrs.run(["take", &id]);
    goes_on(&machine, verb);
    vrs.is_sound(&[]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_that_dies_while_it_is_frozen_is_whole() {
    dies_in_between("take", 0);
}

/// VirtualBox keeps the new images then, and cannot open the machine when it is started the next time.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_that_dies_with_new_images_is_whole() {
    for delay_ms in [40, 60, 80] {
        dies_in_between("take", delay_ms);
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_that_dies_while_it_is_merged_is_whole() {
    dies_in_between("delete", 0);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_full_disk_is_noticed_and_hurts_nobody() {
    let rig = Rig::start();
    let machine = RigMachine::storm_guest(&rig, "storm");
    let folder = rig.tiny_disk(100 << 20);
    machine.modify(&["--snapshotfolder", folder.path().to_str().unwrap()]);
    machine.start_counting();
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let refused = vrs.fail(1, ["take", &id]);
    assert!(refused.contains("free-space"), "{refused}");
    assert!(machine.is_alive());
    // The user insists. There is no room for the memory.
    vrs.output(["take", &id, "--force", "free-space"]);
    vrs.output(["recover"]);
    assert!(machine.is_alive(), "{}", machine.state());
    let snapshots = machine.virtualbox_snapshots();
    assert!(snapshots.contains("does not have any"), "{snapshots}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A lock of the file system on the machine's settings, until it is dropped.
struct Immutable<'a>(&'a Path);

impl<'a> Immutable<'a> {
    fn new(file: &'a Path) -> Self {
        change_attribute("+i", file);
        Self(file)
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        change_attribute("-i", self.0);
    }
}

fn change_attribute(change: &str, file: &Path) {
    let changed = Command::new("chattr").arg(change).arg(file).status();
    assert!(
        changed.unwrap().success(),
        "chattr {change} {}",
        file.display()
    );
}

/// VirtualBox saves the memory then, and fails to write where. What its settings do not name is
/// needed all the same.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_saved_state_that_the_settings_do_not_name_is_kept() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let locked = Immutable::new(machine.settings_path());
    let refused = vrs.fail(1, ["take", &id, "--savestate"]);
    assert!(refused.contains("was not written"), "{refused}");
    drop(locked);
    vrs.run(["recover"]);
    goes_on(&machine, "let go");
    assert_eq!(machine.counts().unwrap().starts, 0, "it was resumed");
}

/// VirtualBox forgets what is not in its settings at a moment without a client, which vrs keeps there.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn virtualbox_does_not_forget_a_saved_state_meanwhile() {
    for call in ["list hdds", "startvm"] {
        take_with_slow_call(call, "exec");
    }
}

/// The client that vrs keeps there may end.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_saved_state_that_virtualbox_forgets_meanwhile_is_not_removed() {
    take_with_slow_call("list hdds", "exit");
}

/// The settings can be written again by then.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_saved_state_that_virtualbox_forgets_before_it_writes_its_settings_is_given_back() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    let slow = SlowCall::new(&rig, "setextradata", "exec");
    let (mut take, locked) = begin_take(&vrs, &machine, &slow);
    drop(locked);
    assert!(take.wait().unwrap().success());
    goes_on(&machine, "given back");
    assert_eq!(machine.counts().unwrap().starts, 0, "it was resumed");
    vrs.is_sound(&[]);
}

/// Takes a machine whose settings cannot be written, and recovers it.
fn take_with_slow_call(call: &str, client: &str) {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    let (mut take, locked) = begin_take(&vrs, &machine, &SlowCall::new(&rig, call, client));
    assert_eq!(take.wait().unwrap().code(), Some(1));
    drop(locked);
    let is_forgotten = machine.state() != "running";
    assert_eq!(is_forgotten, client == "exit");
    vrs.run(["recover"]);
    goes_on(&machine, call);
    assert_eq!(machine.counts().unwrap().starts, 0, "it was resumed");
}

/// Takes a machine whose settings cannot be written, until the slow call.
fn begin_take<'a>(
    vrs: &Vrs<'_>,
    machine: &'a RigMachine<'_>,
    slow: &SlowCall,
) -> (Child, Immutable<'a>) {
    let other_client = machine.keep_in_memory();
    let locked = Immutable::new(machine.settings_path());
    let id = machine.id().to_string();
    let mut take = vrs.command(["take", &id, "--savestate"]);
    let mut take = take.env("VRS_VBOXMANAGE", &slow.script).spawn().unwrap();
    while !slow.begun.exists() {
        assert!(take.try_wait().unwrap().is_none(), "there is no such call");
        thread::sleep(Duration::from_millis(20));
    }
    drop(other_client);
    (take, locked)
}

/// A `VBoxManage` that waits before a call until VirtualBox has forgotten: the first such call after a
/// state was saved.
struct SlowCall {
    script: PathBuf,
    /// Is there once it waits.
    begun: PathBuf,
}

impl SlowCall {
    /// `client` is what becomes of a call that waits for a guest property: `exec` or `exit`.
    fn new(rig: &Rig, call: &str, client: &str) -> Self {
        let in_rig = |name: &str| rig.folder().join(name);
        let (script, begun, saved) = (in_rig("slow"), in_rig("begun"), in_rig("saved"));
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in\n  *savestate*) : > '{saved}' ;;\n  \
             guestproperty*) {client} '{program}' \"$@\" ;;\n  \
             '{call}'*) [ ! -e '{saved}' ] || {{ rm '{saved}'; : > '{begun}'; sleep 8; }} ;;\nesac\n\
             exec '{program}' \"$@\"\n",
            saved = saved.display(),
            begun = begun.display(),
            program = rig.vboxmanage().display()
        );
        write_script(&script, &text);
        Self { script, begun }
    }
}

/// Kills vrs while the machine's state is saved for a take, and lets VirtualBox forget it: a saved
/// state that VirtualBox knows nothing of is left, as after settings that could not be written.
fn forgotten_state(vrs: &Vrs<'_>, rig: &Rig, machine: &RigMachine<'_>) -> PathBuf {
    let id = machine.id().to_string();
    let call = format!("{id}\0savestate");
    for _ in 0..8 {
        let mut take = vrs.command(["take", &id, "--savestate"]).spawn().unwrap();
        let _ =
            wait_for(&call, true, machine, &mut take) && wait_for(&call, false, machine, &mut take);
        let _ = take.kill();
        take.wait().unwrap();
        if machine.state() != "saved" {
            vrs.run(["recover"]);
            continue;
        }
        let folder = machine.folder().join("Snapshots");
        let name = files_in(&folder).pop().unwrap();
        let aside = rig.folder().join(&name);
        fs::copy(folder.join(&name), &aside).unwrap();
        rig.run(["discardstate", &id]);
        fs::copy(&aside, folder.join(&name)).unwrap();
        return folder.join(name);
    }
    panic!("every take ended before anybody saw it save the machine");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_saved_state_that_virtualbox_forgot_is_given_back() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    forgotten_state(&vrs, &rig, &machine);
    assert_eq!(machine.state(), "poweroff");
    vrs.run(["recover"]);
    goes_on(&machine, "given back");
    assert_eq!(machine.counts().unwrap().starts, 0, "it was resumed");

    let state = forgotten_state(&vrs, &rig, &machine);
    let written = fs::metadata(&state).unwrap().modified().unwrap();
    machine.start_counting();
    machine.power_off();
    let put_back = File::options().append(true).open(&state).unwrap();
    put_back.set_modified(written).unwrap();
    let told = vrs.fail(3, ["recover"]);
    assert!(told.contains("has run since"), "{told}");
    assert_eq!(machine.state(), "poweroff");
    assert!(state.exists(), "the only copy of its memory");
}

/// Does something while a take has frozen the files of the machine, and waits for the take's end. vrs
/// stands still meanwhile.
fn in_frozen_take(vrs: &Vrs<'_>, machine: &RigMachine<'_>, act: &dyn Fn()) -> Option<i32> {
    let id = machine.id().to_string();
    let call = format!("snapshot\0{id}\0take");
    // A take may be over before it is seen at this step.
    for _ in 0..8 {
        let mut take = vrs.command(["take", &id]).spawn().unwrap();
        let process = [take.id().to_string()];
        let is_seen =
            wait_for(&call, true, machine, &mut take) && wait_for(&call, false, machine, &mut take);
        if is_seen {
            send("-STOP", &process);
        }
        let is_frozen = is_seen && machine.virtualbox_snapshots().contains("vrs transient");
        if is_frozen {
            act();
        }
        send("-CONT", &process);
        let code = take.wait().unwrap().code();
        if is_frozen {
            return code;
        }
    }
    panic!("every take ended before anybody saw it freeze the machine");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_disk_that_is_full_when_images_are_merged_only_delays_that() {
    let rig = Rig::start();
    let machine = RigMachine::storm_guest(&rig, "storm");
    let disk = rig.tiny_disk(600 << 20);
    let base = machine.base_image(1);
    let move_to = disk.path().to_str().unwrap();
    rig.run([
        "modifymedium",
        "disk",
        base.to_str().unwrap(),
        "--move",
        move_to,
    ]);
    machine.start_counting();
    machine.wait_for_rounds(2);
    let vrs = Vrs::new(&rig);
    let filler = disk.path().join("filler");
    let code = in_frozen_take(&vrs, &machine, &|| {
        let full = io::copy(&mut io::repeat(0), &mut File::create(&filler).unwrap());
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    });
    assert_eq!(code, Some(4));
    assert!(machine.is_alive(), "{}", machine.state());
    let refused = vrs.fail(4, ["recover"]);
    assert!(
        refused.contains("Not enough free storage space"),
        "{refused}"
    );
    fs::remove_file(filler).unwrap();
    vrs.run(["recover"]);
    goes_on(&machine, "there is room again");
    vrs.is_sound(&[]);
}

/// The next service knows nothing of the machine's process, which ends by itself after a while.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_killed_service_of_virtualbox_is_survived() {
    let rig = Rig::start();
    let machine = RigMachine::storm_guest(&rig, "storm");
    machine.start_counting();
    machine.wait_for_rounds(2);
    let vrs = Vrs::new(&rig);
    let code = in_frozen_take(&vrs, &machine, &|| rig.kill_daemon());
    // Told is either that the machine does not run any more, or that it is not free yet.
    assert!(code == Some(3) || code == Some(4), "{code:?}");
    rig.reread();
    wait_until_ended(&machine);
    vrs.run(["recover"]);
    is_clean(&machine, "killed service");
    machine.start_counting();
    goes_on(&machine, "killed service");
    vrs.is_sound(&[]);
}

fn wait_until_ended(machine: &RigMachine<'_>) {
    let begun = Instant::now();
    while !processes("VBoxHeadless", machine).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it goes on");
        thread::sleep(Duration::from_millis(100));
    }
}
