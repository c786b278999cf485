//! What differs between two snapshots, told without reading a disk.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{MIB, Scene};
use vrs_engine::diff::{Change, diff};

#[test]
fn a_guest_write_shows_as_the_chunks_that_it_touched() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let mut machine = scene.machine("web");
    let before = scene.take(&machine);
    machine.fill(0, MIB, 300_000, 5);
    machine.set_mac_address("080027ABCDEF");
    machine.save_state(b"ram");
    let after = scene.take(&machine);

    let changes = diff(scene.store(), &before.id, &after.id).unwrap();
    let disk = machine.chain(0)[0].file_name().unwrap().to_owned();
    let disk = format!("web/{}", disk.to_str().unwrap());
    let disk = changes.files.iter().find(|file| file.path == disk).unwrap();
    assert_eq!(disk.change, Change::Changed);
    let new_bytes = disk.changed_bytes.unwrap();
    assert!((300_000..2 * MIB).contains(&new_bytes), "{disk:?}");
    let state = changes
        .files
        .iter()
        .find(|file| file.path.ends_with(".sav"))
        .unwrap();
    assert_eq!((state.change, state.from_bytes), (Change::Added, None));
    assert_eq!(state.changed_bytes, state.to_bytes);
    let mac = |line: &&vrs_engine::diff::LineChange| line.line.contains("080027ABCDEF");
    assert_eq!(
        changes.settings.iter().find(mac).unwrap().change,
        Change::Added
    );

    let back = diff(scene.store(), &after.id, &before.id).unwrap();
    let state = back
        .files
        .iter()
        .find(|file| file.path.ends_with(".sav"))
        .unwrap();
    assert_eq!((state.change, state.changed_bytes), (Change::Removed, None));
    let same = diff(scene.store(), &after.id, &after.id).unwrap();
    assert_eq!(same, vrs_engine::diff::Diff::default());
}
