//! Crashes an operation at each of its steps in turn and lets the test look at what is left.
//!
//! A crash is real: the operation runs in a child process (the test binary itself, started again
//! for this one test) that aborts. An undisturbed run comes first and tells which steps there are.
//! Not covered, unless `verify` cuts the power of a [`LoopDisk`](crate::LoopDisk): what a power cut does to data
//! that was written but not yet synced.

use std::env;
use std::path::Path;
use std::process::{Command, Output};

use vrs_progress::Progress;

use crate::fault::{CRASH_MARK, FaultProgress, StepLog};

const STEP: &str = "VRS_TESTKIT_CRASH_AT_STEP";
const SCENE: &str = "VRS_TESTKIT_SCENE";
/// The number that stands for the undisturbed run.
const NO_STEP: usize = 0;
/// Precedes the name of each step of the undisturbed run.
const STEP_MARK: &str = "testkit: step ";
/// Of steps of one name in a row, so many are crashed: the first ones differ in what is there
/// already, further ones in nothing.
const CRASHED_IN_A_ROW: usize = 3;

/// Where a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashPoint {
    /// The number of the step before which the process ended, from one.
    pub number: usize,
    /// The step's name.
    pub step: String,
}

/// Runs `operate` once undisturbed and then crashes it at each of its steps, every time in a new
/// scene. Where a step repeats without another in between, only the first few are crashed.
///
/// `test` is the full path of the calling test function inside its binary, as `cargo test --
/// --list` shows it. For every run, `prepare` fills an empty folder, `operate` works in it in a
/// child process, and `verify` looks at it after the crash. The calling test must do nothing else
/// of note: the child executes it from the start up to this call.
///
/// Returns the steps at which the operation was crashed.
///
/// # Panics
/// When `operate` panics or announces no steps.
pub fn run_at_every_step(
    test: &str,
    mut prepare: impl FnMut(&Path),
    operate: impl FnOnce(&Path, &dyn Progress),
    mut verify: impl FnMut(&Path, &CrashPoint),
) -> Vec<CrashPoint> {
    if let Ok(step) = env::var(STEP) {
        run_in_child(step.parse().expect("a step's number"), operate);
    }
    let scene = tempfile::tempdir().expect("a temporary folder");
    prepare(scene.path());
    let steps = announced_steps(&run_child(test, NO_STEP, scene.path()));
    assert!(
        !steps.is_empty(),
        "{test}: the operation announces no steps"
    );
    let mut crashes = Vec::new();
    for number in numbers_to_crash(&steps) {
        let scene = tempfile::tempdir().expect("a temporary folder");
        prepare(scene.path());
        // Threads may make a run shorter than the undisturbed one.
        if let Some(step) = crash_step(&run_child(test, number, scene.path())) {
            let crash = CrashPoint { number, step };
            verify(scene.path(), &crash);
            crashes.push(crash);
        }
    }
    assert!(!crashes.is_empty(), "{test}: no step was crashed");
    crashes
}

fn numbers_to_crash(steps: &[String]) -> impl Iterator<Item = usize> {
    let runs = steps.chunk_by(|step, next| step == next);
    let crashed = runs.flat_map(|run| (0..run.len()).map(|place| place < CRASHED_IN_A_ROW));
    (1..)
        .zip(crashed)
        .filter(|(_, crashed)| *crashed)
        .map(|(number, _)| number)
}

fn run_in_child(step: usize, operate: impl FnOnce(&Path, &dyn Progress)) -> ! {
    let scene = env::var_os(SCENE).expect("the scene's folder");
    if step == NO_STEP {
        let log = StepLog::default();
        operate(Path::new(&scene), &log);
        log.steps()
            .iter()
            .for_each(|step| eprintln!("{STEP_MARK}{step}"));
    } else {
        operate(Path::new(&scene), &FaultProgress::abort_at(step));
    }
    std::process::exit(0);
}

/// The steps of an undisturbed run.
fn announced_steps(child: &Output) -> Vec<String> {
    assert_eq!(crash_step(child), None, "an undisturbed run was crashed");
    let stderr = String::from_utf8_lossy(&child.stderr);
    let steps = stderr.lines().filter_map(|line| line.split_once(STEP_MARK));
    steps.map(|(_, step)| step.to_owned()).collect()
}

fn run_child(test: &str, step: usize, scene: &Path) -> Output {
    Command::new(env::current_exe().expect("the test binary"))
        .args([
            test,
            "--exact",
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(STEP, step.to_string())
        .env(SCENE, scene)
        .output()
        .expect("the test binary starts")
}

/// The step at which the child was crashed; nothing if it completed.
fn crash_step(child: &Output) -> Option<String> {
    let stderr = String::from_utf8_lossy(&child.stderr);
    let stdout = String::from_utf8_lossy(&child.stdout);
    assert!(
        !stdout.contains("running 0 tests"),
        "the test named to run_at_every_step does not exist"
    );
    if child.status.success() {
        return None;
    }
    let step = stderr
        .lines()
        .find_map(|line| line.split_once(CRASH_MARK))
        .map(|(_, step)| step.to_owned());
    assert!(
        step.is_some(),
        "the operation failed by itself ({}):\n{stdout}\n{stderr}",
        child.status
    );
    step
}
