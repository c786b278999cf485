//! OpenSSH's server as an ordinary process, with keys made for it, and the `ssh` that trusts them.

use std::path::Path;
use std::process::Command;

use super::run;

/// The name under which the server's key is known, whatever port leads to it.
const ALIAS: &str = "vrs-test-server";

/// Makes keys of host and user, and what `ssh` needs to use them.
pub(super) fn make_keys(folder: &Path) {
    for name in ["host_key", "user_key"] {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", "vrs test", "-f"]);
        run(command.arg(folder.join(name)));
    }
    let public = std::fs::read_to_string(folder.join("host_key.pub")).expect("a key");
    std::fs::write(folder.join("known_hosts"), format!("{ALIAS} {public}")).expect("known hosts");
    let folder_text = folder.display();
    let config = format!(
        "Host *\n  HostKeyAlias {ALIAS}\n  IdentityFile {folder_text}/user_key\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {folder_text}/known_hosts\n  StrictHostKeyChecking yes\n"
    );
    std::fs::write(folder.join("ssh_config"), config).expect("a configuration of ssh");
}

/// The name of whoever runs the tests.
pub(super) fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(output.stdout)
        .expect("a name")
        .trim()
        .to_owned()
}

/// `sshd` in the foreground.
pub(super) fn command(folder: &Path, port: u16, is_read_only: bool) -> Command {
    // Wanted of root, and not there where no service was ever started.
    let _ = std::fs::create_dir_all("/run/sshd");
    let (folder_text, option) = (folder.display(), if is_read_only { " -R" } else { "" });
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder_text}/host_key\n\
         AuthorizedKeysFile {folder_text}/user_key.pub\nPidFile none\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
         MaxStartups 100\nSubsystem sftp internal-sftp{option}\n\
         SetEnv BORG_BASE_DIR={folder_text}/borg TMPDIR={folder_text}\n"
    );
    let path = folder.join("sshd_config");
    std::fs::write(&path, config).expect("a configuration of sshd");
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(path);
    command
}
