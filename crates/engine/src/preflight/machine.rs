//! The machine as a whole: its state, who holds it, its VirtualBox snapshots, and VirtualBox itself.

use std::cmp::Ordering;

use vrs_virtualbox::{MachineState, VirtualBoxSnapshot};

use super::facts::Facts;
use super::verdict::{Verdict, VerdictName};
use crate::capture::{CaptureMode, TRANSIENT_PREFIX};

/// The deepest VirtualBox snapshot on which one more may be based (`SETTINGS_SNAPSHOT_DEPTH_MAX` in
/// VirtualBox's source).
const MAX_SNAPSHOT_DEPTH: usize = 250;

/// The last version that marks zeros written to a differencing image in memory only, so that they
/// are forgotten at the next power-off (VirtualBox's bug 850).
pub(crate) const LAST_WITH_ZERO_BLOCK_BUG: (u32, u32, u32) = (7, 2, 16);

/// Extra data with which VirtualBox refuses to save the machine's state. Only that of the machine
/// counts, not the global one (tried on 7.2.22).
const DISABLE_SAVE_STATE: &str = "VBoxInternal2/DisableSaveState";

pub(super) fn verdicts(facts: &Facts<'_>) -> Vec<Verdict> {
    let checks = [
        Some(state(facts)),
        Some(session_lock(facts)),
        Some(stray_snapshot(facts)),
        snapshot_depth(facts),
        save_state_disabled(facts),
        zero_blocks(facts),
    ];
    checks.into_iter().flatten().collect()
}

fn state(facts: &Facts<'_>) -> Verdict {
    let (name, subject) = (VerdictName::MachineState, facts.machine.name.as_str());
    let state = &facts.machine.state;
    let refused =
        |advice: &str| Verdict::refused(name, subject, format!("the machine is {state}"), advice);
    match state {
        MachineState::Paused if facts.mode == CaptureMode::Live => {
            refused("resume it, or take it without --live")
        }
        MachineState::Running | MachineState::Paused => {
            Verdict::ok(name, subject, format!("the machine is {state}"))
        }
        MachineState::Stuck => refused("look at its window or log, then power it off"),
        state if state.is_at_rest() => {
            Verdict::ok(name, subject, format!("the machine is {state}"))
        }
        state if state.is_transitional() => refused("wait until VirtualBox is done with it"),
        _ => refused("`VBoxManage showvminfo` tells what is wrong with it"),
    }
}

/// A machine that is online is held by the program that runs it.
fn session_lock(facts: &Facts<'_>) -> Verdict {
    let (name, subject) = (VerdictName::SessionLock, facts.machine.name.as_str());
    match &facts.session {
        Some(holder) if facts.machine.state.is_online() => {
            Verdict::ok(name, subject, format!("it runs in '{holder}'"))
        }
        Some(holder) => Verdict::refused(
            name,
            subject,
            format!("the machine is locked by '{holder}', which may be changing it"),
            "close its settings, or wait until that program is done",
        ),
        None => Verdict::ok(name, subject, "nobody has the machine locked"),
    }
}

fn stray_snapshot(facts: &Facts<'_>) -> Verdict {
    let (name, subject) = (VerdictName::StraySnapshot, facts.machine.name.as_str());
    let mut strays = facts
        .settings()
        .virtualbox_snapshots()
        .filter(|snapshot| snapshot.name.starts_with(TRANSIENT_PREFIX));
    strays.next().map_or_else(
        || {
            Verdict::ok(
                name,
                subject,
                "no VirtualBox snapshot is left of an earlier capture",
            )
        },
        |stray| {
            Verdict::refused(
                name,
                subject,
                format!(
                    "the VirtualBox snapshot '{}' ({}) is left of a capture that did not end",
                    stray.name, stray.id
                ),
                "run `vrs recover`; if that knows nothing of it, delete it in VirtualBox",
            )
        },
    )
}

