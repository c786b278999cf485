//! Each breakage is produced on a real machine, hurts VirtualBox, is repaired, and VirtualBox opens
//! the machine again.

mod damaged_images;
mod leftovers;
mod missing_images;
mod registry;
mod settings;
mod states;
mod ward;

use std::fs;

/// The table in the documentation lists every problem and every test here.
#[test]
fn the_table_is_complete() {
    let table = include_str!("../../../../docs/doctor.md");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real_virtualbox/doctor");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let own: String = files
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let lines: Vec<&str> = own.lines().collect();
    let tests = lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("#[ignore"));
    assert!(tests.clone().next().is_some());
    for test in tests {
        let name = &test[1]["fn ".len()..test[1].find('(').unwrap()];
        assert!(
            table.contains(&format!("`{name}`")),
            "{name} is not in docs/doctor.md"
        );
    }
    let problems = include_str!("../../../engine/src/doctor/finding.rs");
    let kinds = problems
        .split("=> \"")
        .skip(1)
        .filter_map(|text| text.split('"').next());
    for kind in kinds {
        assert!(
            table.contains(&format!("`{kind}`")),
            "{kind} is not in docs/doctor.md"
        );
    }
}
