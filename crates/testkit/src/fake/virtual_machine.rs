//! Machines: `list vms`, `showvminfo`, `registervm`, `unregistervm`.

use super::answer::{
    ACCESS_DENIED, Answer, FAILURE, Failure, INVALID_OBJECT_STATE, MACHINE, OBJECT_NOT_FOUND,
    VIRTUALBOX,
};
use super::machine::Machine;
use super::media::Medium;
use super::registry::Registry;
use super::{settings, show};

const OPEN: &str = "\"OpenMachine(Bstr(a->argv[0]).raw(), Bstr(strPassword).raw(), machine.asOutParam()))\" \
                    at line 159 of file VBoxManageMisc.cpp";
const SHOW: &str = "\"FindMachine(Bstr(VMNameOrUuid).raw(), machine.asOutParam())\" at line 3248 of file VBoxManageInfo.cpp";
const SHOW_LOCK: &str =
    "\"LockMachine(a->session, LockType_Shared)\" at line 3328 of file VBoxManageInfo.cpp";
const FIND_TO_UNREGISTER: &str = "\"FindMachine(Bstr(VMName).raw(), machine.asOutParam())\" at line 228 of file VBoxManageMisc.cpp";
const UNREGISTER: &str = "\"Unregister(fDeleteAll ? CleanupMode_DetachAllReturnHardDisksAndVMRemovable :\
                          CleanupMode_DetachAllReturnHardDisksOnly, ComSafeArrayAsOutParam(aMedia))\" \
                          at line 232 of file VBoxManageMisc.cpp";
const LAUNCH: &str = "\"LaunchVMProcess(a->session, sessionType.raw(), ComSafeArrayAsInParam(aBstrEnv), progress.asOutParam())\" \
                      at line 920 of file VBoxManageMisc.cpp";

/// `list vms` and `list runningvms`
pub(super) fn list(registry: &Registry, running_only: bool) -> Answer {
    let shown = registry
        .machines
        .iter()
        .filter(|machine| !running_only || machine.is_running());
    Answer::prints(
        shown
            .map(|machine| format!("\"{}\" {{{}}}\n", shown_name(machine), machine.id))
            .collect(),
    )
}

/// `list vms --long`; left out are the accessible machines, of which vrs reads nothing there.
pub(super) fn list_long(registry: &Registry) -> Answer {
    let shown = |machine: &Machine| {
        format!(
            "Name:            <inaccessible!>\nUUID:            {}\nConfig file:     {}\nEncryption:     disabled\nAccess error details:\n",
            machine.id,
            machine.settings.display()
        )
    };
    let inaccessible = registry
        .machines
        .iter()
        .filter(|machine| machine.is_inaccessible());
    Answer::prints(inaccessible.map(shown).collect())
}

fn shown_name(machine: &Machine) -> &str {
    if machine.is_inaccessible() {
        "<inaccessible>"
    } else {
        &machine.name
    }
}

/// `registervm FILE`
pub(super) fn register(registry: &mut Registry, path: &str) -> Answer {
    let path = std::path::absolute(path).expect("a path");
    let machine = match settings::read(&path) {
        Ok(machine) => machine,
        Err(failure) => return failure.answer(OPEN),
    };
    if registry.by_id_mut(machine.id).is_some() {
        let shown = path.display();
        let text = format!(
            "Trying to open a VM config '{shown}' which has the same UUID as an existing virtual machine"
        );
        return Failure {
            text,
            code: FAILURE,
            component: MACHINE,
        }
        .answer(OPEN);
    }
    if conflicts(registry, &machine) {
        // The real one forgets the details here, too.
        let code = "Code NS_ERROR_INVALID_ARG (0x80070057) - Invalid argument value (extended info not available)";
        return Answer::error(&[code, &format!("Context: {OPEN}")]);
    }
    if let Some(image) = machine.image_with_children() {
        let children = registry_children(&machine, image);
        let text = format!(
            "Hard disk '{}' with UUID {{{}}} cannot be directly attached to the virtual machine '{}' ('{}') \
             because it has {children} differencing child hard disks",
            image.location.display(),
            image.id,
            machine.name,
            path.display()
        );
        return Failure {
            text,
            code: FAILURE,
            component: MACHINE,
        }
        .answer(OPEN);
    }
    let known = |id| machine.medium(id).is_some() || registry.media().any(|medium| medium.id == id);
    if let Some(missing) = machine.images().into_iter().find(|id| !known(*id)) {
        let text = format!("Could not find an open hard disk with UUID {{{missing}}}");
        return Failure {
            text,
            code: OBJECT_NOT_FOUND,
            component: VIRTUALBOX,
        }
        .answer(OPEN);
    }
    registry
        .opened
        .retain(|opened| machine.medium(opened.id).is_none());
    registry.machines.push(machine);
    Answer::silent()
}

fn registry_children(machine: &Machine, image: &Medium) -> usize {
    let children = machine.media.iter();
    children
        .filter(|child| child.parent == Some(image.id))
        .count()
}

/// Whether a medium of the machine is known elsewhere, or its place belongs to another medium.
fn conflicts(registry: &Registry, machine: &Machine) -> bool {
    let differ = |known: &Medium, medium: &Medium| {
        (known.id == medium.id) != (known.location == medium.location)
    };
    let differs = |known: &Medium| machine.media.iter().any(|medium| differ(known, medium));
    registry.media().any(differs)
}

/// `unregistervm MACHINE`
pub(super) fn unregister(registry: &mut Registry, name: &str) -> Answer {
    let machine = match registry.find(name) {
        Ok(machine) => machine,
        Err(failure) => return failure.answer(FIND_TO_UNREGISTER),
    };
    if machine.is_running() {
        let text = format!(
            "Cannot unregister the machine '{}' while it is locked",
            machine.name
        );
        return Failure {
            text,
            code: INVALID_OBJECT_STATE,
            component: MACHINE,
        }
        .answer(UNREGISTER);
    }
    let id = machine.id;
    registry.machines.retain(|machine| machine.id != id);
    Answer::silent()
}

/// What a call says that needs a machine which someone else has locked.
pub(super) fn locked(name: &str) -> Answer {
    let text = format!(
        "The machine '{name}' is already locked by a session (or being locked or unlocked)"
    );
    Failure {
        text,
        code: INVALID_OBJECT_STATE,
        component: MACHINE,
    }
    .answer(LAUNCH)
}

/// `showvminfo MACHINE --machinereadable`
pub(super) fn show(registry: &mut Registry, name: &str) -> Answer {
    let id = match registry.find(name) {
        Ok(machine) => machine.id,
        Err(failure) => return failure.answer(SHOW),
    };
    let registry = &*registry;
    let machine = registry
        .machines
        .iter()
        .find(|machine| machine.id == id)
        .expect("the machine just found");
    if machine.is_inaccessible() {
        return limited(SHOW_LOCK);
    }
    Answer::prints(show::describe(registry, machine))
}

/// What a call says that needs a machine which cannot be read.
pub(super) fn limited(context: &str) -> Answer {
    let text = "The object functionality is limited".to_owned();
    Failure {
        text,
        code: ACCESS_DENIED,
        component: MACHINE,
    }
    .answer(context)
}