fn snapshot_depth(facts: &Facts<'_>) -> Option<Verdict> {
    if !facts.makes_differencing_images() {
        return None;
    }
    let settings = facts.settings();
    let current = settings.current_virtualbox_snapshot?;
    let first = settings.first_virtualbox_snapshot.as_ref()?;
    let depth = depth_of(first, |snapshot| snapshot.id == current)?;
    let (name, subject) = (VerdictName::SnapshotDepth, facts.machine.name.as_str());
    let found = format!("{depth} VirtualBox snapshots are based on one another");
    Some(match depth.cmp(&MAX_SNAPSHOT_DEPTH) {
        Ordering::Less => Verdict::ok(name, subject, found),
        _ => Verdict::refused(
            name,
            subject,
            format!("{found}, and VirtualBox allows no more than {MAX_SNAPSHOT_DEPTH}"),
            "delete one of them, or take the machine with --savestate",
        ),
    })
}

/// How many VirtualBox snapshots lead from the first one to the wanted one, both counted.
fn depth_of(
    first: &VirtualBoxSnapshot,
    is_wanted: impl Fn(&VirtualBoxSnapshot) -> bool,
) -> Option<usize> {
    let mut waiting = vec![(first, 1_usize)];
    while let Some((snapshot, depth)) = waiting.pop() {
        if is_wanted(snapshot) {
            return Some(depth);
        }
        let below = depth.saturating_add(1);
        waiting.extend(snapshot.children.iter().map(|child| (child, below)));
    }
    None
}

fn save_state_disabled(facts: &Facts<'_>) -> Option<Verdict> {
    if !facts.saves_memory() {
        return None;
    }
    let (name, subject) = (VerdictName::SaveStateDisabled, facts.machine.name.as_str());
    let value = facts.settings().extra_data.get(DISABLE_SAVE_STATE);
    Some(match value.map(String::as_str) {
        Some("1") => Verdict::refused(
            name,
            subject,
            format!("its extra data '{DISABLE_SAVE_STATE}' forbids VirtualBox to save its memory"),
            "take it with --disks-only, or remove that extra data",
        ),
        _ => Verdict::ok(name, subject, "VirtualBox may save its memory"),
    })
}

