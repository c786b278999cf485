//! `snapshot delete`.

use std::fs;

use uuid::Uuid;

use super::answer::{
    Answer, FAILURE, Failure, INVALID_OBJECT_STATE, INVALID_VM_STATE, SESSION_MACHINE,
};
use super::document::Element;
use super::machine::{Machine, Snapshot};
use super::merging::{self, Merge};
use super::registry::Registry;
use super::snapshots::{FIND, FIND_SNAPSHOT, braced, not_found};

const DELETE: &str = "\"DeleteSnapshot(bstrSnapGuid.raw(), pProgress.asOutParam())\" at line 554 of file VBoxManageSnapshot.cpp";
const DELETING: &str =
    "\"RTEXITCODE handleSnapshot(HandlerArg*)\" at line 564 of file VBoxManageSnapshot.cpp";

/// `snapshot MACHINE delete NAME-OR-UUID`
pub(super) fn delete(registry: &mut Registry, name: &str, snapshot: &str) -> Answer {
    let machine = match registry.find(name) {
        Ok(machine) => machine.clone(),
        Err(failure) => return failure.answer(FIND),
    };
    let Some(node) = machine.snapshot(snapshot) else {
        return not_found(&machine, snapshot).answer(FIND_SNAPSHOT);
    };
    let announced = format!("Deleting snapshot '{}' ({})\n", node.name, node.id);
    let answer = match refusal_to_delete(registry, &machine, node) {
        Some(answer) => answer,
        None => {
            merge(registry, &machine, node);
            Answer::progress()
        }
    };
    Answer {
        stdout: announced,
        ..answer
    }
}

fn refusal_to_delete(registry: &Registry, machine: &Machine, node: &Snapshot) -> Option<Answer> {
    let refused = |text: String, code| {
        let failure = Failure {
            text,
            code,
            component: SESSION_MACHINE,
        };
        failure.answer(DELETE)
    };
    if machine.is_in_transition() {
        let text = format!(
            "Cannot delete a snapshot of the machine while it is changing the state (machine state: {})",
            machine.api_state()
        );
        return Some(refused(text, INVALID_VM_STATE));
    }
    if node.children.len() > 1 {
        let text = format!(
            "Snapshot '{}' of the machine '{}' cannot be deleted, because it has {} child snapshots, \
             which is more than the one snapshot allowed for deletion",
            node.name,
            machine.name,
            node.children.len()
        );
        return Some(refused(text, INVALID_OBJECT_STATE));
    }
    let split = |id: &Uuid| {
        let children = registry.children_of(*id).len();
        let location = machine.medium(*id)?.location.display();
        (children > 1).then(|| {
            format!("Hard disk '{location}' has more than one child hard disk ({children})")
        })
    };
    let text = node.images.iter().find_map(split)?;
    let failure = Failure {
        text,
        code: FAILURE,
        component: SESSION_MACHINE,
    };
    Some(failure.answer_after_progress("Snapshot operation failed", DELETING))
}

/// Merges what the VirtualBox snapshot kept apart, and forgets it.
fn merge(registry: &mut Registry, machine: &Machine, node: &Snapshot) {
    let merges: Vec<Merge> = node
        .images
        .iter()
        .filter_map(|id| merging::merge(registry, machine, *id))
        .collect();
    let parent = machine.parent_of(node.id);
    let machine = registry.by_id_mut(machine.id).expect("the machine");
    let files = machine.files_of_snapshot(node.id);
    machine.change(|settings| {
        for merge in &merges {
            merge.settle(settings);
        }
        settings.replace("Snapshot", node.id, &mut |mut snapshot| {
            let below = snapshot.child_mut("Snapshots");
            below.map_or_else(Vec::new, |list| std::mem::take(&mut list.children))
        });
        settings.for_each("Snapshot", &mut |snapshot| {
            let is_empty = |list: &Element| list.children.is_empty();
            if snapshot.child("Snapshots").is_some_and(is_empty) {
                snapshot.remove_child("Snapshots");
            }
        });
        if settings.attribute("currentSnapshot") == Some(&braced(node.id)) {
            settings.set("currentSnapshot", parent.map(braced).as_deref());
        }
    });
    let used = machine.saved_states();
    for file in files.into_iter().filter(|file| !used.contains(file)) {
        let _ = fs::remove_file(file);
    }
    if machine.is_running() {
        machine.note_state_change();
    }
}
