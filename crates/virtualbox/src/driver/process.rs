//! Running a command to its end, or ending it.
//!
//! Guarantees: neither a silent command nor one that floods its output nor one whose children keep
//! its pipes open keeps us for ever. Time counts from the last sign of life, so an operation that
//! shows progress may take as long as it needs; so may one that [`Watch::is_working`] vouches for.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::failure::percent_reached;
use crate::error::{Error, Result};
use crate::platform;

/// Lists of thousands of images are a few megabytes.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// How long a command that was asked to stop gets to clean up. VirtualBox needs 0.3 s to cancel a
/// VirtualBox snapshot (measured on 7.2.22).
const TIME_TO_STOP: Duration = Duration::from_secs(5);

/// How long a command that somebody wants stopped gets to clean up. Killing it would not cancel what
/// VirtualBox is doing for it.
const TIME_TO_CANCEL: Duration = Duration::from_secs(30);

/// How long the last output of a command that has ended may be on its way to us. A daemon that it
/// started may keep the pipes open much longer.
const TIME_TO_DRAIN: Duration = Duration::from_secs(2);

/// How often a silent command is looked at.
const TICK: Duration = Duration::from_millis(50);

/// A command, ready to be run or shown.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) secret_variables: Vec<OsString>,
}

/// What is decided and told while a command runs.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    /// How long the command may be silent.
    pub(super) patience: Duration,
    /// Whether it is to stop; asked every [`TICK`].
    pub(super) stop: &'a dyn Fn() -> bool,
    /// Whether its work goes on although it was silent for all that time.
    pub(super) is_working: &'a dyn Fn() -> bool,
    /// Told each percentage that it reaches.
    pub(super) percent: &'a dyn Fn(u8),
}

impl Watch<'_> {
    /// Waits, and nothing else.
    pub(super) const fn patient(patience: Duration) -> Self {
        Self {
            patience,
            stop: &|| false,
            is_working: &|| false,
            percent: &|_| {},
        }
    }
}

/// What a command that ended by itself left behind.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// Whether it was asked to stop before.
    pub(super) was_stopped: bool,
}

impl Invocation {
    /// Runs the command until it ends, or until `watch` loses patience with it.
    pub(super) fn run(&self, watch: &Watch<'_>) -> Result<Ended> {
        let spawn_error = |source| Error::Spawn {
            command: self.to_string(),
            source,
        };
        let mut child = self.command().spawn().map_err(spawn_error)?;
        // Bounded, so that a flood waits in the pipe and not in memory.
        let (sender, receiver) = sync_channel(4);
        forward(child.stdout.take(), Stream::Out, &sender).map_err(spawn_error)?;
        forward(child.stderr.take(), Stream::Err, &sender).map_err(spawn_error)?;
        drop(sender);
        let mut output = Output::default();
        let end = output.collect(&mut child, &receiver, watch);
        drop(receiver);
        match end {
            End::Itself(status) => return Ok(output.ended(status)),
            End::Silence | End::Flood => stop(&mut child),
        }
        let command = self.to_string();
        if matches!(end, End::Flood) {
            return Err(Error::Output {
                command,
                problem: format!("it is longer than {} MiB", MAX_OUTPUT_BYTES >> 20),
            });
        }
        let percent = percent_reached(&String::from_utf8_lossy(&output.err));
        Err(Error::Timeout {
            command,
            waited: output.patience(watch),
            percent,
        })
    }

    /// Starts the command; nobody hears what it says.
    pub(super) fn spawn_silent(&self) -> std::io::Result<Child> {
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Without UTF-8 VBoxManage refuses arguments that are not ASCII; other languages would change
        // the texts that are looked for.
        command.env("LC_ALL", "C.UTF-8").env_remove("LANGUAGE");
        for variable in &self.secret_variables {
            command.env_remove(variable);
        }
        platform::separate(&mut command);
        command
    }
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Out,
    Err,
}

type Piece = (Stream, Vec<u8>);

/// Reads a pipe in a thread, which ends with the pipe.
fn forward(
    pipe: Option<impl Read + Send + 'static>,
    stream: Stream,
    sender: &SyncSender<Piece>,
) -> std::io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let sender = sender.clone();
    let read = move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            let piece = buffer.get(..length).unwrap_or_default().to_vec();
            if sender.send((stream, piece)).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("VBoxManage output".to_owned())
        .spawn(read)
        .map(|_| ())
}

/// Why no more output is gathered.
enum End {
    Itself(ExitStatus),
    Silence,
    Flood,
}

#[derive(Debug, Default)]
struct Output {
    out: Vec<u8>,
    err: Vec<u8>,
    percent: Option<u8>,
    was_stopped: bool,
}

