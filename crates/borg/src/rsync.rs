//! Bringing local files into the state of mounted ones with `rsync --inplace`: only blocks that differ
//! travel and are written.
//!
//! `rsync` compares a checksum of each whole file after it has changed it, and repairs what does not
//! agree. It ends with vrs, however that ends, so that two of them never write to one file.

use std::io::Read;
use std::process::{ChildStdout, Stdio};

use vrs_progress::{Counter, Progress};
use vrs_repository::store::{RestoreFile, RestoreStats};
use vrs_repository::{Error, Result};

use crate::mount::Mount;
use crate::platform;
use crate::program::Borg;
use crate::repository::ArchivedFile;
use crate::running::Running;
use crate::target::{Mode, Target};

const PROGRAM: &str = "rsync";

/// The largest that it takes. Smaller ones cost more checksums than they save data.
const BLOCK_BYTES: &str = "131072";

/// See the module.
pub(crate) struct Rsync<'a> {
    borg: &'a Borg,
    mount: &'a Mount,
    shell: String,
}

impl<'a> Rsync<'a> {
    pub(crate) fn new(borg: &'a Borg, mount: &'a Mount) -> Result<Self> {
        let mut words: Vec<String> = borg.ssh().map(str::to_owned).collect();
        words.extend(["-o".to_owned(), "ServerAliveInterval=15".to_owned()]);
        if let Some(port) = mount.port() {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        Ok(Self {
            borg,
            mount,
            shell: shell_words::join(words),
        })
    }

    /// Restores files one after the other.
    pub(crate) fn restore(
        &self,
        files: &[(&RestoreFile, ArchivedFile)],
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        let mut stats = RestoreStats::default();
        for (file, stored) in files {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            // rsync writes to a file that is there, with the permissions that it has.
            let target = Target::open(file, stored, Mode::Write, progress)?;
            progress.step("write target");
            let moved = match self.run(file, stored, progress) {
                Ok(moved) => moved,
                Err(error) => {
                    // Why it was cut short is what the user has to know.
                    let _ = target.flush();
                    return Err(error);
                }
            };
            target.finish()?;
            let in_place = stored.size_bytes.saturating_sub(moved.literal_bytes);
            stats.files = stats.files.saturating_add(1);
            stats.total_bytes = stats.total_bytes.saturating_add(stored.size_bytes);
            stats.fetched_bytes = stats.fetched_bytes.saturating_add(moved.literal_bytes);
            stats.in_place_bytes = stats.in_place_bytes.saturating_add(in_place);
            progress.add(Counter::Fetched, moved.literal_bytes);
        }
        Ok(stats)
    }

    fn run(
        &self,
        file: &RestoreFile,
        stored: &ArchivedFile,
        progress: &dyn Progress,
    ) -> Result<Moved> {
        let mut command = self.borg.helper(PROGRAM);
        command
            .args(["--inplace", "--no-whole-file", "--ignore-times", "--sparse"])
            .args(["--block-size", BLOCK_BYTES, "--secluded-args"])
            .args([
                "--stats",
                "--info=progress2",
                "--no-human-readable",
                "--outbuf=L",
            ])
            .args(["--rsh", &self.shell])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(limit) = self.borg.access.download_kib_per_second {
            command.arg(format!("--bwlimit={limit}"));
        }
        command
            .arg(self.mount.file(stored.path.as_str()))
            .arg(&file.target);
        platform::end_with_parent(&mut command);
        let mut running = self.borg.start_program(PROGRAM, &mut command)?;
        let mut told = Told::default();
        if let Some(stdout) = running.stdout() {
            told.listen(stdout, progress, stored.size_bytes)?;
        }
        self.finish(running, &told)
    }

    fn finish(&self, running: Running, told: &Told) -> Result<Moved> {
        let failed = |reason: String| Error::Program {
            location: self.borg.place(),
            program: PROGRAM,
            operation: "fetch from",
            source: reason.into(),
        };
        let ended = running.end().map_err(|error| failed(error.to_string()))?;
        if !ended.status.success() {
            let lines = ended.log.iter().map(|line| line.message.as_str());
            let said: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
            return Err(failed(format!("{} ({})", said.join("; "), ended.status)));
        }
        told.moved()
            .ok_or_else(|| failed("its statistics are not understood".to_owned()))
    }
}

/// What rsync did.
struct Moved {
    /// Bytes that came over the line.
    literal_bytes: u64,
}

/// What rsync prints, and how far it has got.
#[derive(Default)]
struct Told {
    text: String,
    done_bytes: u64,
}

impl Told {
    /// Until rsync ends, or the user asks to stop.
    fn listen(
        &mut self,
        mut stdout: ChildStdout,
        progress: &dyn Progress,
        size_bytes: u64,
    ) -> Result<()> {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = stdout.read(&mut piece) {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let text = String::from_utf8_lossy(piece.get(..length).unwrap_or_default());
            self.text.push_str(&text);
            let latest = self.text.rsplit(['\r', '\n']).nth(1).unwrap_or_default();
            let done = latest
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok());
            self.advance(done.unwrap_or(0).min(size_bytes), progress);
            self.forget_progress();
        }
        self.advance(size_bytes, progress);
        Ok(())
    }

    fn advance(&mut self, done_bytes: u64, progress: &dyn Progress) {
        if done_bytes > self.done_bytes {
            progress.add(Counter::Scanned, done_bytes.saturating_sub(self.done_bytes));
            self.done_bytes = done_bytes;
        }
    }

    /// The lines of progress before the latest are of no more use.
    fn forget_progress(&mut self) {
        if let Some((before, _)) = self.text.rsplit_once('\r')
            && let Some(from) = before.rfind('\r')
        {
            self.text.drain(..from);
        }
    }

    fn moved(&self) -> Option<Moved> {
        let line = self
            .text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Literal data:"))?;
        let literal_bytes = line.split_whitespace().next()?.parse().ok()?;
        Some(Moved { literal_bytes })
    }
}
