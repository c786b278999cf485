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

    /// The host's network interfaces that a machine can be bridged to.
    pub fn bridged_interfaces(&self) -> Result<Vec<String>> {
        Ok(values_of(&self.ask(["list", "bridgedifs"])?, "Name"))
    }

    /// The extension packs that are installed and usable, by name.
    pub fn extension_packs(&self) -> Result<Vec<String>> {
        let listed = self.ask(["list", "extpacks"])?;
        let names = values_of(&listed, "Pack no.").into_iter();
        let is_usable = values_of(&listed, "Usable");
        let usable = names.zip(is_usable).filter(|(_, usable)| usable == "true");
        Ok(usable.map(|(name, _)| name).collect())
    }
}

/// The values of `LABEL: VALUE` and `LABEL 0: VALUE`, in order.
fn values_of(text: &str, label: &str) -> Vec<String> {
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ');
        (name == label).then(|| value.trim().to_owned())
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_lists() {
        let interfaces = include_str!("../../tests/recorded/7.2.22/bridgedifs.txt");
        assert_eq!(values_of(interfaces, "Name"), ["eth0", "ifb0", "ifb1"]);
        let packs = include_str!("../../tests/recorded/7.2.22/extpacks.txt");
        assert_eq!(values_of(packs, "Pack no."), ["VNC"]);
        assert_eq!(values_of(packs, "Usable"), ["true"]);
        assert_eq!(
            values_of("Extension Packs: 0\n", "Pack no."),
            Vec::<String>::new()
        );
    }

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
