//! How the driver deals with failures that the real `VBoxManage` shows too rarely to wait for: a
//! script plays them, with texts recorded from the real one. What it does when all goes well is
//! tested with the real one in `real.rs`.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rstest::rstest;
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_testkit::write_script;
use vrs_virtualbox::{Error, ErrorKind, LocateOptions, MachineId, MachineState, VBoxManage};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/7.2.22");
const ID: &str = "60b68e35-fd26-488e-8d09-97ddb3cc17b1";

#[derive(Default)]
struct Warnings {
    list: Mutex<Vec<String>>,
}

impl Progress for Warnings {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, warning: &str) {
        self.list.lock().unwrap().push(warning.to_owned());
    }
    fn note(&self, note: &str) {
        self.warn(note);
    }
}

impl Warnings {
    fn count(&self) -> usize {
        self.list.lock().unwrap().len()
    }
}

/// A `VBoxManage` that does what `script` says. `$calls` is the number of calls so far.
fn driver(folder: &Path, script: &str) -> VBoxManage {
    let program = folder.join("VBoxManage");
    let counter = folder.join("calls");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 7.2.22 && exit\n\
         echo \"$*\" >> '{0}'; calls=$(wc -l < '{0}'); recorded='{RECORDED}'; id={ID}\n{script}\n",
        counter.display()
    );
    write_script(&program, &script);
    let patience = Duration::from_secs(2);
    VBoxManage::locate(&LocateOptions {
        program: Some(program),
        patience,
        ..LocateOptions::default()
    })
    .unwrap()
}

#[test]
fn secret_variables_are_kept_from_vboxmanage() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("VBoxManage");
    // Cargo sets this variable for tests.
    let script = "#!/bin/sh\n[ -z \"${CARGO_MANIFEST_DIR+set}\" ] && echo 7.2.22 || echo exposed\n";
    write_script(&program, script);
    let mut options = LocateOptions {
        program: Some(program),
        ..LocateOptions::default()
    };
    assert!(VBoxManage::locate(&options).is_err());
    options.secret_variables = vec!["CARGO_MANIFEST_DIR".into()];
    VBoxManage::locate(&options).unwrap();
}

fn calls(folder: &Path) -> Vec<String> {
    std::fs::read_to_string(folder.join("calls"))
        .unwrap()
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}

fn id() -> MachineId {
    ID.parse().unwrap()
}

#[test]
fn a_machine_that_is_locked_for_a_moment_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        case $1 in
          list) ;;
          *) [ $calls -gt 2 ] || { cat "$recorded/error-locked.txt" >&2; exit 1; } ;;
        esac"#;
    let warnings = Warnings::default();
    driver(folder.path(), script)
        .unregister(id(), &warnings)
        .unwrap();
    assert_eq!(warnings.count(), 2);
    assert!(warnings.list.lock().unwrap()[0].contains("is already locked by a session"));
    assert_eq!(calls(folder.path()).len(), 4);
}

#[test]
fn a_machine_that_stays_locked_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let vboxmanage = driver(
        folder.path(),
        r#"cat "$recorded/error-locked.txt" >&2; exit 1"#,
    );
    let error = vboxmanage.unregister(id(), &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(error.code().unwrap().name(), "VBOX_E_INVALID_OBJECT_STATE");
    assert!(
        error
            .to_string()
            .contains(&format!("VBoxManage unregistervm {ID}")),
        "{error}"
    );
    assert_eq!(calls(folder.path()).len(), 6);
}

#[test]
fn other_failures_are_not_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let vboxmanage = driver(
        folder.path(),
        r#"cat "$recorded/error-not-found.txt" >&2; exit 1"#,
    );
    assert_eq!(
        vboxmanage.unregister(id(), &NoProgress).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(matches!(
        vboxmanage.machine(id()),
        Err(Error::NoSuchMachine { .. })
    ));
    assert_eq!(calls(folder.path()).len(), 2);
}

