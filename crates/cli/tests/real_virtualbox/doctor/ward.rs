//! A machine that is hurt, and repaired.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vrs_testkit::{Rig, RigMachine};

use crate::machines::plain;
use crate::vrs::Vrs;

/// A machine with a snapshot in the repository.
pub struct Ward<'rig> {
    pub rig: &'rig Rig,
    pub machine: RigMachine<'rig>,
    pub vrs: Vrs<'rig>,
}

impl<'rig> Ward<'rig> {
    pub fn of(rig: &'rig Rig, machine: RigMachine<'rig>) -> Self {
        let vrs = Vrs::new(rig);
        vrs.take(&machine.id().to_string(), "first");
        Self { rig, machine, vrs }
    }

    pub fn plain(rig: &'rig Rig) -> Self {
        Self::of(rig, plain(rig, "web"))
    }

    pub fn disk(&self) -> PathBuf {
        self.machine.folder().join("disk.vdi")
    }

    /// What doctor finds, by the names that programs see.
    pub fn found(&self) -> Vec<String> {
        let output = self.vrs.output(["doctor", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let code = if findings.is_empty() { 0 } else { 4 };
        assert_eq!(output.status.code(), Some(code), "{report:#}");
        let kinds = findings.iter().map(|finding| finding["problem"].as_str());
        let mut kinds: Vec<_> = kinds.map(|kind| kind.unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    }

    #[track_caller]
    pub fn finds(&self, expected: &[&str]) {
        assert_eq!(self.found(), expected);
    }

    /// Repairs, with these consents, and finds everything in order.
    #[track_caller]
    pub fn repair(&self, allowed: &[&str]) -> String {
        let allowed = allowed.iter().flat_map(|key| ["--allow", key]);
        let told = self
            .vrs
            .run(["doctor", "--repair", "--yes"].into_iter().chain(allowed));
        self.finds(&[]);
        assert!(told.contains("0 left"), "{told}");
        told
    }

    /// What is left after the repairs that need no consent.
    pub fn unallowed(&self) -> Vec<String> {
        let output = self.vrs.output(["doctor", "--repair", "--yes"]);
        assert_eq!(output.status.code(), Some(4));
        self.found()
    }

    /// VirtualBox's complaint about a call that it must refuse.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.rig.output(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}: {complaint}");
        complaint
    }

    /// VirtualBox cannot start the machine, and complains about this. The call can end well all the same (seen
    /// twice on 7.2.22, on a busy computer).
    pub fn does_not_start(&self, complaint: &str) {
        let arguments = ["startvm", &self.id(), "--type", "headless"];
        let output = self.rig.output(arguments);
        self.machine.wait_until_rested();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() || told.contains(complaint),
            "{told}"
        );
    }

    /// The machine is started and its guest writes to its disk.
    pub fn runs(&self) {
        self.machine.run_guest();
    }

    pub fn guest_sha256s(&self) -> Vec<(String, String)> {
        self.machine.guest_sha256s()
    }

    pub fn id(&self) -> String {
        self.machine.id().to_string()
    }
}

pub fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}
