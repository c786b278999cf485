//! A folder on another host, over one connection of the program `ssh`, as restic does it.
//!
//! `ssh` brings the user's keys, agent, known hosts, jump hosts and configuration. It is started
//! in batch mode, so it never asks. An object is written under a temporary name, flushed where the
//! server can do that, its size is compared, and it is renamed. Many requests are under way at the
//! same time, of one object and of several.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use rustic_core::{FileType, Id};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::limit::Limits;
use super::storage::{
    Failure, FailureKind, Ground, Kind, LARGEST_OBJECT_BYTES, Listed, Object, Outcome, Part,
    Storage, TEMPORARY, listed,
};
use crate::access::Access;
use crate::location::SftpPlace;
use crate::parallel::lock;
use crate::platform;

/// A server that answers nothing for so long is not there any more.
const SILENCE_SECONDS: u64 = 60;
/// Bytes in one request; every server takes as many.
const PIECE_BYTES: usize = 32 << 10;
/// Requests of one object, or for one list, under way at the same time.
const IN_FLIGHT: usize = 64;
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// What `ssh` may say before its end is cut off.
const LONGEST_COMPLAINT_BYTES: u64 = 4096;

/// See the module.
pub(super) struct Sftp {
    place: SftpPlace,
    ssh: Vec<String>,
    limits: Arc<Limits>,
    connection: Mutex<Option<Arc<Connection>>>,
    // Ends after the connection.
    runtime: Runtime,
}

/// A running `ssh` and the session through it.
struct Connection {
    session: RawSftpSession,
    can_replace: bool,
    can_flush: bool,
    _ssh: Child,
}

impl Sftp {
    pub(super) fn new(place: &SftpPlace, access: &Access, limits: Arc<Limits>) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        Ok(Self {
            place: place.clone(),
            ssh: access.ssh.clone(),
            limits,
            connection: Mutex::new(None),
            runtime,
        })
    }

    /// Does something over the connection, which is made if there is none, and given up if it is lost.
    fn over<T>(&self, work: impl AsyncFnOnce(&Arc<Connection>) -> Outcome<T>) -> Outcome<T> {
        let connection = self.connection()?;
        let outcome = self.runtime.block_on(work(&connection));
        if matches!(&outcome, Err(failure) if failure.kind == FailureKind::Unreachable) {
            let mut held = lock(&self.connection);
            held.take_if(|held| Arc::ptr_eq(held, &connection));
        }
        outcome
    }

    fn connection(&self) -> Outcome<Arc<Connection>> {
        let mut held = lock(&self.connection);
        if let Some(connection) = held.as_ref() {
            return Ok(Arc::clone(connection));
        }
        let made = self.runtime.block_on(Connection::open(self.command()?))?;
        Ok(Arc::clone(held.insert(Arc::new(made))))
    }

    fn command(&self) -> Outcome<Command> {
        let no_program = || Failure::new(FailureKind::NoProgram, "no program ssh is given");
        let (program, arguments) = self.ssh.split_first().ok_or_else(no_program)?;
        let mut command = Command::new(program);
        command.args(arguments).args(["-o", "BatchMode=yes"]);
        if let Some(user) = &self.place.user {
            command.args(["-l", user]);
        }
        if let Some(port) = self.place.port {
            command.args(["-p", &port.to_string()]);
        }
        command.args([&self.place.host, "-s", "sftp"]);
        Ok(command)
    }

    /// The path of something in the repository.
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.place.path.trim_end_matches('/'))
    }

    fn temporary(path: &str) -> String {
        format!("{path}{TEMPORARY}{}", uuid::Uuid::new_v4().simple())
    }

    /// The folder that packs with one beginning lie in.
    fn pack_folders(&self) -> impl Iterator<Item = String> + '_ {
        let packs = Kind::Of(FileType::Pack).folder();
        (0..=u8::MAX).map(move |first| self.path(&format!("{packs}/{first:02x}")))
    }

    /// The folders of a kind of object.
    fn folders(&self, kind: Kind) -> Vec<String> {
        if kind.is_pack() {
            self.pack_folders().collect()
        } else {
            vec![self.path(kind.folder())]
        }
    }
}

