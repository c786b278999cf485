//! The computer that VirtualBox runs on, in VirtualBox's words.

use std::path::PathBuf;

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

/// An extension pack that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionPack {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it brings a remote display.
    pub has_remote_display: bool,
    /// Whether it brings the encryption of disks.
    pub has_encryption: bool,
    /// Why VirtualBox does not use it, if it does not.
    pub unusable: Option<String>,
}

impl ExtensionPack {
    /// Reads the output of `list extpacks`. What stands before the first pack is none.
    fn parse(text: &str) -> Vec<Self> {
        let blocks = text.split("\nPack no.").skip(1);
        let pack = |block: &str| {
            let block = format!("Pack no.{block}");
            let get = |label: &str| {
                values_of(&block, label)
                    .into_iter()
                    .next()
                    .unwrap_or_default()
            };
            Self {
                name: get("Pack no."),
                version: get("Version"),
                has_remote_display: !get("VRDE Module").is_empty(),
                has_encryption: !get("Crypto Module").is_empty(),
                unusable: (get("Usable") != "true").then(|| get("Why unusable")),
            }
        };
        blocks.map(pack).collect()
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

    /// Where VirtualBox puts new machines, if it says so.
    pub fn default_machine_folder(&self) -> Result<Option<PathBuf>> {
        let listed = self.ask(["list", "systemproperties"])?;
        let folder = values_of(&listed, "Default machine folder")
            .into_iter()
            .next();
        Ok(folder
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute()))
    }

    /// The extension packs that are installed.
    pub fn extension_packs(&self) -> Result<Vec<ExtensionPack>> {
        Ok(ExtensionPack::parse(&self.ask(["list", "extpacks"])?))
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
        let vnc = ExtensionPack {
            name: "VNC".to_owned(),
            version: "7.2.22".to_owned(),
            has_remote_display: true,
            has_encryption: false,
            unusable: None,
        };
        assert_eq!(ExtensionPack::parse(packs), std::slice::from_ref(&vnc));
        assert_eq!(ExtensionPack::parse("Extension Packs: 0\n"), []);
        let broken = packs
            .replace("true", "false")
            .replace("Why unusable:   ", "Why unusable:   too old: 1");
        let both = ExtensionPack::parse(&format!(
            "{packs}{}",
            broken.replace("Extension Packs: 1\n", "")
        ));
        let unusable = ExtensionPack {
            unusable: Some("too old: 1".to_owned()),
            ..vnc.clone()
        };
        assert_eq!(both, [vnc, unusable]);
    }

    #[test]
    fn a_path_is_read_whole() {
        let text = "API version:                     7_2\nDefault machine folder:          C:\\VirtualBox VMs\n";
        assert_eq!(
            values_of(text, "Default machine folder"),
            ["C:\\VirtualBox VMs"]
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
