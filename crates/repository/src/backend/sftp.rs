//! A folder on another host, over one connection of the program `ssh`, as restic does it.
//!
//! `ssh` brings the user's keys, agent, known hosts, jump hosts and configuration. It is started
//! in batch mode, so it never asks. An object is written under a temporary name, flushed where the
//! server can do that, its size is compared, and it is renamed. Many requests are under way at the
//! same time, of one object and of several.

mod connection;
mod refusal;
mod transfer;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use russh_sftp::protocol::{FileAttributes, OpenFlags};
use rustic_core::FileType;
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::leftovers::Leftovers;
use super::limit::Limits;
use super::storage::{
    Failure, FailureKind, Ground, Kind, LARGEST_OBJECT_BYTES, Listed, NO_ID, Object, Outcome, Part,
    Storage, TEMPORARY, listed,
};
use crate::access::Access;
use crate::location::SftpPlace;
use crate::parallel::lock;
use connection::Connection;
use refusal::failure;

/// Requests of one object, or for one list, under way at the same time.
const IN_FLIGHT: usize = 64;

/// See the module.
pub(super) struct Sftp {
    place: SftpPlace,
    ssh: Vec<String>,
    limits: Arc<Limits>,
    leftovers: Leftovers<String>,
    connection: Mutex<Option<Arc<Connection>>>,
    // Ends after the connection.
    runtime: Runtime,
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
            leftovers: Leftovers::none(),
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
                    found => Ok(vec![(NO_ID, size(&found?.attrs))]),
                };
            }
            let files = connection.files_of(folders).await?;
            let found = files.iter().filter_map(|(folder, file)| {
                let (name, modified) = (&file.filename, || modified(&file.attrs));
                let path = || format!("{folder}/{name}");
                self.leftovers.note(name, modified, path);
                listed(name, file.attrs.size?)
            });
            Ok(found.collect())
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
        let paths = self.leftovers.take();
        if paths.is_empty() {
            return;
        }
        // The space is worth no failure.
        let _ = self.over(async |connection| {
            for path in paths {
                let _ = connection.session.remove(path).await;
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

fn modified(attributes: &FileAttributes) -> Option<SystemTime> {
    let since = Duration::from_secs(attributes.mtime?.into());
    SystemTime::UNIX_EPOCH.checked_add(since)
}
