//! Taking and deleting VirtualBox snapshots, also of running machines.
//!
//! Guarantees: whether a VirtualBox snapshot was taken or is gone is read from the machine, however
//! `VBoxManage` ended. VirtualBox completes what it began when `VBoxManage` is killed, so the end of
//! that is waited for first. How far it is, in percent, counts for the caller's current phase.

use std::time::Duration;

use vrs_progress::Progress;

use super::order::{Order, Standing};
use super::settle::TIME_TO_SETTLE;
use super::{ListedVirtualBoxSnapshot, MachineStatus, VBoxManage};
use crate::error::Result;
use crate::id::{MachineId, VirtualBoxSnapshotId};

/// How long VirtualBox may work on a take whose `VBoxManage` is gone.
const TIME_TO_COMPLETE: Duration = Duration::from_secs(600);

/// A VirtualBox snapshot to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeVirtualBoxSnapshot {
    /// Its name, which no other VirtualBox snapshot of the machine may have.
    pub name: String,
    /// Its description, for people.
    pub description: String,
    /// Whether the guest goes on running while its memory is saved. That never ends if the guest
    /// changes its memory faster than it is written.
    pub live: bool,
}

impl VBoxManage {
    /// Takes a VirtualBox snapshot. `stop` is asked about every 50 ms while VirtualBox works; once it
    /// says yes, the take is cancelled, and unless it was complete by then the result is
    /// [`Error::Cancelled`](crate::Error::Cancelled). `stop` must not call VirtualBox.
    pub fn take_virtualbox_snapshot(
        &self,
        id: MachineId,
        options: &TakeVirtualBoxSnapshot,
        stop: &(dyn Fn() -> bool + Sync),
        progress: &dyn Progress,
    ) -> Result<VirtualBoxSnapshotId> {
        let arguments = options.arguments(id);
        let order = Order {
            // The guest may be paused; VirtualBox refuses by itself what it cannot take.
            at_once: true,
            stop,
            machine: Some(id),
            ..Order::new(&arguments)
        };
        self.achieve(&order, progress, |_| {
            let goes_on = |waited| {
                waited
                    < if stop() {
                        TIME_TO_SETTLE
                    } else {
                        TIME_TO_COMPLETE
                    }
            };
            let is_settled = |status: &MachineStatus| !status.state.is_transitional();
            let status = self.awaited(id, is_settled, goes_on, progress)?;
            let mut snapshots = status.virtualbox_snapshots.iter();
            let found = snapshots.find(|snapshot| snapshot.name == options.name);
            Ok(match found {
                Some(found) => Standing::Done(found.id),
                None => Standing::Due(format!(
                    "the machine, which is {}, has no VirtualBox snapshot {}",
                    status.state, options.name
                )),
            })
        })
    }

    /// Deletes a VirtualBox snapshot: VirtualBox merges the images that it kept apart, which takes as
    /// long as it takes. One that the machine does not have is fine.
    pub fn delete_virtualbox_snapshot(
        &self,
        id: MachineId,
        snapshot: VirtualBoxSnapshotId,
        progress: &dyn Progress,
    ) -> Result<()> {
        let arguments =
            ["snapshot", &id.to_string(), "delete", &snapshot.to_string()].map(ToOwned::to_owned);
        let order = Order {
            machine: Some(id),
            ..Order::new(&arguments)
        };
        self.achieve(&order, progress, |patience| {
            let is_over = |status: &MachineStatus| !status.state.is_deleting();
            self.awaited(id, is_over, |_| true, progress)?;
            let status = self.settled_machine(id, patience, progress)?;
            let is_there = |listed: &ListedVirtualBoxSnapshot| listed.id == snapshot;
            if !status.virtualbox_snapshots.iter().any(is_there) {
                return Ok(Standing::Done(()));
            }
            Ok(Standing::Due(format!(
                "the machine still has VirtualBox snapshot {snapshot}"
            )))
        })
    }
}

impl TakeVirtualBoxSnapshot {
    fn arguments(&self, id: MachineId) -> Vec<String> {
        let mut arguments = ["snapshot", &id.to_string(), "take", &self.name]
            .map(ToOwned::to_owned)
            .to_vec();
        if !self.description.is_empty() {
            arguments.extend(["--description".to_owned(), self.description.clone()]);
        }
        if self.live {
            arguments.push("--live".to_owned());
        }
        arguments
    }
}
