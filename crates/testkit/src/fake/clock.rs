//! The time, in the ways in which VirtualBox writes it.

use jiff::Timestamp;

/// A moment.
pub(super) struct Moment(Timestamp);

impl Moment {
    pub(super) fn now() -> Self {
        Self(Timestamp::now())
    }

    /// As in settings files.
    pub(super) fn in_settings(&self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// As in `VMStateChangeTime`.
    pub(super) fn in_status(&self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%S.%3f000000").to_string()
    }

    /// As in the names of files.
    pub(super) fn in_file_name(&self) -> String {
        self.0.strftime("%Y-%m-%dT%H-%M-%S-%6f000Z").to_string()
    }
}