fn zero_blocks(facts: &Facts<'_>) -> Option<Verdict> {
    let version = facts.version.as_ref()?;
    if !facts.makes_differencing_images() {
        return None;
    }
    let (name, subject) = (VerdictName::ZeroBlocks, format!("VirtualBox {version}"));
    Some(if version.numbers() > LAST_WITH_ZERO_BLOCK_BUG {
        Verdict::ok(name, &subject, "it keeps zeros in differencing images")
    } else {
        let (major, minor, build) = LAST_WITH_ZERO_BLOCK_BUG;
        Verdict::warning(
            name,
            &subject,
            format!(
                "up to {major}.{minor}.{build} it may forget zeros that the guest writes while a VirtualBox snapshot exists, if the machine is powered off before that is merged"
            ),
            "update VirtualBox, or take the machine with --savestate",
        )
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::preflight::scene::{Scene, named};
    use crate::preflight::verdict::Level;

    fn verdict(facts: &Facts<'_>, name: VerdictName) -> Option<Verdict> {
        named(verdicts(facts), name).pop()
    }

    #[rstest]
    #[case("running", CaptureMode::Live, Level::Ok)]
    #[case("paused", CaptureMode::Memory, Level::Ok)]
    #[case("paused", CaptureMode::Live, Level::Refused)]
    #[case("saved", CaptureMode::Memory, Level::Ok)]
    #[case("gurumeditation", CaptureMode::Memory, Level::Refused)]
    #[case("livesnapshotting", CaptureMode::Memory, Level::Refused)]
    #[case("deletingsnapshotlive", CaptureMode::DisksOnly, Level::Refused)]
    #[case("inaccessible", CaptureMode::Memory, Level::Refused)]
    #[case("dreaming", CaptureMode::Memory, Level::Refused)]
    fn states(#[case] state: &str, #[case] mode: CaptureMode, #[case] level: Level) {
        let scene = Scene::new(state);
        let facts = scene.facts(mode);
        assert_eq!(
            verdict(&facts, VerdictName::MachineState).unwrap().level,
            level
        );
    }

    #[test]
    fn only_a_machine_at_rest_must_not_be_held() {
        for (state, session, level) in [
            ("running", Some("headless"), Level::Ok),
            ("poweroff", Some("GUI/Qt"), Level::Refused),
            ("poweroff", None, Level::Ok),
        ] {
            let scene = Scene::new(state);
            let mut facts = scene.facts(CaptureMode::Memory);
            facts.session = session.map(ToOwned::to_owned);
            let found = verdict(&facts, VerdictName::SessionLock).unwrap();
            assert_eq!(found.level, level, "{state} {session:?}");
        }
    }

    #[test]
    fn a_transient_virtualbox_snapshot_is_found_anywhere() {
        let mut scene = Scene::new("running");
        scene.add_virtualbox_snapshots(&["mine", "vrs transient 0711", "later"]);
        let facts = scene.facts(CaptureMode::Memory);
        let found = verdict(&facts, VerdictName::StraySnapshot).unwrap();
        insta::assert_snapshot!(found, @"stray-snapshot: web: the VirtualBox snapshot 'vrs transient 0711' (00000000-0000-0000-0000-000000000002) is left of a capture that did not end; run `vrs recover`; if that knows nothing of it, delete it in VirtualBox");
        let mut scene = Scene::new("running");
        scene.add_virtualbox_snapshots(&["mine"]);
        let facts = scene.facts(CaptureMode::Memory);
        assert_eq!(
            verdict(&facts, VerdictName::StraySnapshot).unwrap().level,
            Level::Ok
        );
    }

    #[test]
    fn the_depth_of_virtualbox_snapshots_is_limited() {
        for (depth, level) in [(1, Level::Ok), (249, Level::Ok), (250, Level::Refused)] {
            let mut scene = Scene::new("running");
            scene.add_virtualbox_snapshots(&vec!["x"; depth]);
            let facts = scene.facts(CaptureMode::Memory);
            assert_eq!(
                verdict(&facts, VerdictName::SnapshotDepth).unwrap().level,
                level
            );
            let facts = scene.facts(CaptureMode::SaveState);
            assert_eq!(verdict(&facts, VerdictName::SnapshotDepth), None);
        }
    }

    #[test]
    fn without_saved_state_there_are_only_disks() {
        let mut scene = Scene::new("running");
        scene.set_extra_data(DISABLE_SAVE_STATE, "1");
        for mode in [
            CaptureMode::Memory,
            CaptureMode::Live,
            CaptureMode::SaveState,
        ] {
            let found = verdict(&scene.facts(mode), VerdictName::SaveStateDisabled).unwrap();
            assert_eq!(found.level, Level::Refused);
            assert!(found.advice.contains("--disks-only"));
        }
        let facts = scene.facts(CaptureMode::DisksOnly);
        assert_eq!(verdict(&facts, VerdictName::SaveStateDisabled), None);
        scene.set_extra_data(DISABLE_SAVE_STATE, "0");
        let found = verdict(
            &scene.facts(CaptureMode::Memory),
            VerdictName::SaveStateDisabled,
        );
        assert_eq!(found.unwrap().level, Level::Ok);
    }

    #[rstest]
    #[case("7.2.16r1", Level::Warning)]
    #[case("7.0.26r1", Level::Warning)]
    #[case("7.2.18r1", Level::Ok)]
    #[case("7.2.22_Debianr175245", Level::Ok)]
    fn versions_that_forget_zeros(#[case] version: &str, #[case] level: Level) {
        let scene = Scene::new("running");
        let mut facts = scene.facts(CaptureMode::Memory);
        facts.version = vrs_virtualbox::Version::parse(version);
        assert_eq!(
            verdict(&facts, VerdictName::ZeroBlocks).unwrap().level,
            level
        );
        facts.mode = CaptureMode::SaveState;
        assert_eq!(verdict(&facts, VerdictName::ZeroBlocks), None);
    }
}
