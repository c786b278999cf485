//! One vrs at a time on one machine.
//!
//! Guarantees: the lock goes with the process, however it ends. Not guaranteed: that VirtualBox or
//! other tools respect it; their locks are looked at separately.

use std::fs::{File, TryLockError};
use std::path::Path;

use vrs_virtualbox::MachineId;

use crate::error::{Error, Result};
use crate::platform::{create_private_folder, open_private_file};

/// Holds a machine for this process until it is dropped.
#[derive(Debug)]
pub struct MachineLock {
    file: File,
}

impl MachineLock {
    /// Takes the lock, or says that another vrs holds it.
    pub fn take(state_folder: &Path, machine: MachineId, name: &str) -> Result<Self> {
        let folder = state_folder.join("locks");
        create_private_folder(&folder)?;
        let path = folder.join(format!("{machine}.lock"));
        let file = open_private_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(Error::MachineBusy {
                name: name.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }
}

impl Drop for MachineLock {
    fn drop(&mut self) {
        // A child process that is just being started may hold the file open for a moment longer.
        let _ = self.file.unlock();
    }
}
