//! What each verb costs, beside restic where it is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use vrs_testkit::SampleDisk;

use crate::measured::{Measured, measure};
use crate::scene::{Scene, Step};

/// Measures all verbs and returns a table.
#[must_use]
pub fn table(vrs: &Path, mebibytes: u64) -> String {
    let mut scene = Scene::new(vrs, SampleDisk::dynamic((2 * mebibytes) << 20), mebibytes);
    let restic = Restic::of(&scene);
    let mut rows = vec![
        "command                          wall s    CPU s  peak MiB  read MiB  sent MiB  fetched MiB"
            .to_owned(),
    ];
    rows.push(vrs_row("vrs take, first", &scene.take()));
    rows.extend(
        restic
            .as_ref()
            .map(|restic| restic.backup("restic backup, first")),
    );
    scene.change(2);
    rows.push(vrs_row("vrs take, changed", &scene.take()));
    rows.extend(
        restic
            .as_ref()
            .map(|restic| restic.backup("restic backup, changed")),
    );
    rows.push(vrs_row("vrs take, unchanged", &scene.take()));
    rows.extend(
        restic
            .as_ref()
            .map(|restic| restic.backup("restic backup, unchanged")),
    );
    rows.push(vrs_row(
        "vrs restore over changed",
        &scene.restore("bench@2"),
    ));
    rows.extend(restic.map(|restic| restic.restore("restic restore, new folder")));
    rows.join("\n")
}

fn vrs_row(title: &str, step: &Step) -> String {
    let counts = ["read_bytes", "sent_bytes", "fetched_bytes"].map(|name| step.count(name));
    row(title, &step.measured, counts)
}

fn row(title: &str, measured: &Measured, counts: [Option<u64>; 3]) -> String {
    let mebibytes = |bytes: Option<u64>| {
        bytes.map_or_else(
            || "-".to_owned(),
            |bytes| format!("{:.1}", bytes as f64 / 1_048_576.0),
        )
    };
    let usage = measured.usage;
    let processor = usage.processor_time.map_or(0.0, |time| time.as_secs_f64());
    let [read, sent, fetched] = counts.map(mebibytes);
    format!(
        "{title:<30} {:>8.2} {processor:>8.2} {:>9} {read:>9} {sent:>9} {fetched:>12}",
        measured.wall_time.as_secs_f64(),
        mebibytes(usage.peak_bytes),
    )
}

/// restic with a repository of its own for the same machine.
struct Restic {
    work: PathBuf,
    machine_folder: PathBuf,
    password_file: PathBuf,
}

impl Restic {
    fn of(scene: &Scene) -> Option<Self> {
        Command::new("restic").arg("version").output().ok()?;
        let restic = Self {
            work: scene.path().to_owned(),
            machine_folder: scene.machine_folder().to_owned(),
            password_file: scene.password_file(),
        };
        measure(restic.command().arg("init"));
        Some(restic)
    }

    fn backup(&self, title: &str) -> String {
        let measured = measure(self.command().arg("backup").arg(&self.machine_folder));
        row(title, &measured, [None; 3])
    }

    fn restore(&self, title: &str) -> String {
        let target = self.work.join("restored");
        let measured = measure(
            self.command()
                .args(["restore", "latest", "--target"])
                .arg(target),
        );
        row(title, &measured, [None; 3])
    }

    fn command(&self) -> Command {
        let mut command = Command::new("restic");
        command
            .arg("--quiet")
            .env("RESTIC_REPOSITORY", self.work.join("restic repository"))
            .env("RESTIC_PASSWORD_FILE", &self.password_file)
            .env("XDG_CACHE_HOME", self.work.join("cache"));
        command
    }
}
