//! Who has a file open.

use std::fmt;

/// A process that has a file open for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHolder {
    /// Its process id.
    pub process_id: u32,
    /// Its name, as the system shows it.
    pub name: String,
}

impl fmt::Display for FileHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (process {})", self.name, self.process_id)
    }
}
