//! What a child process gets that the standard library cannot give it: a pipe with the password, and
//! an end with its parent.
#![allow(unsafe_code)]

use std::io;
use std::process::{Child, Command};

use vrs_repository::Password;

/// A password fits into the buffer of a pipe.
#[cfg(unix)]
const LONGEST_PASSWORD_BYTES: usize = 4096;

/// Lets the command read the password from a pipe whose number is in `variable`. No other process gets the
/// pipe.
#[cfg(unix)]
pub(crate) fn hand_over(
    command: &mut Command,
    variable: &str,
    password: &Password,
) -> io::Result<()> {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;

    let password = password.expose().as_bytes();
    if password.len() > LONGEST_PASSWORD_BYTES {
        return Err(io::Error::other("the password is too long"));
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(password)?;
    command.env(variable, reader.as_raw_fd().to_string());
    let keep = move || {
        Ok(rustix::io::fcntl_setfd(
            &reader,
            rustix::io::FdFlags::empty(),
        )?)
    };
    // SAFETY: one system call between fork and exec, which takes no lock and no memory.
    unsafe { command.pre_exec(keep) };
    Ok(())
}

/// borg runs on Unix only.
#[cfg(not(unix))]
pub(crate) fn hand_over(_: &mut Command, _: &str, _: &Password) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "borg cannot be given a password on this system",
    ))
}

/// Ends the command when the thread that started it ends, however that happens: it writes to a file
/// that the next run of vrs writes to, too.
#[cfg(target_os = "linux")]
pub(crate) fn end_with_parent(command: &mut Command) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;

    let die = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: one system call between fork and exec, which takes no lock and no memory.
    unsafe { command.pre_exec(die) };
}

/// Other systems have no such thing.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end_with_parent(_: &mut Command) {}

/// Asks a program to stop. borg gives its locks back then.
#[cfg(unix)]
pub(crate) fn ask_to_stop(child: &Child) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

#[cfg(not(unix))]
pub(crate) fn ask_to_stop(_: &Child) {}