#[test]
fn an_error_with_exit_code_0_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let vboxmanage = driver(
        folder.path(),
        r#"cat "$recorded/error-in-use.txt" >&2; exit 0"#,
    );
    assert_eq!(
        vboxmanage.unregister(id(), &NoProgress).unwrap_err().kind(),
        ErrorKind::Busy
    );
}

#[test]
fn success_without_effect_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let vboxmanage = driver(folder.path(), r#"[ "$1" != list ] || echo "\"m\" {$id}""#);
    let error = vboxmanage.unregister(id(), &NoProgress).unwrap_err();
    assert!(matches!(&error, Error::NotDone { .. }), "{error:?}");
    assert!(error.to_string().contains("is still registered"));
}

#[rstest]
#[case::of_the_program("kill -SEGV $$", ErrorKind::Unexpected)]
#[case::of_the_service(
    "echo 'VBoxManage: error: Code NS_ERROR_ABORT (0x80004004) - Operation aborted (extended info not available)' >&2; exit 1",
    ErrorKind::Refused
)]
fn a_crash_is_survived_by_questions_only(#[case] crash: &str, #[case] kind: ErrorKind) {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(r#"[ $calls -gt 1 ] || {{ {crash}; }}; echo "\"m\" {{$id}}""#);
    let vboxmanage = driver(folder.path(), &script);
    assert_eq!(vboxmanage.machines().unwrap().len(), 1);
    let folder = tempfile::tempdir().unwrap();
    let vboxmanage = driver(folder.path(), crash);
    let error = vboxmanage.unregister(id(), &NoProgress).unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert_eq!(calls(folder.path()).len(), 1);
}

#[test]
fn a_machine_that_does_not_power_off_is_stopped_in_an_emergency() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        case "$1 $4" in
          "controlvm "*) echo '0%...10%...' >&2; exec sleep 60 ;;
          "startvm emergencystop") touch "$0.stopped" ;;
          "showvminfo "*) state=paused; [ ! -e "$0.stopped" ] || state=aborted
            printf 'name="m"\nUUID="%s"\nCfgFile="/m.vbox"\nVMState="%s"\nGuestMemoryBalloon=0\n' $id $state ;;
        esac"#;
    let warnings = Warnings::default();
    driver(folder.path(), script)
        .power_off(id(), &warnings)
        .unwrap();
    let warning = warnings.list.lock().unwrap().join("\n");
    assert!(
        warning.contains("did nothing for 2 seconds after 10 %"),
        "{warning}"
    );
}

/// Questions lock a machine, too, and VirtualBox refuses others meanwhile.
#[test]
fn calls_of_several_threads_come_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        mkdir "$0.busy" || { echo 'two at a time' >&2; exit 1; }
        sleep 0.05; rmdir "$0.busy"
        printf 'name="m"\nUUID="%s"\nCfgFile="/m.vbox"\nVMState="running"\nGuestMemoryBalloon=0\n' $id"#;
    let vboxmanage = driver(folder.path(), script);
    std::thread::scope(|scope| {
        let ask = || vboxmanage.machine(id()).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .for_each(|thread| drop(thread.join().unwrap()));
    });
    assert_eq!(calls(folder.path()).len(), 4);
}

/// As VirtualBox's service does when it is killed meanwhile.
#[test]
fn an_answer_that_was_cut_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        printf 'name="m"\nUUID="%s"\nCfgFile="/m.vbox"\n' $id
        [ $calls = 1 ] || printf 'VMState="aborted"\nGuestMemoryBalloon=0\n'"#;
    let vboxmanage = driver(folder.path(), script);
    let status = vboxmanage.machine(id()).unwrap();
    assert_eq!(status.state, MachineState::Aborted);

    // What is missing may be the VirtualBox snapshots.
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        printf 'name="m"\nUUID="%s"\nCfgFile="/m.vbox"\nVMState="running"\n' $id
        [ $calls = 1 ] || printf 'SnapshotName="s"\nSnapshotUUID="%s"\nGuestMemoryBalloon=0\n' $id"#;
    let vboxmanage = driver(folder.path(), script);
    let listed = vboxmanage.virtualbox_snapshots(id()).unwrap();
    assert_eq!(listed[0].name, "s");

    // A list has no end by which it could be seen.
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        echo "\"a\" {$id}"
        [ $calls -gt 1 ] || { echo 'VBoxManage: error: Code NS_ERROR_ABORT (0x80004004)' >&2; exit 0; }
        echo '"b" {60b68e35-fd26-488e-8d09-97ddb3cc17b2}'"#;
    let vboxmanage = driver(folder.path(), script);
    assert_eq!(vboxmanage.machines().unwrap().len(), 2);
}