impl Output {
    /// Gathers output until the command has ended, was silent for too long, or says too much.
    fn collect(&mut self, child: &mut Child, pieces: &Receiver<Piece>, watch: &Watch<'_>) -> End {
        let mut heard = Instant::now();
        let (mut ended, mut idle) = (None, None::<Instant>);
        loop {
            if !self.was_stopped && ended.is_none() && (watch.stop)() {
                self.was_stopped = true;
                heard = Instant::now();
                platform::interrupt(child);
            }
            let is_complete = match pieces.recv_timeout(TICK) {
                Ok(piece) => {
                    heard = Instant::now();
                    idle = None;
                    self.add(piece);
                    self.tell_percent(watch);
                    if self.out.len().saturating_add(self.err.len()) > MAX_OUTPUT_BYTES {
                        return End::Flood;
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(Duration::from_millis(2));
                    true
                }
                Err(RecvTimeoutError::Timeout) => false,
            };
            if ended.is_none() {
                ended = child.try_wait().ok().flatten();
                // Its last words may come only now.
                heard = if ended.is_some() {
                    Instant::now()
                } else {
                    heard
                };
            }
            match ended {
                Some(status) if is_complete || heard.elapsed() > TIME_TO_DRAIN => {
                    return End::Itself(status);
                }
                None if heard.elapsed() > self.patience(watch) => match idle {
                    None if !self.was_stopped && (watch.is_working)() => heard = Instant::now(),
                    // Its work may have come to an end just now.
                    None => idle = Some(Instant::now()),
                    Some(since) if since.elapsed() > TIME_TO_DRAIN => return End::Silence,
                    Some(_) => {}
                },
                _ => {}
            }
        }
    }

    fn patience(&self, watch: &Watch<'_>) -> Duration {
        if self.was_stopped {
            TIME_TO_CANCEL.min(watch.patience)
        } else {
            watch.patience
        }
    }

    fn tell_percent(&mut self, watch: &Watch<'_>) {
        let percent = percent_reached(&String::from_utf8_lossy(&self.err));
        if let Some(reached) = percent.filter(|_| percent > self.percent) {
            self.percent = percent;
            (watch.percent)(reached);
        }
    }

    fn add(&mut self, (stream, piece): Piece) {
        match stream {
            Stream::Out => self.out.extend_from_slice(&piece),
            Stream::Err => self.err.extend_from_slice(&piece),
        }
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        Ended {
            status,
            stdout: text(&self.out),
            stderr: text(&self.err),
            was_stopped: self.was_stopped,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if cfg!(windows) {
        text.replace("\r\n", "\n")
    } else {
        text.into_owned()
    }
}

/// SIGINT first: a killed `VBoxManage` does not cancel what VirtualBox is doing for it.
fn stop(child: &mut Child) {
    platform::interrupt(child);
    if !ends_within(child, TIME_TO_STOP) {
        platform::kill(child);
        ends_within(child, TIME_TO_STOP);
    }
}

fn ends_within(child: &mut Child, time: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < time {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

impl fmt::Display for Invocation {
    /// As one would type it into a shell, with the program's name alone.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&quoted(
            &self
                .program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy(),
        ))?;
        for argument in &self.arguments {
            write!(formatter, " {}", quoted(&argument.to_string_lossy()))?;
        }
        Ok(())
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:=@%+,".contains(c);
    if word.chars().any(char::is_control) {
        return format!("$'{}'", word.escape_debug());
    }
    if word.chars().all(is_plain) && !word.is_empty() {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn shell(script: &str) -> Invocation {
        Invocation {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            secret_variables: Vec::new(),
        }
    }

    #[test]
    fn gives_output_and_status() {
        let ended = shell("echo out; echo err >&2; printf '%s' \"$LC_ALL\"; exit 3")
            .run(&Watch::patient(TIME_TO_STOP))
            .unwrap();
        assert_eq!(
            (
                ended.status.code(),
                ended.stdout.as_str(),
                ended.stderr.as_str()
            ),
            (Some(3), "out\nC.UTF-8", "err\n")
        );
    }

    #[test]
    fn a_silent_command_is_asked_to_stop() {
        let start = Instant::now();
        let marker = tempfile::NamedTempFile::new().unwrap();
        let path = marker.path().display();
        let script = format!(
            "trap 'echo stopped > {path}; exit 1' INT; echo 0%...40%... >&2; while :; do :; done"
        );
        let error = shell(&script)
            .run(&Watch::patient(Duration::from_millis(200)))
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::Timeout {
                    percent: Some(40),
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(std::fs::read_to_string(marker.path()).unwrap(), "stopped\n");
        assert!(start.elapsed() < TIME_TO_STOP);
    }

    #[test]
    fn a_command_that_shows_progress_is_left_alone() {
        let script = "for i in 1 2 3 4 5 6; do printf '%s0%%...' $i >&2; sleep 0.2; done";
        let ended = shell(script)
            .run(&Watch::patient(Duration::from_millis(600)))
            .unwrap();
        assert_eq!(percent_reached(&ended.stderr), Some(60));
    }

    #[test]
    fn a_daemon_that_keeps_the_pipes_does_not_keep_us() {
        let start = Instant::now();
        let ended = shell("sleep 30 & echo $!")
            .run(&Watch::patient(Duration::from_secs(10)))
            .unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
        let daemon: i32 = ended.stdout.trim().parse().unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(daemon).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
    }

    #[test]
    fn last_words_are_heard() {
        let ended = shell("(sleep 0.3; echo late) & exit 0")
            .run(&Watch::patient(TIME_TO_STOP))
            .unwrap();
        assert_eq!(ended.stdout, "late\n");
    }

    #[test]
    fn endless_output_is_an_error() {
        let error = shell("yes")
            .run(&Watch::patient(Duration::from_secs(20)))
            .unwrap_err();
        assert!(
            matches!(error, Error::Timeout { .. } | Error::Output { .. }),
            "{error:?}"
        );
    }

    #[rstest]
    #[case("plain-1.2/x", "plain-1.2/x")]
    #[case("two words", "'two words'")]
    #[case("it's", "'it'\\''s'")]
    #[case("", "''")]
    #[case("{id}", "'{id}'")]
    #[case("a\nb", "$'a\\nb'")]
    fn words_are_shown_as_typed(#[case] word: &str, #[case] shown: &str) {
        assert_eq!(quoted(word), shown);
    }
}
