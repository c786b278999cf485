//! A command that is run and measured.

use std::cmp::Ordering;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::page_cache::flush;
use crate::platform::{self, Usage, wait};

pub(crate) const MIB: f64 = 1_048_576.0;

/// What a command cost and said.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) wall_time: Duration,
    pub(crate) usage: Usage,
    pub(crate) stdout: String,
}

impl Measured {
    /// With the time until all that was written is on the disk: some programs see to that themselves.
    pub(crate) fn flushed(mut self) -> Self {
        let begun = Instant::now();
        flush();
        self.wall_time += begun.elapsed();
        self
    }

    pub(crate) const fn wall_seconds(&self) -> f64 {
        self.wall_time.as_secs_f64()
    }

    /// NaN where the system does not tell.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let processor_time = self.usage.processor_time;
        processor_time.map_or(f64::NAN, |time| time.as_secs_f64())
    }

    /// Peak resident size.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let peak_bytes = self.usage.peak_bytes;
        peak_bytes.expect("a system that measures peak resident size")
    }
}

/// The middle one in some order; of an even number the upper one of the two.
pub(crate) fn median_by<T: Clone>(all: &[T], order: impl FnMut(&T, &T) -> Ordering) -> T {
    let mut all = all.to_vec();
    all.sort_by(order);
    all[all.len() / 2].clone()
}

/// Runs a command that must succeed.
pub(crate) fn measure(command: &mut Command) -> Measured {
    platform::forget_peak();
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("a program that can be started");
    let mut stdout = String::new();
    let mut pipe = child.stdout.take().expect("its output");
    pipe.read_to_string(&mut stdout).expect("its output");
    let (status, usage) = wait(&mut child).expect("its end");
    assert!(status.success(), "{command:?}: {status}\n{stdout}");
    Measured {
        wall_time: begun.elapsed(),
        usage,
        stdout,
    }
}