/// Paths of other systems come as they are.
#[test]
fn paths_of_windows_and_macos_are_read() {
    for (shown, path) in [
        (
            r"C:\\Users\\a b\\VirtualBox VMs\\m\\m.vbox",
            r"C:\Users\a b\VirtualBox VMs\m\m.vbox",
        ),
        (
            "/Users/a b/VirtualBox VMs/m/m.vbox",
            "/Users/a b/VirtualBox VMs/m/m.vbox",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let answer = format!(
            "name=\"m\"\nUUID=\"{ID}\"\nCfgFile=\"{shown}\"\nVMState=\"poweroff\"\r\nGuestMemoryBalloon=0\r\n"
        );
        std::fs::write(folder.path().join("answer"), answer).unwrap();
        let script = "cat \"$(dirname \"$0\")/answer\"";
        let status = driver(folder.path(), script).machine(id()).unwrap();
        assert_eq!(status.settings_file, Path::new(path));
        assert_eq!(status.state, MachineState::PoweredOff);
    }
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let vboxmanage = driver(
        folder.path(),
        "printf 'SnapshotName=\"a\"\nUUID:           x\n'",
    );
    assert_eq!(
        vboxmanage.machine(id()).unwrap_err().kind(),
        ErrorKind::Unexpected
    );
    assert_eq!(
        vboxmanage.virtualbox_snapshots(id()).unwrap_err().kind(),
        ErrorKind::Unexpected
    );
    assert_eq!(
        vboxmanage.media().unwrap_err().kind(),
        ErrorKind::Unexpected
    );
    assert_eq!(
        vboxmanage.image_ids(Path::new("/x")).unwrap_err().kind(),
        ErrorKind::Unexpected
    );
}

#[test]
fn no_virtualbox_snapshots_are_no_error_unless_the_machine_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"printf 'name="m"\nUUID="%s"\nCfgFile="/m.vbox"\nVMState="saved"\nGuestMemoryBalloon=0\n' $id"#;
    let vboxmanage = driver(folder.path(), script);
    assert_eq!(vboxmanage.virtualbox_snapshots(id()).unwrap(), Vec::new());

    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        [ "$1" != list ] || { printf 'Name:            <inaccessible!>\nUUID:            %s\nConfig file:     /m.vbox\n' $id; exit; }
        echo 'VBoxManage: error: The object functionality is limited' >&2
        echo 'VBoxManage: error: Details: code E_ACCESSDENIED (0x80070005), component MachineWrap' >&2; exit 1"#;
    let vboxmanage = driver(folder.path(), script);
    let error = vboxmanage.virtualbox_snapshots(id()).unwrap_err();
    assert!(matches!(error, Error::WrongState { .. }), "{error:?}");
}

#[test]
fn names_with_a_dash_are_no_options() {
    let folder = tempfile::tempdir().unwrap();
    let vboxmanage = driver(folder.path(), r#"printf 'Header: uuidCreation={%s}\n' $id"#);
    vboxmanage
        .set_image_uuid(Path::new("-delete.vmdk"), ID.parse().unwrap())
        .unwrap();
    let call = &calls(folder.path())[0];
    assert!(
        call.starts_with("internalcommands sethduuid /")
            && call.ends_with(&format!("/-delete.vmdk {ID}")),
        "{call}"
    );
}
