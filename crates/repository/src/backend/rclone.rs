//! Whatever `rclone` reaches, through `rclone serve restic`, a REST server of its own on this host.
//!
//! Its configuration and credentials are rclone's business. The server listens on the loopback
//! address, asks for a random login that only this process knows, and is ended with it; on Linux also when
//! this process is killed.

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
        let (server, heard) = listen(command)?;
        let address = address(&heard)?;
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
    platform::end_with_starter(&mut command);
    Ok(command)
}

/// Starts rclone; with it comes what it says, line by line, for as long as it runs. The thread that starts
/// it lives as long, because rclone ends with that thread.
fn listen(mut command: Command) -> Outcome<(Server, Receiver<String>)> {
    let (said, heard) = channel();
    let (hand_over, started) = channel();
    std::thread::spawn(move || {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _ = hand_over.send(Err(error));
                return;
            }
        };
        let stderr = child.stderr.take();
        if let Err(unwanted) = hand_over.send(Ok(child)) {
            drop(unwanted.0.map(Server));
            return;
        }
        let lines = stderr.map(|stderr| BufReader::new(stderr).lines());
        for line in lines.into_iter().flatten().map_while(Result::ok) {
            // Goes on reading, so that rclone need not wait.
            let _ = said.send(line);
        }
    });
    let cannot = |reason: String| {
        let text = format!("cannot start rclone: {reason}");
        Failure::new(FailureKind::NoProgram, text)
    };
    let started = started.recv().map_err(|error| cannot(error.to_string()))?;
    let child = started.map_err(|error| cannot(error.to_string()))?;
    Ok((Server(child), heard))
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
