//! Crashes an operation at each of its steps in turn and lets the test look at what is left.
//!
//! A crash is real: the operation runs in a child process (the test binary itself, started again
//! for this one test) that aborts. Not covered: what a power cut does to data that was written but
//! not yet synced.

use std::env;
use std::path::Path;
use std::process::{Command, Output};

use vrs_progress::Progress;

use crate::fault::{CRASH_MARK, FaultProgress};

const STEP: &str = "VRS_TESTKIT_CRASH_AT_STEP";
const SCENE: &str = "VRS_TESTKIT_SCENE";
/// An operation with more steps than this in a test's scene loops.
const MOST_STEPS: usize = 10_000;

/// Where a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashPoint {
    /// The number of the step before which the process ended, from one.
    pub number: usize,
    /// The step's name.
    pub step: String,
}

/// Runs `operate` until it completes, crashing it at its first step, then in a new scene at its
/// second, and so on.
///
/// `test` is the full path of the calling test function inside its binary, as `cargo test --
/// --list` shows it. For every run, `prepare` fills an empty folder, `operate` works in it in a
/// child process, and `verify` looks at it after the crash. The calling test must do nothing else
/// of note: the child executes it from the start up to this call.
///
/// Returns the steps at which the operation was crashed.
///
/// # Panics
/// When `operate` panics, fails to reach any step or never completes.
pub fn run_at_every_step(
    test: &str,
    mut prepare: impl FnMut(&Path),
    operate: impl FnOnce(&Path, &dyn Progress),
    mut verify: impl FnMut(&Path, &CrashPoint),
) -> Vec<CrashPoint> {
    if let Ok(step) = env::var(STEP) {
        run_in_child(step.parse().expect("a step's number"), operate);
    }
    let mut crashes = Vec::new();
    for number in 1..MOST_STEPS {
        let scene = tempfile::tempdir().expect("a temporary folder");
        prepare(scene.path());
        let Some(step) = crash_step(&run_child(test, number, scene.path())) else {
            assert!(
                !crashes.is_empty(),
                "{test}: the operation announces no steps"
            );
            return crashes;
        };
        let crash = CrashPoint { number, step };
        verify(scene.path(), &crash);
        crashes.push(crash);
    }
    panic!("{test}: the operation did not complete within {MOST_STEPS} steps");
}

fn run_in_child(step: usize, operate: impl FnOnce(&Path, &dyn Progress)) -> ! {
    let scene = env::var_os(SCENE).expect("the scene's folder");
    operate(Path::new(&scene), &FaultProgress::abort_at(step));
    std::process::exit(0);
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
