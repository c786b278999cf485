//! What only one kind of system can tell or do: what a finished process has used, what is in the page
//! cache. Elsewhere it stays unknown, or undone.
#![allow(unsafe_code)]

use std::process::{Child, ExitStatus};
use std::time::Duration;

/// What a process has used, where known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) processor_time: Option<Duration>,
    /// Peak resident size.
    pub(crate) peak_bytes: Option<u64>,
}

/// Makes this process forget how large it once was: Linux counts that for each process that it starts.
pub(crate) fn forget_peak() {
    // proc(5), clear_refs. Elsewhere there is no such file, and no need.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Lets the page cache forget what it has of a file, as far as that is written out. Where there is no way
/// to tell it, it stays.
#[cfg(target_os = "linux")]
pub(crate) fn forget_content(file: &std::fs::File) {
    use std::os::fd::AsRawFd;
    // SAFETY: no memory is involved; the descriptor is open.
    let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(refused, 0, "posix_fadvise");
}

/// See that for Linux.
#[cfg(not(target_os = "linux"))]
pub(crate) fn forget_content(_: &std::fs::File) {}

/// Waits for the end of a process.
#[cfg(unix)]
pub(crate) fn wait(child: &mut Child) -> std::io::Result<(ExitStatus, Usage)> {
    use std::os::unix::process::ExitStatusExt;
    let id = libc::pid_t::try_from(child.id()).expect("a process id");
    let mut status = 0;
    // SAFETY: plain data, for which all zeros is a valid value.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right type; the process is our own child.
    if unsafe { libc::wait4(id, &raw mut status, 0, &raw mut used) } != id {
        return Err(std::io::Error::last_os_error());
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    // Kilobytes, except on macOS.
    let unit_bytes = if cfg!(target_os = "macos") { 1 } else { 1024 };
    let usage = Usage {
        processor_time: Some(time(used.ru_utime) + time(used.ru_stime)),
        peak_bytes: Some(used.ru_maxrss.unsigned_abs() * unit_bytes),
    };
    Ok((ExitStatus::from_raw(status), usage))
}

/// Waits for the end of a process.
#[cfg(not(unix))]
pub(crate) fn wait(child: &mut Child) -> std::io::Result<(ExitStatus, Usage)> {
    Ok((child.wait()?, Usage::default()))
}
