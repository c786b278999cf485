//! What `VBoxManage` writes to standard error: progress, and why it failed.
//!
//! Source: outputs of 7.2.22. Progress is one line, `0%...10%...`; on failure the name of the code
//! follows it without a line end. Messages begin with `VBoxManage: error: `, the code and the place
//! in the source come behind them in the same form.

use super::process::Ended;
use crate::result_code::ResultCode;

const PREFIX: &str = "VBoxManage: error: ";

/// More than the longest message of VirtualBox.
const MAX_MESSAGE_CHARS: usize = 2000;

/// Texts of failures that go away by themselves: another program has, had or wants the session of
/// the machine, or the daemon is starting. All were seen on 7.2.22.
const PASSING: [&str; 12] = [
    "is already locked by a session",
    "is already locked for a session",
    "already has a lock request pending",
    "was unlocked unexpectedly while attempting to share its session",
    "The session is not locked",
    "The object is not ready",
    "Failed to assign the machine to the session",
    "Failed to create the VirtualBox object",
    "while it is changing state",
    "while it is changing the state",
    "while it is locked",
    "was closed before any attempt to power it on",
];

/// Codes of a machine or medium that somebody uses.
const IN_USE: [&str; 1] = ["VBOX_E_OBJECT_IN_USE"];

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Option<ResultCode>,
    pub(super) message: String,
    /// Whether trying again may help.
    pub(super) is_passing: bool,
    /// Whether somebody else uses the object.
    pub(super) is_busy: bool,
}

impl Failure {
    /// Understands the output of a failed command.
    pub(super) fn of(ended: &Ended) -> Self {
        let mut failure = Self::parse(&ended.stderr);
        if failure.message.is_empty() {
            failure.message = last_line(&ended.stderr)
                .or_else(|| last_line(&ended.stdout))
                .unwrap_or("no reason given")
                .to_owned();
        }
        failure
    }

    pub(super) fn parse(stderr: &str) -> Self {
        let mut code = None;
        let mut messages: Vec<&str> = Vec::new();
        let mut continues = false;
        for line in stderr.lines() {
            let message = if let Some(text) = line.strip_prefix(PREFIX) {
                let (found, message) = split_code(text);
                code = code.or(found);
                continues = message.is_some();
                message
            } else {
                code = code.or_else(|| code_after_progress(line));
                continues &= !line.trim().is_empty();
                continues.then_some(line)
            };
            messages.extend(message.filter(|message| !messages.contains(message)));
        }
        let message: String = joined(&messages).chars().take(MAX_MESSAGE_CHARS).collect();
        let is_passing = is_passing(stderr);
        let is_busy = is_passing
            || code
                .as_ref()
                .is_some_and(|code| IN_USE.contains(&code.name()));
        Self {
            code,
            message,
            is_passing,
            is_busy,
        }
    }
}

/// Whether a command that claims success wrote an error; `discardstate`, `adoptstate` and
/// `modifymedium --setlocation` do so.
pub(super) fn claims_error(stderr: &str) -> bool {
    stderr.lines().any(|line| line.starts_with(PREFIX))
}

/// Whether an image is locked, by a running operation or by one that died and left its locks behind.
pub(super) fn is_media_lock(message: &str) -> bool {
    message.contains("is locked for reading by another task")
        || message.contains("is locked for writing by another task")
}

/// What `startvm` says of images that a killed operation left locked: nothing (seen on 7.2.22). Other
/// failures of a start have a reason.
pub(super) fn is_unexplained_start(command: &str, message: &str) -> bool {
    command.contains(" startvm ") && message.starts_with("No error info")
}

/// The last percentage that a progress line shows.
pub(super) fn percent_reached(stderr: &str) -> Option<u8> {
    let steps = stderr.lines().flat_map(|line| line.split("..."));
    steps.filter_map(percent).last()
}

fn percent(step: &str) -> Option<u8> {
    step.strip_suffix('%')?
        .parse()
        .ok()
        .filter(|percent| *percent <= 100)
}

fn without_progress(line: &str) -> &str {
    let mut rest = line;
    while let Some((step, after)) = rest.split_once("...") {
        if percent(step).is_none() {
            break;
        }
        rest = after;
    }
    rest
}

fn code_after_progress(line: &str) -> Option<ResultCode> {
    let rest = without_progress(line);
    let is_code = rest.len() < line.len()
        && rest.contains('_')
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    is_code.then(|| ResultCode::new(rest))
}

