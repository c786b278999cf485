//! A disk with unreadable sectors: `read(2)` of some bytes fails with `EIO`, inside the program
//! itself.
//!
//! A small library, compiled here with the system's C compiler and loaded before all others, stands
//! between the program and the C library. Linux only.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// See the module.
#[derive(Debug)]
pub struct ReadErrors {
    folder: TempDir,
}

impl ReadErrors {
    /// Compiles the library.
    ///
    /// # Panics
    /// Without a C compiler.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = folder.path().join("read_errors.c");
        std::fs::write(&source, include_str!("read_errors.c")).expect("room for the source");
        let errors = Self { folder };
        let compiled = Command::new("gcc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&errors.library(), &source])
            .args(["-ldl"])
            .output()
            .expect("these tests need gcc: apt-get install gcc libc6-dev");
        let complaint = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{complaint}");
        errors
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("read_errors.so")
    }

    /// `command` will not be able to read these bytes of files of this name.
    ///
    /// # Panics
    /// When `file` has no name.
    pub fn strike(&self, command: &mut Command, file: &Path, bytes: Range<u64>) {
        command
            .env("LD_PRELOAD", self.library())
            .env("READ_ERRORS_NAME", file.file_name().expect("a name"))
            .env("READ_ERRORS_FROM", bytes.start.to_string())
            .env("READ_ERRORS_TO", bytes.end.to_string());
    }
}

impl Default for ReadErrors {
    fn default() -> Self {
        Self::new()
    }
}
