//! The computer that VirtualBox runs on, in VirtualBox's words.

use super::VBoxManage;
use crate::error::Result;

/// What VirtualBox says about the host. Each part may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostInfo {
    /// Model of the processor.
    pub processor: Option<String>,
    /// Memory.
    pub memory_mib: Option<u64>,
    /// Operating system.
    pub os: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
}

impl HostInfo {
    /// Reads the output of `list hostinfo`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let get = |label: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(label)?.strip_prefix(": "))
        };
        Self {
            processor: get("Processor#0 description").map(ToOwned::to_owned),
            memory_mib: get("Memory size")
                .and_then(|size| size.strip_suffix(" MByte")?.parse().ok()),
            os: get("Operating system").map(ToOwned::to_owned),
            os_version: get("Operating system version").map(ToOwned::to_owned),
        }
    }
}

impl VBoxManage {
    /// What VirtualBox says about the host.
    pub fn host_info(&self) -> Result<HostInfo> {
        Ok(HostInfo::parse(&self.ask(["list", "hostinfo"])?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_host() {
        let host = HostInfo::parse(include_str!("../../tests/recorded/7.2.22/hostinfo.txt"));
        assert_eq!(
            (host.processor.as_deref(), host.memory_mib),
            (Some("AMD EPYC"), Some(24105))
        );
        assert_eq!(
            (host.os.as_deref(), host.os_version.as_deref()),
            (Some("Linux"), Some("6.18.44-fc-v669"))
        );
    }
}
