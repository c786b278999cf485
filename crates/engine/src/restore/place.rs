//! Where a machine goes that is not on this host.

use std::path::{Path, PathBuf};

use super::RestoreOptions;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::manifest::Manifest;
use crate::{platform, portable};

/// Where the settings file of a machine goes.
pub(super) struct Place {
    pub(super) settings_file: PathBuf,
    /// What the user should know about it.
    pub(super) note: Option<String>,
}

impl Place {
    /// Where the user wants it, else where it was. One that is taken over goes to VirtualBox's default
    /// machine folder, as an imported one does, where that place is not on this host or not the user's.
    pub(super) fn decide(
        host: &Host,
        manifest: &Manifest,
        options: &RestoreOptions,
    ) -> Result<Self> {
        let was = &manifest.machine.settings_file;
        if let Some(into) = &options.into {
            let into = std::path::absolute(into).map_err(|error| Error::io("find", into, error))?;
            return Ok(Self::within(&into, manifest));
        }
        let machines = was.parent().and_then(Path::parent);
        if was.is_absolute() && (!options.accept || machines.is_some_and(platform::is_own_folder)) {
            return Ok(Self {
                settings_file: was.clone(),
                note: None,
            });
        }
        let default = match host.virtualbox().filter(|_| options.accept) {
            Some(virtualbox) => virtualbox.default_machine_folder()?,
            None => None,
        };
        match default {
            Some(default) => Ok(Self {
                note: Some(format!(
                    "the machine was in '{}', which is no folder of yours on this computer; it goes to VirtualBox's default machine folder '{}'",
                    machines.unwrap_or(was).display(),
                    default.display()
                )),
                ..Self::within(&default, manifest)
            }),
            None => Err(Error::Usage {
                message: format!(
                    "the machine was in '{}' on a host with {}; say with --into where its folder goes on this one",
                    was.display(),
                    manifest.host.os
                ),
            }),
        }
    }

    /// The machine folder.
    pub(super) fn folder(&self) -> &Path {
        self.settings_file.parent().unwrap_or(Path::new("/"))
    }

    fn within(machines: &Path, manifest: &Manifest) -> Self {
        Self {
            settings_file: machines
                .join(&manifest.folder)
                .join(portable::in_folder(&manifest.settings)),
            note: None,
        }
    }
}
