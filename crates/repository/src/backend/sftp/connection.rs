//! A running `ssh` and the session of SFTP through it.

use std::sync::Arc;

use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, Packet, StatusCode};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::super::storage::{Failure, FailureKind, Outcome};
use super::IN_FLIGHT;
use super::refusal::{failure, no_ssh, not_connected, read_complaints};
use crate::platform;

/// A server that answers nothing for so long is not there any more.
const SILENCE_SECONDS: u64 = 60;

/// A running `ssh` and the session through it.
pub(super) struct Connection {
    pub(super) session: RawSftpSession,
    can_replace: bool,
    pub(super) can_flush: bool,
    _ssh: Child,
}

impl Connection {
    pub(super) async fn open(mut command: Command) -> Outcome<Self> {
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        platform::keep_from_terminal(command.as_std_mut());
        let mut ssh = command.spawn().map_err(|error| no_ssh(&error))?;
        let (input, output, complaints) = (ssh.stdin.take(), ssh.stdout.take(), ssh.stderr.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(Failure::new(
                FailureKind::Other,
                "ssh has no input or output",
            ));
        };
        let complaints = tokio::spawn(read_complaints(complaints));
        let session = RawSftpSession::new(tokio::io::join(output, input));
        session.set_timeout(SILENCE_SECONDS);
        let version = match session.init().await {
            Ok(version) => version,
            Err(error) => {
                drop(session);
                let _ = ssh.start_kill();
                let text = complaints.await.unwrap_or_default();
                return Err(not_connected(&text, &error));
            }
        };
        let has = |name: &str| version.extensions.contains_key(name);
        Ok(Self {
            can_replace: has("posix-rename@openssh.com"),
            can_flush: has("fsync@openssh.com"),
            session,
            _ssh: ssh,
        })
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> Outcome<()> {
        if !self.can_replace {
            return self
                .session
                .rename(from, to)
                .await
                .map(drop)
                .map_err(failure);
        }
        let mut paths = Vec::new();
        for path in [from, to] {
            let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
            paths.extend_from_slice(&length.to_be_bytes());
            paths.extend_from_slice(path.as_bytes());
        }
        let answer = self.session.extended("posix-rename@openssh.com", paths);
        match answer.await.map_err(failure)? {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) => Err(failure(status.into())),
            _ => Err(failure(SftpError::UnexpectedPacket)),
        }
    }

    /// The files of a folder; none if it is not there.
    pub(super) async fn files(&self, folder: &str) -> Outcome<Vec<russh_sftp::protocol::File>> {
        let handle = match self.session.opendir(folder).await.map_err(failure) {
            Err(failure) if failure.kind == FailureKind::Missing => return Ok(Vec::new()),
            opened => opened?.handle,
        };
        let mut found = Vec::new();
        let end = loop {
            match self.session.readdir(&handle).await {
                Ok(names) => found.extend(names.files),
                Err(error) => break error,
            }
        };
        let closed = self.session.close(handle).await.map_err(failure);
        match end {
            SftpError::Status(status) if status.status_code == StatusCode::Eof => {}
            error => return Err(failure(error)),
        }
        closed.map(|_| found)
    }

    pub(super) async fn files_of(
        self: &Arc<Self>,
        folders: Vec<String>,
    ) -> Outcome<Vec<(String, russh_sftp::protocol::File)>> {
        let mut under_way = JoinSet::new();
        let mut found = Vec::new();
        for folder in folders {
            if under_way.len() >= IN_FLIGHT {
                found.extend(done(under_way.join_next().await)?);
            }
            let connection = Arc::clone(self);
            under_way.spawn(async move {
                let files = connection.files(&folder).await?.into_iter();
                Ok(files.map(|file| (folder.clone(), file)).collect::<Vec<_>>())
            });
        }
        while let Some(files) = under_way.join_next().await {
            found.extend(done(Some(files))?);
        }
        Ok(found)
    }

    /// Makes a folder and those above it.
    pub(super) async fn make_folder(&self, path: &str) -> Outcome<()> {
        let slashes = path
            .match_indices('/')
            .map(|(at, _)| at)
            .filter(|at| *at > 0);
        for end in slashes.chain([path.len()]) {
            let folder = path.get(..end).unwrap_or(path);
            if let Err(error) = self.session.mkdir(folder, FileAttributes::empty()).await {
                // Servers tell a folder that is there in several ways.
                let there = self.session.stat(folder).await;
                let is_folder = |attrs: &FileAttributes| attrs.file_type().is_dir();
                if !there.is_ok_and(|found| is_folder(&found.attrs)) {
                    return Err(failure(error));
                }
            }
        }
        Ok(())
    }

    /// What a failure that the server did not explain means.
    pub(super) async fn explain(&self, folder: &str, size_bytes: u64, failure: Failure) -> Failure {
        if failure.kind != FailureKind::Other {
            return failure;
        }
        match self.session.statvfs(folder).await {
            Ok(space) if space.blocks_avail.saturating_mul(space.fragment_size) <= size_bytes => {
                Failure::new(FailureKind::Full, failure.source)
            }
            _ => failure,
        }
    }
}

/// What a task gave.
pub(super) fn done<T>(outcome: Option<Result<Outcome<T>, tokio::task::JoinError>>) -> Outcome<T> {
    match outcome {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(Failure::new(FailureKind::Other, error)),
        None => Err(Failure::new(FailureKind::Other, "nothing was under way")),
    }
}
