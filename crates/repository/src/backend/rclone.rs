//! Whatever `rclone` reaches, through `rclone serve restic`, a REST server of its own on this host.
//!
//! Its configuration and credentials are rclone's business. The server listens on the loopback
//! address, asks for a random login that only this process knows, and is ended with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use url::Url;

use super::storage::{Failure, FailureKind, Outcome};
use crate::access::Access;
use crate::location::RestPlace;
use crate::password::Password;
use crate::platform;

/// How long rclone may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running rclone; ends when this is dropped.
pub(super) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts rclone. With it comes where it serves.
    pub(super) fn start(remote: &str, access: &Access) -> Outcome<(Self, RestPlace)> {
        let [user, password] = [(); 2].map(|()| uuid::Uuid::new_v4().simple().to_string());
        let mut command = command(remote, access)?;
        command
            .env("RCLONE_USER", &user)
            .env("RCLONE_PASS", &password);
        let started = command.spawn().map_err(|error| {
            let text = format!("cannot start rclone: {error}");
            Failure::new(FailureKind::NoProgram, text)
        })?;
        let mut server = Self(started);
        let address = address(&listen(&mut server))?;
        let mut url =
            Url::parse(&address).map_err(|error| Failure::new(FailureKind::Other, error))?;
        // Cannot fail for a URL with a host.
        let _ = url.set_username(&user);
        let place = RestPlace {
            url,
            password: Some(Password::new(password)),
        };
        Ok((server, place))
    }
}

fn command(remote: &str, access: &Access) -> Outcome<Command> {
    let no_program = || Failure::new(FailureKind::NoProgram, "no program rclone is given");
    let (program, arguments) = access.rclone.split_first().ok_or_else(no_program)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        // Deleting means deleting, as restic has it.
        .args([
            "serve",
            "restic",
            "--addr",
            "127.0.0.1:0",
            "--b2-hard-delete",
            remote,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    platform::keep_from_terminal(&mut command);
    Ok(command)
}

/// What rclone says, line by line, for as long as it runs.
fn listen(server: &mut Server) -> Receiver<String> {
    let (said, heard) = channel();
    if let Some(stderr) = server.0.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Goes on reading, so that rclone need not wait.
                let _ = said.send(line);
            }
        });
    }
    heard
}

/// The address that rclone says it listens to.
fn address(heard: &Receiver<String>) -> Outcome<String> {
    let mut complaints = Vec::new();
    while let Ok(line) = heard.recv_timeout(PATIENCE) {
        let start = line.find("http://127.0.0.1:");
        if let Some(url) = start.and_then(|start| line.get(start..)) {
            let end = url.find([']', ' ', '"']).unwrap_or(url.len());
            return Ok(url.get(..end).unwrap_or(url).to_owned());
        }
        complaints.push(line);
    }
    let text = format!("rclone did not start: {}", complaints.join("; "));
    Err(Failure::new(FailureKind::Other, text))
}