impl Connection {
    async fn open(mut command: Command) -> Outcome<Self> {
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

    async fn rename(&self, from: &str, to: &str) -> Outcome<()> {
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

    /// Writes a new file, flushes it and makes sure that it has arrived.
    async fn fill(self: &Arc<Self>, path: &str, content: &[Bytes], limits: &Limits) -> Outcome<()> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let opened = self
            .session
            .open(path, flags, FileAttributes::empty())
            .await;
        let handle = opened.map_err(failure)?.handle;
        let filled = self.fill_open(&handle, content, limits).await;
        let closed = self.session.close(handle).await.map_err(failure);
        filled.and(closed.map(drop))
    }

    async fn fill_open(
        self: &Arc<Self>,
        handle: &str,
        content: &[Bytes],
        limits: &Limits,
    ) -> Outcome<()> {
        let mut under_way = JoinSet::new();
        let mut offset: u64 = 0;
        for part in content {
            let mut rest = part.clone();
            while !rest.is_empty() {
                let piece_bytes = PIECE_BYTES.min(limits.upload.piece_bytes());
                let piece = rest.split_to(piece_bytes.min(rest.len()));
                limits.upload.wait_async(piece.len()).await;
                if under_way.len() >= IN_FLIGHT {
                    done(under_way.join_next().await)?;
                }
                let (connection, handle, at) = (Arc::clone(self), handle.to_owned(), offset);
                offset = offset.saturating_add(piece.len() as u64);
                under_way.spawn(async move {
                    let written = connection.session.write(handle, at, piece.to_vec());
                    written.await.map(drop).map_err(failure)
                });
            }
        }
        while let Some(written) = under_way.join_next().await {
            done(Some(written))?;
        }
        if self.can_flush {
            self.session.fsync(handle).await.map_err(failure)?;
        }
        let found = self.session.fstat(handle).await.map_err(failure)?;
        if found.attrs.size == Some(offset) {
            Ok(())
        } else {
            Err(Failure::new(
                FailureKind::Unwell,
                "the server did not store all of it",
            ))
        }
    }

    async fn read_range(
        self: &Arc<Self>,
        handle: &str,
        from: u64,
        length_bytes: usize,
        limits: &Limits,
    ) -> Outcome<Bytes> {
        let mut content = vec![0; length_bytes];
        let mut under_way = JoinSet::new();
        let piece_bytes = PIECE_BYTES.min(limits.download.piece_bytes());
        let mut next: usize = 0;
        while next < length_bytes || !under_way.is_empty() {
            if next < length_bytes && under_way.len() < IN_FLIGHT {
                let length = piece_bytes.min(length_bytes.saturating_sub(next));
                limits.download.wait_async(length).await;
                let (connection, handle, at) = (Arc::clone(self), handle.to_owned(), next);
                let offset = from.saturating_add(at as u64);
                under_way.spawn(async move {
                    let piece = connection.read_piece(&handle, offset, length).await?;
                    Ok((at, piece))
                });
                next = next.saturating_add(length);
                continue;
            }
            let (at, piece): (usize, Vec<u8>) = done(under_way.join_next().await)?;
            if let Some(place) = content.get_mut(at..at.saturating_add(piece.len())) {
                place.copy_from_slice(&piece);
            }
        }
        Ok(content.into())
    }

    /// Exactly so many bytes, although servers may answer with fewer at a time.
    async fn read_piece(&self, handle: &str, offset: u64, length: usize) -> Outcome<Vec<u8>> {
        let mut piece = Vec::with_capacity(length);
        while piece.len() < length {
            let at = offset.saturating_add(piece.len() as u64);
            let wanted = u32::try_from(length.saturating_sub(piece.len())).unwrap_or(u32::MAX);
            let read = self.session.read(handle, at, wanted).await;
            let data = read.map_err(failure)?.data;
            if data.is_empty() || data.len() > wanted as usize {
                return Err(Failure::new(
                    FailureKind::TooShort,
                    "the server sent a wrong number of bytes",
                ));
            }
            piece.extend_from_slice(&data);
        }
        Ok(piece)
    }

    /// The files of a folder; none if it is not there.
    async fn files(&self, folder: &str) -> Outcome<Vec<russh_sftp::protocol::File>> {
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

    async fn files_of(
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
    async fn make_folder(&self, path: &str) -> Outcome<()> {
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
    async fn explain(&self, folder: &str, size_bytes: u64, failure: Failure) -> Failure {
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
fn done<T>(outcome: Option<Result<Outcome<T>, tokio::task::JoinError>>) -> Outcome<T> {
    match outcome {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(Failure::new(FailureKind::Other, error)),
        None => Err(Failure::new(FailureKind::Other, "nothing was under way")),
    }
}

async fn read_complaints(complaints: Option<ChildStderr>) -> String {
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

fn no_ssh(error: &io::Error) -> Failure {
    Failure::new(FailureKind::NoProgram, format!("cannot start ssh: {error}"))
}

/// What it means that no session came about, by what OpenSSH's `ssh` prints.
fn not_connected(complaints: &str, error: &SftpError) -> Failure {
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

fn failure(error: SftpError) -> Failure {
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

impl Storage for Sftp {
    fn ground(&self) -> Outcome<Ground> {
        let folder = self.place.path.clone();
        self.over(async |connection| {
            match connection.session.stat(&folder).await.map_err(failure) {
                Err(failure) if failure.kind == FailureKind::Missing => Ok(Ground::Nothing),
                Ok(found) if !found.attrs.file_type().is_dir() => Ok(Ground::Unusable),
                found => {
                    found?;
                    let files = connection.files(&folder).await?;
                    Ok(Ground::of_names(
                        files.iter().map(|file| file.filename.as_str()),
                    ))
                }
            }
        })
    }

    fn create(&self) -> Outcome<()> {
        let folders = Kind::ALL.into_iter().filter(|kind| !kind.is_config());
        let folders: Vec<String> = folders.map(|kind| self.path(kind.folder())).collect();
        let packs: Vec<String> = self.pack_folders().collect();
        self.over(async |connection| {
            for folder in folders {
                connection.make_folder(&folder).await?;
            }
            let mut under_way = JoinSet::new();
            for folder in packs {
                let connection = Arc::clone(connection);
                under_way.spawn(async move {
                    // One that is missing is made when it is needed.
                    let _ = connection
                        .session
                        .mkdir(folder, FileAttributes::empty())
                        .await;
                });
            }
            under_way.join_all().await;
            Ok(())
        })
    }

    fn list(&self, kind: Kind) -> Outcome<Vec<Listed>> {
        let (folders, config) = (self.folders(kind), self.path(kind.folder()));
        self.over(async |connection| {
            if kind.is_config() {
                return match connection.session.stat(config).await.map_err(failure) {
                    Err(failure) if failure.kind == FailureKind::Missing => Ok(Vec::new()),
                    found => Ok(vec![(Id::default(), size(&found?.attrs))]),
                };
            }
            let files = connection.files_of(folders).await?;
            Ok(files
                .iter()
                .filter_map(|(_, file)| listed(&file.filename, file.attrs.size?))
                .collect())
        })
    }

    fn read(&self, object: Object, part: Option<Part>) -> Outcome<Bytes> {
        let path = self.path(&object.path());
        self.over(async |connection| {
            let opened = connection
                .session
                .open(path, OpenFlags::READ, FileAttributes::empty());
            let handle = opened.await.map_err(failure)?.handle;
            let (from, length_bytes) = match part {
                Some(part) => (u64::from(part.offset), part.length_bytes as usize),
                None => {
                    let found = connection.session.fstat(&handle).await.map_err(failure)?;
                    (0, small_enough(found.attrs.size)?)
                }
            };
            let read = connection
                .read_range(&handle, from, length_bytes, &self.limits)
                .await;
            let closed = connection.session.close(handle).await.map_err(failure);
            let content = read?;
            closed.map(|_| content)
        })
    }

    fn write(&self, object: Object, content: &[Bytes]) -> Outcome<()> {
        let path = self.path(&object.path());
        let folder = path
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned();
        let size_bytes = content.iter().map(|part| part.len() as u64).sum();
        self.over(async |connection| {
            let temporary = Self::temporary(&path);
            let mut filled = connection.fill(&temporary, content, &self.limits).await;
            if matches!(&filled, Err(failure) if failure.kind == FailureKind::Missing) {
                connection.make_folder(&folder).await?;
                filled = connection.fill(&temporary, content, &self.limits).await;
            }
            let stored = match filled {
                Ok(()) => connection.rename(&temporary, &path).await,
                failed => failed,
            };
            let Err(failure) = stored else {
                return Ok(());
            };
            let failure = connection.explain(&folder, size_bytes, failure).await;
            let _ = connection.session.remove(temporary).await;
            // Servers that never replace a file refuse an object that is there already.
            let present = connection.session.stat(&path).await;
            match present {
                Ok(found) if found.attrs.size == Some(size_bytes) => Ok(()),
                _ => Err(failure),
            }
        })
    }

    fn remove(&self, object: Object) -> Outcome<()> {
        let path = self.path(&object.path());
        self.over(async |connection| {
            connection
                .session
                .remove(path)
                .await
                .map(drop)
                .map_err(failure)
        })
    }

    fn remove_leftovers(&self) {
        let folders: Vec<String> = Kind::ALL
            .into_iter()
            .filter(|kind| !kind.is_config())
            .flat_map(|kind| self.folders(kind))
            .collect();
        // The space is worth no failure.
        let _ = self.over(async |connection| {
            for (folder, file) in connection.files_of(folders).await? {
                if is_leftover(&file) {
                    let path = format!("{folder}/{}", file.filename);
                    connection.session.remove(path).await.map_err(failure)?;
                }
            }
            Ok(())
        });
    }
}

/// The length of an object that is read as a whole.
fn small_enough(size_bytes: Option<u64>) -> Outcome<usize> {
    let size_bytes = size_bytes.filter(|bytes| *bytes <= LARGEST_OBJECT_BYTES);
    size_bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| Failure::new(FailureKind::Other, "the object is too long"))
}

fn size(attributes: &FileAttributes) -> u32 {
    u32::try_from(attributes.size.unwrap_or(0)).unwrap_or(u32::MAX)
}

fn is_leftover(file: &russh_sftp::protocol::File) -> bool {
    let modified = file.attrs.mtime.and_then(|seconds| {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.into()))
    });
    let age = modified.and_then(|modified| modified.elapsed().ok());
    file.filename.contains(TEMPORARY) && age.is_some_and(|age| age > LEFTOVER_AGE)
}
