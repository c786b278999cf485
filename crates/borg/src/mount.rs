//! An archive mounted on the server of its repository, for as long as a connection lasts.
//!
//! Guarantees: the mount ends with the connection, so also when vrs is killed or the line is cut; one
//! that is left all the same, because the server crashed, is removed by the next mount. The
//! password travels through the connection to the server's `borg` and is in no argument and
//! no variable there. A server that cannot mount (no shell, no FUSE, no borg or rsync) is no
//! error: the caller does without.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use vrs_progress::Progress;
use vrs_repository::Result;

use crate::location::Server;
use crate::program::Borg;
use crate::running::Running;

/// Runs in the server's `sh` with the repository and the archive as arguments. The password comes as the
/// first line; the end of the input ends the mount. Folders are named after the process that
/// mounts there, so the ones of dead processes are left over.
const SCRIPT: &str = r#"umask 077
command -v rsync >/dev/null || { echo "no rsync" >&2; exit 3; }
base="${TMPDIR:-/tmp}/vrs-borg-$(id -u)"
mkdir -p "$base" && [ -O "$base" ] || exit 3
let_go() { borg umount "$1" >/dev/null 2>&1 || fusermount3 -uz "$1" >/dev/null 2>&1 || fusermount -uz "$1" >/dev/null 2>&1 || umount -l "$1" >/dev/null 2>&1; rmdir "$1"; }
for old in "$base"/*; do [ -d "$old" ] && ! kill -0 "${old##*/}" 2>/dev/null && let_go "$old"; done
here="$base/$$"
mkdir "$here" || exit 3
trap 'let_go "$here"' EXIT
trap 'exit 1' HUP INT TERM PIPE
IFS= read -r password
printf %s "$password" | BORG_PASSPHRASE_FD=0 borg --lock-wait 60 mount "$1::$2" "$here" >&2 || exit 3
password=
printf 'mounted %s\n' "$here"
cat >/dev/null"#;

/// See the module.
pub(crate) struct Mount {
    server: Server,
    /// On the server.
    folder: String,
    running: Option<Running>,
    /// Its end ends the mount.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Mount {
    /// None: the repository is on this host, or its server cannot mount, which is told.
    pub(crate) fn on_server(
        borg: &Borg,
        archive: &str,
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        let Some(server) = borg.location.server() else {
            return Ok(None);
        };
        let without = |reason: &str| {
            progress.note(&format!(
                "the server cannot mount the archive ({reason}), so whole files travel; \
                 only blocks that differ are written"
            ));
            Ok(None)
        };
        if borg.password.expose().contains('\n') {
            return without("the password has several lines");
        }
        progress.step("mount archive");
        let mut command = ssh(borg, server)?;
        command.arg(remote_command(server, archive));
        let mut running = borg.start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (Some(mut stdin), Some(stdout)) = (running.stdin(), running.stdout()) else {
            return without("no connection");
        };
        let mut stdout = BufReader::new(stdout);
        let mut answer = String::new();
        // An end that does not listen says why on its stderr.
        let _ = writeln!(stdin, "{}", borg.password.expose());
        let _ = stdout.read_line(&mut answer);
        match answer.trim_end().strip_prefix("mounted ") {
            Some(folder) => Ok(Some(Self {
                server: server.clone(),
                folder: folder.to_owned(),
                running: Some(running),
                stdin: Some(stdin),
                stdout,
            })),
            None => {
                drop((stdin, stdout));
                let ended = running.end();
                let said = ended.map(|ended| borg.error_of("mount", &ended));
                let reason = said.map_or_else(|error| error.to_string(), |error| cause(&error));
                without(&reason)
            }
        }
    }

    /// A file of the archive, as `rsync` takes it.
    pub(crate) fn file(&self, path: &str) -> String {
        let login = self.server.user.as_ref().map(|user| format!("{user}@"));
        let (login, host) = (login.unwrap_or_default(), &self.server.host);
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        format!("{login}{host}:{}/{path}", self.folder)
    }

    pub(crate) const fn port(&self) -> Option<u16> {
        self.server.port
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // The server closes its end when the mount is gone.
        let mut rest = String::new();
        while matches!(self.stdout.read_line(&mut rest), Ok(1..)) {}
        if let Some(running) = self.running.take() {
            let _ = running.end();
        }
    }
}

fn cause(error: &vrs_repository::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

/// `ssh` to the server, without the command to run there. It notices when the line is dead.
fn ssh(borg: &Borg, server: &Server) -> Result<Command> {
    let mut words = borg.ssh();
    let mut command = borg.helper(words.next().unwrap_or("ssh"));
    command.args(words).args(["-o", "ServerAliveInterval=15"]);
    if let Some(user) = &server.user {
        command.args(["-l", user]);
    }
    if let Some(port) = server.port {
        command.args(["-p", &port.to_string()]);
    }
    command.arg(&server.host);
    Ok(command)
}

fn remote_command(server: &Server, archive: &str) -> String {
    let braces = |text: &str| text.replace('{', "{{").replace('}', "}}");
    // A relative path could look like a host.
    let path = if server.path.starts_with('/') {
        server.path.clone()
    } else {
        format!("./{}", server.path)
    };
    shell_words::join(["sh", "-c", SCRIPT, "vrs", &braces(&path), &braces(archive)])
}
