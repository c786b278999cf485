//! `vrs disk`

use crate::environment::{Environment, MIB};

/// A machine whose disk is a chain of two images, with the leaf's and the base's path.
fn with_chain(environment: &Environment) -> (String, String) {
    let mut machine = environment.machine("web", 4 * MIB);
    machine.take_virtualbox_snapshot("one");
    machine.fill(0, 6 * MIB as u64, MIB, 5);
    machine.fill(0, 0, MIB, 6);
    let chain = machine.chain(0);
    let text = |index: usize| chain[index].to_str().unwrap().to_owned();
    (text(0), text(1))
}

#[test]
fn the_chain_is_a_tree_from_its_base() {
    let environment = Environment::new();
    let (leaf, base) = with_chain(&environment);
    let chain = environment.succeeds(&["disk", "chain", &leaf]);
    let lines: Vec<&str> = chain.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{base}  {{")) && lines[0].ends_with("dynamic, 8.00 MiB"),
        "{chain}"
    );
    assert!(
        lines[1].starts_with(&format!("└─ {leaf}  {{"))
            && lines[1].contains("differencing, 8.00 MiB"),
        "{chain}"
    );
}

#[test]
fn the_map_shows_which_image_supplies_what() {
    let environment = Environment::new();
    let (leaf, base) = with_chain(&environment);
    let map = environment
        .succeeds(&["disk", "map", &leaf])
        .replace(&leaf, "LEAF")
        .replace(&base, "BASE");
    insta::assert_snapshot!(map, @r"
    0  LEAF: supplies 2.00 MiB of data, 0 B of zeros
    1  BASE: supplies 3.00 MiB of data, 0 B of zeros
    of 8.00 MiB, no image says anything about 3.00 MiB

    0       #########.............................................#########.........
    1       ####################################....................................
    source  000000000111111111111111111111111111..................000000000.........

    # data  0 zeros  . nothing, left to the image below
    source: the image that supplies most of that part
    ");
}

#[test]
fn an_image_that_cannot_be_read_inside_says_so() {
    let environment = Environment::new();
    let image = environment.path().join("disk.vmdk");
    environment.write(&image, "# Disk DescriptorFile\nversion=1\n");
    insta::assert_snapshot!(environment.fails(&["disk", "info", "disk.vmdk"]), @r"
    1
    error: disk.vmdk is a VMDK image; reading inside this format is not supported yet. vrs stores and restores such disks as files; to look inside, make a copy with VBoxManage clonemedium --format VDI
    ");
}

#[test]
fn an_export_does_not_replace_anything() {
    let environment = Environment::new();
    let (leaf, _) = with_chain(&environment);
    environment.write(&environment.path().join("out"), "precious");
    assert!(
        environment
            .fails(&["disk", "export", &leaf, "-o", "out"])
            .starts_with("1\nerror: ")
    );
    assert_eq!(
        std::fs::read(environment.path().join("out")).unwrap(),
        b"precious"
    );
}
