//! Images in the settings of a machine whose process died while a VirtualBox snapshot was taken.
//!
//! VirtualBox may keep the images that it had just made (seen on 7.2.22, some 40 ms into the call).
//! The settings have them in the media registry and attached nowhere. The service that made them takes
//! them for attached and refuses to close them; the next one refuses the whole machine, because its
//! image "has 1 differencing child". Unregistering the machine before that would lose what the old
//! service has not written.
//!
//! Guarantees: only images that were not there before the capture, that lie in the machine's snapshot
//! folder and on which nothing is based are taken out. They never were attached, so no guest wrote to
//! them.

use std::path::Path;
use std::time::Duration;

use vrs_progress::Progress;
use vrs_virtualbox::{
    HardDisk, MachineSettings, MachineState, MediumId, SERVICE_ENDS_WITHIN, SettingsEdit,
};

use super::CaptureIntent;
use super::freeze::Capture;
use crate::error::{Error, Result};
use crate::journal::Step;
use crate::platform;

const PAUSE: Duration = Duration::from_millis(100);

impl Capture<'_> {
    /// Takes images that are left over out of the settings of a machine that VirtualBox cannot open
    /// for them, or that was unregistered for this before.
    pub(super) fn take_leftovers_out(&mut self, is_registered: bool) -> Result<()> {
        let file = self.intent.settings_file.clone();
        let text = read(&file)?;
        let leftovers = leftovers(&text, &self.intent)?;
        if leftovers.is_empty() && is_registered {
            return Ok(());
        }
        if is_registered {
            self.announce(Step::Unregister)?;
            self.progress.step("unregister");
            self.virtualbox
                .unregister(self.intent.machine, self.progress)?;
        }
        let mut edit = SettingsEdit::new(&text)?;
        for image in leftovers {
            edit.remove_medium(image)?;
        }
        self.announce(Step::Settle)?;
        self.progress.step("settings-write");
        platform::replace_file(&file, edit.finish().as_bytes())?;
        self.announce(Step::Register)?;
        self.progress.step("register");
        let registered = self.virtualbox.register(&file, self.progress);
        registered.map(drop).map_err(|error| match error.kind() {
            // The service takes the base image for attached still.
            vrs_virtualbox::ErrorKind::Busy => self.are_held(),
            _ => error.into(),
        })
    }

    fn are_held(&self) -> Error {
        Error::LeftoverImages {
            name: self.intent.machine_name.clone(),
        }
    }

    /// The same for a machine that VirtualBox has open still, if its service ends now.
    pub(super) fn outlast_leftovers(&mut self) -> Result<()> {
        let text = read(&self.intent.settings_file)?;
        if leftovers(&text, &self.intent)?.is_empty() {
            return Ok(());
        }
        let machine = self.intent.machine;
        if self.virtualbox.machine(machine)?.state.is_at_rest() {
            self.progress.note(
                "waiting until VirtualBox's service has ended, which holds images of the interrupted VirtualBox snapshot",
            );
            wait(self.progress);
        }
        if self.virtualbox.machine(machine)?.state != MachineState::Inaccessible {
            return Err(self.are_held());
        }
        self.take_leftovers_out(true)
    }
}

fn wait(progress: &dyn Progress) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < SERVICE_ENDS_WITHIN && !progress.interrupted() {
        std::thread::sleep(PAUSE);
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|error| Error::io("read", file, error))
}

fn leftovers(text: &str, intent: &CaptureIntent) -> Result<Vec<MediumId>> {
    let settings = MachineSettings::parse(text, &intent.settings_file)?;
    let folder = intent.settings_file.parent().unwrap_or(Path::new("/"));
    let is_left_over = |disk: &&HardDisk| {
        settings.is_unused(disk)
            && !intent.media_before.contains(&disk.id)
            && settings
                .resolve(folder, &disk.location)
                .starts_with(&intent.snapshot_folder)
    };
    Ok(settings
        .all_hard_disks()
        .filter(is_left_over)
        .map(|disk| disk.id)
        .collect())
}
