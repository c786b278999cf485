//! A client that keeps what VirtualBox has in its memory.
//!
//! VirtualBox forgets all that is not in files some five seconds after a client went, if there is none
//! at that moment: also between two calls of which one follows the other at once (seen on 7.2.22).
//!
//! Guarantees: from when the client has reached VirtualBox, which takes as long as any call, until it
//! is dropped, nothing is forgotten. It goes by itself after [`LONGEST_MS`], also where vrs is killed.
//!
//! Not guaranteed: that it reaches VirtualBox. While it is there the service does not end, nor do
//! locks go that an operation left.

use std::process::Child;

use super::VBoxManage;
use crate::error::{Error, Result};
use crate::id::MachineId;
use crate::platform;

/// What is done meanwhile takes seconds.
const LONGEST_MS: &str = "120000";

/// No guest has a property of this name.
const NO_PROPERTY: &str = "vrs/no-such-property";

/// A `VBoxManage` that waits.
#[derive(Debug)]
pub struct HeldClient(Child);

impl VBoxManage {
    /// Starts a client that changes nothing and locks nothing. The machine must be registered.
    pub fn hold_client(&self, machine: MachineId) -> Result<HeldClient> {
        let machine = machine.to_string();
        let wait = ["guestproperty", "wait", &machine, NO_PROPERTY];
        let wait = wait.into_iter().chain(["--timeout", LONGEST_MS]);
        let invocation = self.invocation(wait);
        let client = invocation.spawn_silent();
        client.map(HeldClient).map_err(|source| Error::Spawn {
            command: invocation.to_string(),
            source,
        })
    }
}

impl Drop for HeldClient {
    fn drop(&mut self) {
        platform::kill(&mut self.0);
        // It may have ended by itself.
        let _ = self.0.wait();
    }
}
