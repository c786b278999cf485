//! Real servers of storage on loopback ports, each with a folder and keys of its own.
//!
//! They end when they are dropped. A server that does not come up fails the test.

mod proxy;
mod sshd;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use proxy::Proxy;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a server speaks and which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// OpenSSH's `sshd`.
    Sshd,
    /// The same, permitting nothing but reading.
    ReadOnlySshd,
    /// `rclone serve sftp`.
    RcloneSftp,
    /// `rclone serve restic`.
    RcloneRest,
    /// The same, permitting no deletion except of locks.
    AppendOnlyRest,
    /// The S3 server of the Python package `moto`.
    Moto,
    /// The same over TLS, with a certificate that nobody else trusts.
    MotoOverTls,
    /// The same as [`Self::Moto`], checking signatures, and what each key may do.
    GuardedMoto,
    /// No server: `rclone` as the client, on a folder.
    RcloneClient,
    /// `rclone serve webdav`, with `rclone` as the client.
    RcloneWebdav,
}

impl ServerKind {
    /// One of each protocol and program, all permitting everything.
    pub const ALL: [Self; 5] = [
        Self::Sshd,
        Self::RcloneSftp,
        Self::RcloneRest,
        Self::Moto,
        Self::RcloneClient,
    ];
}

/// A running server, or a place that needs none.
pub struct StorageServer {
    kind: ServerKind,
    port: u16,
    /// For requests that go through something else.
    client_port: u16,
    root: PathBuf,
    process: Option<Child>,
    folder: TempDir,
    s3_key: (String, String),
}

/// The login of REST servers and of rclone's SFTP.
const USER: &str = "me";
const PASSWORD: &str = "rest secret";
const S3_KEY_ID: &str = "AKIAVRSTEST";
const S3_SECRET: &str = "s3 secret";

