//! What differs between operating systems: ending a command, and where VirtualBox is installed.
//!
//! Guarantees: a command is started so that a Ctrl-C in the terminal does not reach it; vrs decides.
//! Not guaranteed on other systems than Unix: that a command can be asked to stop; it is then only
//! ended the hard way, which VirtualBox survives but may complete the operation.

use std::process::{Child, Command};

/// File name of the program.
pub(crate) const PROGRAM: &str = if cfg!(windows) {
    "VBoxManage.exe"
} else {
    "VBoxManage"
};

/// Where installers put it.
pub(crate) const USUAL_FOLDERS: &[&str] = if cfg!(windows) {
    &["C:\\Program Files\\Oracle\\VirtualBox"]
} else if cfg!(target_os = "macos") {
    &[
        "/Applications/VirtualBox.app/Contents/MacOS",
        "/usr/local/bin",
    ]
} else {
    &[
        "/usr/bin",
        "/usr/local/bin",
        "/usr/lib/virtualbox",
        "/opt/VirtualBox",
    ]
};

/// Puts the command into a process group of its own.
pub(crate) fn separate(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(windows)]
    {
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        std::os::windows::process::CommandExt::creation_flags(command, CREATE_NEW_PROCESS_GROUP);
    }
}

/// Asks a command to stop; VirtualBox then cancels the operation and cleans up.
pub(crate) fn interrupt(child: &mut Child) {
    #[cfg(unix)]
    signal(child, rustix::process::Signal::INT);
    #[cfg(not(unix))]
    kill(child);
}

/// Ends a command and what it started in its group.
pub(crate) fn kill(child: &mut Child) {
    #[cfg(unix)]
    signal(child, rustix::process::Signal::KILL);
    // It may have ended just now, which is what is wanted.
    let _ = child.kill();
}

#[cfg(unix)]
fn signal(child: &Child, signal: rustix::process::Signal) {
    let group = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // The group may have ended just now, which is what is wanted.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// The signal that ended a command.
pub(crate) fn signal_of(status: std::process::ExitStatus) -> Option<i32> {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    {
        let _ = status;
        None
    }
}
