//! Where a program keeps its repository: a folder, or a server at the other end of a line.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use vrs_testkit::{Proxy, ServerKind, StorageServer};

/// Half of the time that an answer takes at least.
const LATENCY: Duration = Duration::from_millis(10);
/// 20 Mbit/s.
const NARROW: NonZeroU64 = NonZeroU64::new(2_500_000).expect("more than 0");
const NAME: &str = "repository";

/// What the program speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// restic's REST protocol, served by `rclone`.
    Rest,
    /// ssh, on which borg runs itself.
    Ssh,
}

/// See the module.
pub(crate) enum Storage {
    /// The folder in which the repository is.
    Folder(TempDir),
    /// See [`Line`].
    Elsewhere(Box<Line>),
}

/// A server that is reached through a proxy. What passes is counted.
pub(crate) struct Line {
    protocol: Protocol,
    server: StorageServer,
    proxy: Proxy,
}

impl Storage {
    pub(crate) fn folder() -> Self {
        Self::Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn elsewhere(protocol: Protocol) -> Self {
        let mut server = StorageServer::start(match protocol {
            Protocol::Rest => ServerKind::RcloneRest,
            Protocol::Ssh => ServerKind::Sshd,
        });
        let proxy = Proxy::slow(server.port(), LATENCY);
        server.reach_through(&proxy);
        Self::Elsewhere(Box::new(Line {
            protocol,
            server,
            proxy,
        }))
    }

    /// The folder of the repository's files.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.path().join(NAME),
            Self::Elsewhere(line) => line.server.root().join(NAME),
        }
    }

    /// The location for vrs and restic; the others have their own ways of saying it.
    pub(crate) fn location(&self) -> String {
        match self {
            Self::Folder(_) => self.path().display().to_string(),
            Self::Elsewhere(line) => line.location(),
        }
    }

    /// With the login in it, for programs that take none from the environment.
    pub(crate) fn location_with_login(&self) -> String {
        let location = self.location();
        let Self::Elsewhere(line) = self else {
            return location;
        };
        let (user, password) = line.server.rest_login();
        let login = format!("http://{user}:{}@", password.replace(' ', "%20"));
        location.replace("http://", &login)
    }

    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let Self::Elsewhere(line) = self else {
            return Vec::new();
        };
        let mut variables = line.server.environment();
        variables.push(("BORG_RSH", line.server.ssh().join(" ")));
        variables
    }

    /// Makes the line as narrow as a slow one at home, or as wide as this computer.
    pub(crate) fn narrow(&self, is_narrow: bool) {
        if let Self::Elsewhere(line) = self {
            line.proxy.limit(is_narrow.then_some(NARROW));
        }
    }

    /// Bytes that went and came until now.
    pub(crate) fn passed_bytes(&self) -> [u64; 2] {
        match self {
            Self::Folder(_) => [0, 0],
            Self::Elsewhere(line) => [line.proxy.sent_bytes(), line.proxy.received_bytes()],
        }
    }
}

impl Line {
    fn location(&self) -> String {
        match self.protocol {
            Protocol::Rest => self.server.location(NAME),
            Protocol::Ssh => {
                let location = self.server.borg_location(NAME);
                location.trim_start_matches("borg:").to_owned()
            }
        }
    }
}

/// How much of what the narrow line could have carried in this time was carried, the way that was more
/// used.
pub(crate) fn share_of_narrow_line(passed_bytes: [u64; 2], seconds: f64) -> f64 {
    let most = passed_bytes[0].max(passed_bytes[1]);
    most as f64 / (NARROW.get() as f64 * seconds)
}