impl StorageServer {
    /// Starts one with an empty folder below the temporary folder.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(kind: ServerKind) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a server");
        let root = folder.path().join("root");
        Self::start_on(kind, folder, root)
    }

    /// Starts one that stores below `root`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start_at(kind: ServerKind, root: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a server");
        Self::start_on(kind, folder, root.to_path_buf())
    }

    fn start_on(kind: ServerKind, folder: TempDir, root: PathBuf) -> Self {
        std::fs::create_dir_all(&root).expect("the folder that is served");
        let mut server = Self {
            kind,
            port: 0,
            client_port: 0,
            root,
            process: None,
            folder,
            s3_key: (S3_KEY_ID.to_owned(), S3_SECRET.to_owned()),
        };
        server.prepare();
        server.restart();
        if kind == ServerKind::GuardedMoto {
            server.log_in_as("owner");
        }
        server
    }

    /// Ends the server, if it runs, and starts it again on the same port.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        self.stop();
        // Somebody else may take a free port before the server does.
        for _ in 0..5 {
            if self.port == 0 {
                self.port = free_port();
                self.client_port = self.port;
            }
            let Some(mut command) = self.command() else {
                return;
            };
            let log = self.folder.path().join("log");
            let output = std::fs::File::create(&log).expect("a log");
            command
                .stdin(Stdio::null())
                .stdout(output.try_clone().expect("a log"))
                .stderr(output);
            let process = command.spawn().unwrap_or_else(|error| {
                panic!("cannot start {command:?}: {error}; run scripts/setup-tests")
            });
            self.process = Some(process);
            if self.comes_up() {
                return;
            }
            let log = std::fs::read_to_string(log).unwrap_or_default();
            assert!(
                log.contains("in use"),
                "{:?} does not come up: {log}",
                self.kind
            );
            self.stop();
            self.port = 0;
        }
        panic!("no port for {:?}", self.kind);
    }

    /// Ends the server.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn comes_up(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.is_prepared() && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return true;
            }
            let process = self.process.as_mut().expect("a process");
            if process.try_wait().expect("a process").is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Whether what the server itself writes before it listens is there.
    fn is_prepared(&self) -> bool {
        self.kind != ServerKind::GuardedMoto || self.folder.path().join("keys").exists()
    }

    fn prepare(&self) {
        match self.kind {
            ServerKind::Sshd | ServerKind::ReadOnlySshd | ServerKind::RcloneSftp => {
                sshd::make_keys(self.folder.path());
            }
            ServerKind::MotoOverTls => make_certificate(self.folder.path()),
            _ => {}
        }
    }

    fn command(&self) -> Option<Command> {
        let (folder, address) = (self.folder.path(), format!("127.0.0.1:{}", self.port));
        let command = match self.kind {
            ServerKind::RcloneClient => return None,
            ServerKind::Sshd => sshd::command(folder, self.port, false),
            ServerKind::ReadOnlySshd => sshd::command(folder, self.port, true),
            ServerKind::RcloneSftp => {
                let mut command = rclone(&["serve", "sftp", "--addr", &address]);
                command
                    .arg("--key")
                    .arg(folder.join("host_key"))
                    .arg("--authorized-keys")
                    .arg(folder.join("user_key.pub"))
                    // Without a cache it takes writes in order only.
                    .args(["--vfs-cache-mode", "writes", "--vfs-write-back", "0"])
                    .arg("--cache-dir")
                    .arg(folder.join("cache"))
                    .arg(&self.root);
                command
            }
            ServerKind::RcloneRest | ServerKind::AppendOnlyRest => {
                let mut command = rclone(&["serve", "restic", "--addr", &address]);
                command
                    .env("RCLONE_USER", USER)
                    .env("RCLONE_PASS", PASSWORD);
                if self.kind == ServerKind::AppendOnlyRest {
                    command.arg("--append-only");
                }
                command.arg(&self.root);
                command
            }
            ServerKind::RcloneWebdav => {
                let mut command = rclone(&["serve", "webdav", "--addr", &address]);
                command.arg(&self.root);
                command
            }
            ServerKind::GuardedMoto => {
                let mut command = Command::new(moto_program().with_file_name("python3"));
                command
                    .arg("-c")
                    .arg(include_str!("servers/guarded_moto.py"))
                    .arg(self.port.to_string())
                    .arg(folder.join("keys"));
                command
            }
            ServerKind::Moto | ServerKind::MotoOverTls => {
                let mut command = Command::new(moto_program());
                command.args(["-H", "127.0.0.1", "-p", &self.port.to_string()]);
                if self.kind == ServerKind::MotoOverTls {
                    command.arg("-c").arg(self.certificate());
                    command.arg("-k").arg(folder.join("certificate_key"));
                }
                command
            }
        };
        Some(command)
    }

    /// Sends the requests of clients to another port from now on.
    pub fn reach_through(&mut self, proxy: &Proxy) {
        self.client_port = proxy.port();
    }

    /// Where the server listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The folder that is served; nothing of S3 is in it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The certificate of a server over TLS.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// The location of a repository, for vrs and restic alike, without a secret.
    #[must_use]
    pub fn location(&self, name: &str) -> String {
        let (port, root) = (self.client_port, self.root.display());
        match self.kind {
            ServerKind::Sshd | ServerKind::ReadOnlySshd => {
                format!("sftp://{}@127.0.0.1:{port}/{root}/{name}", sshd::user())
            }
            ServerKind::RcloneSftp => format!("sftp://{USER}@127.0.0.1:{port}//{name}"),
            ServerKind::RcloneRest | ServerKind::AppendOnlyRest => {
                format!("rest:http://127.0.0.1:{port}/{name}/")
            }
            ServerKind::Moto | ServerKind::GuardedMoto => {
                format!("s3:http://127.0.0.1:{port}/vrs-bucket/{name}")
            }
            ServerKind::MotoOverTls => format!("s3:https://localhost:{port}/vrs-bucket/{name}"),
            ServerKind::RcloneClient => format!("rclone::local:{root}/{name}"),
            ServerKind::RcloneWebdav => {
                format!("rclone::webdav,url='http://127.0.0.1:{port}':{name}")
            }
        }
    }

    /// The location of a borg repository, of `sshd` only.
    #[must_use]
    pub fn borg_location(&self, name: &str) -> String {
        let (port, root) = (self.client_port, self.root.display());
        format!("borg:ssh://{}@127.0.0.1:{port}{root}/{name}", sshd::user())
    }

    /// The folder below which the server mounts archives, once it has mounted one.
    ///
    /// # Panics
    /// Before that.
    #[must_use]
    pub fn borg_mount_base(&self) -> PathBuf {
        let is_base = |path: &PathBuf| path.to_string_lossy().contains("/vrs-borg-");
        let mut entries = entries(self.folder.path());
        entries.retain(is_base);
        entries.pop().expect("no archive was ever mounted")
    }

    /// The folders in which archives are mounted now.
    #[must_use]
    pub fn borg_mounts(&self) -> Vec<PathBuf> {
        entries(&self.borg_mount_base())
    }

    /// Whatever a client of `sshd` wants to run, this is run instead.
    ///
    /// # Panics
    /// When the key's file cannot be written.
    pub fn permit_only(&self, command: &str) {
        let file = self.folder.path().join("user_key.pub");
        let key = std::fs::read_to_string(&file).expect("a key");
        let restricted = format!("command=\"{command}\",restrict {key}");
        // Not in place: the client reads it, too.
        std::fs::write(file.with_extension("restricted"), restricted).expect("a key");
        std::fs::rename(file.with_extension("restricted"), file).expect("a key");
    }

    /// How `ssh` is called.
    #[must_use]
    pub fn ssh(&self) -> Vec<String> {
        let config = self.folder.path().join("ssh_config");
        ["ssh", "-F", config.to_str().expect("a path in Unicode")]
            .map(str::to_owned)
            .to_vec()
    }

    /// User and password of REST servers.
    #[must_use]
    pub const fn rest_login(&self) -> (&'static str, &'static str) {
        (USER, PASSWORD)
    }

    /// Id and key of S3 servers.
    #[must_use]
    pub fn s3_key(&self) -> (&str, &str) {
        (&self.s3_key.0, &self.s3_key.1)
    }

    /// Uses another key of a guarded server from now on: that of the `owner`, who may do everything, or of
    /// who is `adding` (and removes locks), `adding-only` or `reading`.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn log_in_as(&mut self, user: &str) {
        let keys = std::fs::read_to_string(self.folder.path().join("keys")).expect("keys");
        let mut users = keys.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let found = users.find(|words| words.first() == Some(&user));
        let words = found.unwrap_or_else(|| panic!("no user {user}: {keys}"));
        self.s3_key = (words[1].to_owned(), words[2].to_owned());
    }

    /// What `vrs` and `restic` need in their environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("VRS_SSH_COMMAND", self.ssh().join(" ")),
            ("RESTIC_REST_USERNAME", USER.to_owned()),
            ("RESTIC_REST_PASSWORD", PASSWORD.to_owned()),
            ("AWS_ACCESS_KEY_ID", self.s3_key.0.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.s3_key.1.clone()),
            ("RCLONE_CONFIG", "/dev/null".to_owned()),
        ]
    }

    /// Stock restic on a repository. Its password is still to be given.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn restic(&self, name: &str) -> Command {
        let mut command = Command::new("restic");
        let mut location = self.location(name);
        if let Some(rest) = location.strip_prefix("rest:http://") {
            // Older ones take no login from the environment.
            location = format!("rest:http://{USER}:{}@{rest}", PASSWORD.replace(' ', "%20"));
        }
        command.args(["--no-cache", "-r", &location]);
        if location.starts_with("sftp:") {
            let (ssh, port) = (self.ssh().join(" "), self.client_port);
            let user = if self.kind == ServerKind::RcloneSftp {
                USER.to_owned()
            } else {
                sshd::user()
            };
            let option = format!("sftp.command={ssh} -p {port} -l {user} 127.0.0.1 -s sftp");
            command.args(["-o", &option]);
        }
        command
            .envs(self.environment())
            .env("HOME", self.folder.path());
        command
    }
}

impl Drop for StorageServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// A port that nobody listens on now. It is none of those that the system gives to outgoing connections,
/// and neither another thread nor, as far as their process ids go, another test is handed the same one.
fn free_port() -> u16 {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        let place = std::process::id().wrapping_mul(97).wrapping_add(count) % 20_000;
        let port = u16::try_from(10_000 + place).expect("a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn rclone(arguments: &[&str]) -> Command {
    let mut command = Command::new("rclone");
    command.args(arguments).env("RCLONE_CONFIG", "/dev/null");
    command
}

/// Where scripts/setup-tests puts it.
fn moto_program() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = top.join("target/moto/bin/moto_server");
    assert!(
        program.exists(),
        "{} is not there; run scripts/setup-tests",
        program.display()
    );
    program
}

fn make_certificate(folder: &Path) {
    let mut command = Command::new("openssl");
    command
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(folder.join("certificate_key"))
        .arg("-out")
        .arg(folder.join("certificate.pem"));
    run(&mut command);
}

fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot start {command:?}: {error}; run scripts/setup-tests")
        });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}