/// The code in a line, or the message in it, or both.
fn split_code(text: &str) -> (Option<ResultCode>, Option<&str>) {
    if is_place_in_source(text) {
        return (None, None);
    }
    let code_in = |rest: &str| Some(ResultCode::new(rest.split_once(" (0x")?.0));
    // Details: code VBOX_E_FILE_ERROR (0x80bb0004), component MediumWrap...
    if let Some(rest) = text.strip_prefix("Details: code ") {
        return (code_in(rest), None);
    }
    // Code NS_ERROR_FAILURE (0x80004005) - Operation failed (extended info not available)
    if let Some(rest) = text.strip_prefix("Code ") {
        return (
            code_in(rest),
            rest.split_once(" - ").map(|(_, message)| message),
        );
    }
    (None, Some(text))
}

/// General first, details behind it.
fn joined(messages: &[&str]) -> String {
    let mut text = String::new();
    for message in messages {
        if !text.is_empty() {
            text.push_str(if text.ends_with(['.', ':']) {
                " "
            } else {
                ": "
            });
        }
        text.push_str(message);
    }
    text
}

fn is_place_in_source(message: &str) -> bool {
    message.starts_with("Context: ")
        || message.starts_with("--------")
        || (message.starts_with('/') && message.contains(".cpp["))
}

fn is_passing(stderr: &str) -> bool {
    // No text at all but the place: the machine could not be locked.
    let is_unexplained_lock =
        stderr.contains("extended info not available") && stderr.contains("LockMachine(");
    is_unexplained_lock || PASSING.iter().any(|text| stderr.contains(text))
}

fn last_line(text: &str) -> Option<&str> {
    let mut lines = text
        .lines()
        .map(without_progress)
        .filter(|line| !line.trim().is_empty() && percent(line).is_none());
    lines.next_back()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use rstest::rstest;

    use super::*;

    fn shown(stderr: &str) -> String {
        let failure = Failure::parse(stderr);
        let code = failure
            .code
            .map_or_else(|| "-".to_owned(), |code| code.to_string());
        format!(
            "{code} passing={} busy={}: {}",
            failure.is_passing, failure.is_busy, failure.message
        )
    }

    #[test]
    fn recorded_failures() {
        assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/error-not-found.txt")), @"VBOX_E_OBJECT_NOT_FOUND passing=false busy=false: Could not find a registered machine named 'nosuchvm'");
        assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/error-after-progress.txt")), @"VBOX_E_FILE_ERROR passing=false busy=false: Failed to take snapshot: Could not open the medium storage unit '/srv/rig/w/med/gone.vdi'. VD: error VERR_FILE_NOT_FOUND opening image file '/srv/rig/w/med/gone.vdi' (VERR_FILE_NOT_FOUND)");
        assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/error-locked.txt")), @"VBOX_E_INVALID_OBJECT_STATE passing=true busy=true: The machine 'big' is already locked by a session (or being locked or unlocked)");
        assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/error-no-lock.txt")), @"NS_ERROR_FAILURE passing=true busy=true: Operation failed (extended info not available)");
        assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/error-in-use.txt")), @"VBOX_E_OBJECT_IN_USE passing=false busy=true: Medium '/srv/rig/w/med/vms/m1/a.vdi' cannot be closed because it is still attached to 1 virtual machines");
        assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/error-bad-settings.txt")), @"NS_ERROR_FAILURE passing=false busy=false: Couldn't find end of Start Tag junk line 1. Location: '/tmp/vbxw/vms/p/p.vbox', line 2 (1), column 1.");
        assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/error-usage.txt")), @"- passing=false busy=false: Unknown subcommand: list");
        assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/error-merge-lock.txt")), @"VBOX_E_INVALID_OBJECT_STATE passing=false busy=false: Snapshot operation failed: Cannot lock hard disk '/srv/rig/w/on/vms/big/big.vdi' when deleting a snapshot: Medium '/srv/rig/w/on/vms/big/Snapshots/{5cbd75f9-488c-4f0d-8f22-d7990495e923}.vdi' is locked for reading by another task");
    }

    #[rstest]
    #[case("", None)]
    #[case("0%...10%...20%", Some(20))]
    #[case("0%...10%...VBOX_E_FILE_ERROR\n", Some(10))]
    #[case(
        "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%\n",
        Some(100)
    )]
    #[case("999%...", None)]
    fn progress(#[case] stderr: &str, #[case] expected: Option<u8>) {
        assert_eq!(percent_reached(stderr), expected);
    }
}
