//! The program under test, with a repository, state and cache of the test's own.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use vrs_testkit::{REPOSITORY_PASSWORD, Rig, StorageServer, make_repository};

pub struct Vrs<'rig> {
    rig: &'rig Rig,
    folder: PathBuf,
    repository: PathBuf,
    /// What reaches a repository that is elsewhere.
    environment: Vec<(&'static str, String)>,
}

impl<'rig> Vrs<'rig> {
    /// With an empty repository.
    pub fn new(rig: &'rig Rig) -> Self {
        let vrs = Self::with_repository(rig, rig.folder().join("vrs/repository"));
        make_repository(&vrs.repository());
        vrs
    }

    /// With an empty borg repository.
    pub fn on_borg(rig: &'rig Rig) -> Self {
        let location = format!("borg:{}", rig.folder().join("vrs/borg").display());
        let vrs = Self::with_repository(rig, location.into());
        vrs.run(["init"]);
        vrs
    }

    /// On another computer, with the repository of this one.
    pub fn beside(rig: &'rig Rig, other: &Vrs<'_>) -> Self {
        Self::with_repository(rig, other.repository())
    }

    /// With a repository on a server, which is still to be made.
    pub fn elsewhere(rig: &'rig Rig, server: &StorageServer) -> Self {
        let mut vrs = Self::with_repository(rig, PathBuf::from(server.location("repository")));
        vrs.environment = server.environment();
        vrs
    }

    fn with_repository(rig: &'rig Rig, repository: PathBuf) -> Self {
        let folder = rig.folder().join("vrs");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("password"), REPOSITORY_PASSWORD).unwrap();
        Self {
            rig,
            folder,
            repository,
            environment: Vec::new(),
        }
    }

    pub fn repository(&self) -> PathBuf {
        self.repository.clone()
    }

    /// The folder of journals and of what repairs keep.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub fn password_file(&self) -> PathBuf {
        self.folder.join("password")
    }

    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vrs"));
        command
            .args(arguments)
            .current_dir(self.rig.folder())
            .stdin(Stdio::null());
        command
            .envs(self.rig.environment())
            .env("VRS_VBOXMANAGE", self.rig.vboxmanage());
        command
            .env("VRS_REPOSITORY", self.repository())
            .env("VRS_PASSWORD_FILE", self.password_file());
        command
            .env("VRS_STATE_DIR", self.state())
            .env("VRS_CACHE_DIR", self.state().join("cache"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(self.folders());
        command
    }

    /// Where programs keep what is theirs.
    pub fn folders(&self) -> [(&'static str, PathBuf); 3] {
        ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"]
            .map(|name| (name, self.folder.join(name)))
    }

    pub fn output<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Calls vrs, which must succeed without warnings, and returns what it prints.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let arguments: Vec<_> = arguments
            .into_iter()
            .map(|word| word.as_ref().to_owned())
            .collect();
        let output = self.output(&arguments);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "vrs {arguments:?}: {}\n{stdout}\n{stderr}",
            output.status
        );
        stdout
    }

    /// Calls vrs, which must fail with this exit code, and returns what it complains about.
    pub fn fail<S: AsRef<OsStr>>(
        &self,
        code: i32,
        arguments: impl IntoIterator<Item = S>,
    ) -> String {
        let arguments: Vec<_> = arguments
            .into_iter()
            .map(|word| word.as_ref().to_owned())
            .collect();
        let output = self.output(&arguments);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            output.status.code(),
            Some(code),
            "vrs {arguments:?}\n{stdout}\n{stderr}"
        );
        stderr
    }

    /// Nothing in the repository is damaged. What a killed vrs had sent may lie there unused.
    pub fn is_sound(&self, options: &[&str]) {
        let checked = self.output(["check"].iter().chain(options));
        let told = text(&checked.stdout);
        let is_ended = [Some(0), Some(3)].contains(&checked.status.code());
        assert!(
            is_ended && told.contains("no damage found"),
            "{}\n{told}\n{}",
            checked.status,
            text(&checked.stderr)
        );
    }

    pub fn take(&self, machine: &str, name: &str) {
        self.run(["take", machine, "--name", name]);
    }

    pub fn restore(&self, machine: &str, name: &str) {
        self.run(["restore", &format!("{machine}@{name}"), "--yes"]);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
