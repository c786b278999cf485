//! What it means when `ssh` or the server does not do something.

use std::io;

use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::StatusCode;
use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;

use super::super::storage::{Failure, FailureKind};

/// What `ssh` may say before its end is cut off.
const LONGEST_COMPLAINT_BYTES: u64 = 4096;

pub(super) async fn read_complaints(complaints: Option<ChildStderr>) -> String {
    let mut text = Vec::new();
    if let Some(mut complaints) = complaints {
        // What comes before an error is of use, too.
        let _ = (&mut complaints)
            .take(LONGEST_COMPLAINT_BYTES)
            .read_to_end(&mut text)
            .await;
        // `ssh` must not wait for somebody to read the rest.
        let _ = tokio::io::copy(&mut complaints, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}

pub(super) fn no_ssh(error: &io::Error) -> Failure {
    Failure::new(FailureKind::NoProgram, format!("cannot start ssh: {error}"))
}

/// What it means that no session came about, by what OpenSSH's `ssh` prints.
pub(super) fn not_connected(complaints: &str, error: &SftpError) -> Failure {
    let lines: Vec<&str> = complaints.split_whitespace().collect();
    let text = lines.join(" ");
    let says = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    let kind = if says(&[
        "Permission denied",
        "Host key verification failed",
        "Too many authentication failures",
    ]) {
        FailureKind::LoginRefused
    } else if says(&[
        "subsystem request failed",
        "Bad owner or permissions",
        "Bad configuration option",
    ]) {
        FailureKind::Other
    } else {
        FailureKind::Unreachable
    };
    let text = if text.is_empty() {
        format!("no session over ssh: {error}")
    } else {
        format!("ssh said: {text}")
    };
    Failure::new(kind, text)
}

fn says_full(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("no space left") || text.contains("quota")
}

pub(super) fn failure(error: SftpError) -> Failure {
    let kind = match &error {
        SftpError::Status(status) => match status.status_code {
            StatusCode::NoSuchFile => FailureKind::Missing,
            StatusCode::PermissionDenied => FailureKind::NotPermitted,
            StatusCode::Eof => FailureKind::TooShort,
            StatusCode::NoConnection | StatusCode::ConnectionLost => FailureKind::Unreachable,
            _ if says_full(&status.error_message) => FailureKind::Full,
            _ => FailureKind::Other,
        },
        SftpError::Limited(_) => FailureKind::Other,
        // A lost connection shows in several ways; another one is tried in any case.
        _ => FailureKind::Unreachable,
    };
    let text = match error {
        SftpError::Status(status) => format!("the server answered: {}", status.error_message),
        SftpError::Timeout => "the server does not answer".to_owned(),
        error => format!("the connection was lost: {error}"),
    };
    Failure::new(kind, text)
}
