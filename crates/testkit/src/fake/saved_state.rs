//! Saved states: sound as files, with random bytes for the memory.

use std::fs;

use super::clock::Moment;
use super::machine::Machine;
use crate::contents::random_bytes;
use crate::saved_state::SavedStateFile;

/// Writes a saved state of the machine, and tells its location as settings have it.
pub(super) fn write(machine: &Machine) -> String {
    let location = machine.new_location("sav");
    let state = SavedStateFile {
        memory: random_bytes(fastrand::u64(..), 256 << 10),
        ..SavedStateFile::of_this_computer()
    };
    let path = machine.resolve(&location);
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder of saved states");
    fs::write(path, state.to_bytes()).expect("room for the saved state");
    location
}

impl Machine {
    /// An unused location in its folder for saved states.
    pub(super) fn new_location(&self, extension: &str) -> String {
        let folder = &self.snapshot_folder_location;
        let location = || format!("{folder}/{}.{extension}", Moment::now().in_file_name());
        let mut locations = std::iter::repeat_with(location);
        locations
            .find(|location| !self.resolve(location).exists())
            .expect("an unused name")
    }
}
