//! This computer: its VirtualBox, vrs's state folder, and who it is.
//!
//! The caller fills it in; the engine reads neither the environment nor its own idea of folders.

use std::path::PathBuf;

use vrs_virtualbox::VBoxManage;

use crate::error::{Error, Result};
use crate::journal::Journals;
use crate::manifest::HostRecord;
use crate::platform;

/// What the use cases know about the computer they run on.
#[derive(Debug)]
pub struct Host {
    /// The driver, or why there is none. Much can be done without.
    pub virtualbox: std::result::Result<VBoxManage, String>,
    /// Where journals and locks are kept, for this user only.
    pub state_folder: PathBuf,
    /// How the host is named in snapshots.
    pub name: String,
}

impl Host {
    /// VirtualBox, or an error that says why it is missing.
    pub fn require_virtualbox(&self) -> Result<&VBoxManage> {
        self.virtualbox
            .as_ref()
            .map_err(|reason| Error::NoVirtualBox {
                reason: reason.clone(),
            })
    }

    /// VirtualBox where it is there.
    #[must_use]
    pub fn virtualbox(&self) -> Option<&VBoxManage> {
        self.virtualbox.as_ref().ok()
    }

    /// The journals of this user.
    #[must_use]
    pub fn journals(&self) -> Journals {
        Journals::new(&self.state_folder)
    }

    /// How this host is recorded in a manifest.
    #[must_use]
    pub fn record(&self) -> HostRecord {
        HostRecord {
            name: self.name.clone(),
            os: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            processor: platform::processor(),
            virtualbox: self.virtualbox().map(|driver| driver.version().to_string()),
        }
    }
}
