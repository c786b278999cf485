//! Versions of VirtualBox.

use std::fmt;

/// The oldest version that vrs works with.
pub const MINIMUM_VERSION: (u32, u32, u32) = (7, 0, 0);

/// Why no older one.
pub(crate) const MINIMUM_REASON: &str = "older ones keep neither the nvram nor the TPM of a machine with its settings, \
                                         know no state aborted-saved, and get no updates since January 2024";

/// A version as `VBoxManage --version` shows it, for example `7.2.22_Debianr175245`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    numbers: (u32, u32, u32),
    text: String,
}

impl Version {
    /// Reads a version; `None` if the text does not begin with three numbers.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let mut numbers = text
            .get(..end)?
            .split('.')
            .map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self {
            numbers: (next()?, next()?, next()?),
            text: text.to_owned(),
        })
    }

    pub(crate) fn minimum() -> Self {
        Self::of(MINIMUM_VERSION)
    }

    /// The version of these numbers, without a revision.
    pub(crate) fn of(numbers: (u32, u32, u32)) -> Self {
        let (major, minor, build) = numbers;
        let text = format!("{major}.{minor}.{build}");
        Self { numbers, text }
    }

    /// Revision of VirtualBox's source, where the text has one.
    #[must_use]
    pub fn revision(&self) -> Option<u32> {
        self.text.rsplit_once('r')?.1.parse().ok()
    }

    /// Major, minor and build number.
    #[must_use]
    pub const fn numbers(&self) -> (u32, u32, u32) {
        self.numbers
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("7.2.22_Debianr175245\n", (7, 2, 22), Some(175_245))]
    #[case("7.0.14r161095", (7, 0, 14), Some(161_095))]
    #[case("6.1.50", (6, 1, 50), None)]
    #[case("7.1.0_BETA2r164697", (7, 1, 0), Some(164_697))]
    fn reads_versions(
        #[case] text: &str,
        #[case] numbers: (u32, u32, u32),
        #[case] revision: Option<u32>,
    ) {
        let version = Version::parse(text).unwrap();
        assert_eq!(version.numbers(), numbers);
        assert_eq!(version.revision(), revision);
        assert_eq!(version.to_string(), text.trim());
    }

    #[rstest]
    #[case("")]
    #[case("seven")]
    #[case("7.2")]
    #[case("99999999999.0.0")]
    fn refuses_other_text(#[case] text: &str) {
        assert_eq!(Version::parse(text), None);
    }
}
