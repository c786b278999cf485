//! VirtualBox's result codes, by name.

use std::fmt;

/// A result code such as `VBOX_E_OBJECT_NOT_FOUND`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResultCode(String);

impl ResultCode {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether it says that an object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.0 == "VBOX_E_OBJECT_NOT_FOUND"
    }

    /// Whether it says that the object exists but cannot be used, as of a machine whose settings
    /// VirtualBox cannot read.
    #[must_use]
    pub fn is_access_denied(&self) -> bool {
        self.0 == "E_ACCESSDENIED"
    }
}

impl fmt::Display for ResultCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
