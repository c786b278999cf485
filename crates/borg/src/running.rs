//! A program that runs, while somebody reads what it says.
//!
//! Guarantees: its complaints never fill a pipe that nobody empties; one that is dropped is asked to
//! stop, and killed when it does not.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::answers::LogLine;
use crate::platform;

/// How long a program that was asked to stop gets. borg finishes a transaction meanwhile.
const TIME_TO_STOP: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(10);
/// Lists of a thousand files and more are far below.
const LONGEST_ANSWER_BYTES: u64 = 1 << 30;
/// The last lines of a program that complains without end are kept.
const MOST_COMPLAINTS: usize = 10_000;

/// See the module.
pub(crate) struct Running {
    child: Child,
    complaints: Option<JoinHandle<Vec<LogLine>>>,
    is_over: bool,
}

/// What a program that ended left.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) log: Vec<LogLine>,
}

impl Running {
    /// Starts it. Ctrl-C is for vrs, which stops it in good order.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        vrs_repository::local::keep_from_terminal(command);
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take();
        let complaints = std::thread::Builder::new()
            .name("complaints".to_owned())
            .spawn(move || stderr.map(read_log).unwrap_or_default());
        let mut running = Self {
            child,
            complaints: None,
            is_over: false,
        };
        running.complaints = Some(complaints?);
        Ok(running)
    }

    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// All of its stdout, and how it ended. None: `is_interrupted` said so, and it was stopped.
    pub(crate) fn output(
        mut self,
        is_interrupted: &dyn Fn() -> bool,
    ) -> io::Result<Option<(Vec<u8>, Ended)>> {
        let stdout = self.stdout();
        let reader = std::thread::Builder::new()
            .name("answer".to_owned())
            .spawn(move || {
                let mut answer = Vec::new();
                let read =
                    stdout.map(|out| out.take(LONGEST_ANSWER_BYTES).read_to_end(&mut answer));
                read.transpose().map(|_| answer)
            })?;
        while self.child.try_wait()?.is_none() {
            if is_interrupted() {
                return Ok(None);
            }
            std::thread::sleep(TICK);
        }
        let answer = reader.join().unwrap_or_else(|_| Ok(Vec::new()))?;
        Ok(Some((answer, self.end()?)))
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> io::Result<Ended> {
        let status = self.child.wait()?;
        self.is_over = true;
        let log = self.complaints.take().map(JoinHandle::join);
        Ok(Ended {
            status,
            log: log.and_then(Result::ok).unwrap_or_default(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        drop(self.child.stdin.take());
        drop(self.child.stdout.take());
        platform::ask_to_stop(&self.child);
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > TIME_TO_STOP {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(TICK);
        }
    }
}

/// Lines that are no JSON come from `ssh` or the other end.
fn read_log(stderr: impl Read) -> Vec<LogLine> {
    let mut log = Vec::new();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let entry = serde_json::from_str(&text).unwrap_or_else(|_| LogLine {
            levelname: "ERROR".to_owned(),
            message: text,
            msgid: String::new(),
        });
        if log.len() < MOST_COMPLAINTS {
            log.push(entry);
        }
        line.clear();
    }
    log
}
