//! Images that VirtualBox knows.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use vrs_progress::Progress;

use super::VBoxManage;
use super::order::{Order, Standing};
use crate::error::Result;
use crate::id::{MachineId, MediumId};

/// Sorts of images, as `VBoxManage` calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// Hard disk.
    Disk,
    /// DVD.
    Dvd,
    /// Floppy.
    Floppy,
}

impl DeviceType {
    const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Dvd => "dvd",
            Self::Floppy => "floppy",
        }
    }

    const fn list(self) -> &'static str {
        match self {
            Self::Disk => "hdds",
            Self::Dvd => "dvds",
            Self::Floppy => "floppies",
        }
    }
}

/// How a medium behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediumKind {
    /// Keeps what is written, takes part in VirtualBox snapshots.
    Normal,
    /// Never changes; each machine writes to a differencing image that is emptied at its start.
    Immutable,
    /// Keeps what is written, takes no part in VirtualBox snapshots.
    Writethrough,
    /// As writethrough, and several machines may use it at once.
    Shareable,
    /// Read only; DVDs and floppies.
    Readonly,
    /// Never changes; each machine writes to a differencing image of its own.
    MultiAttach,
    /// A name that this version does not know.
    Unknown(String),
}

impl MediumKind {
    fn parse(text: &str) -> Self {
        // "normal (base)", "normal (differencing)", "writethrough"
        match text.split(' ').next().unwrap_or_default() {
            "normal" => Self::Normal,
            "immutable" => Self::Immutable,
            "writethrough" => Self::Writethrough,
            "shareable" => Self::Shareable,
            "readonly" => Self::Readonly,
            "multiattach" => Self::MultiAttach,
            other => Self::Unknown(other.to_owned()),
        }
    }

    /// The name that settings files use.
    #[must_use]
    pub fn settings_name(&self) -> &str {
        match self {
            Self::Normal => "Normal",
            Self::Immutable => "Immutable",
            Self::Writethrough => "Writethrough",
            Self::Shareable => "Shareable",
            Self::Readonly => "Readonly",
            Self::MultiAttach => "MultiAttach",
            Self::Unknown(name) => name,
        }
    }
}

impl fmt::Display for MediumKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.settings_name().to_lowercase())
    }
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// Its id.
    pub id: MediumId,
    /// The image that it is a differencing image of.
    pub parent: Option<MediumId>,
    /// What VirtualBox says of it: `created`, `locked read`, `inaccessible`...
    pub state: String,
    /// Why VirtualBox cannot read it.
    pub access_error: Option<String>,
    /// How it behaves.
    pub kind: MediumKind,
    /// Where it is.
    pub location: PathBuf,
    /// Its format, such as `VDI`.
    pub format: String,
    /// Size of the guest's disk, rounded down, where VirtualBox could read it.
    pub capacity_mib: Option<u64>,
    /// Whether its contents are encrypted.
    pub is_encrypted: bool,
    /// Its differencing images.
    pub children: Vec<MediumId>,
    /// Machines that use it, now or at a VirtualBox snapshot. Where names contain ids, it may be too
    /// many, never too few.
    pub used_by: Vec<MachineId>,
}

/// Labels in the order in which `VBoxManage` writes them.
const LABELS: [&str; 18] = [
    "UUID",
    "Parent UUID",
    "State",
    "Access Error",
    "Description",
    "Type",
    "Auto-Reset",
    "Location",
    "Storage format",
    "Format variant",
    "Capacity",
    "Size on disk",
    "Encryption",
    "Cipher",
    "Password ID",
    "Property",
    "In use by VMs",
    "Child UUIDs",
];

/// Values begin in this column.
const COLUMN: usize = 16;

impl Medium {
    /// Reads the output of `list hdds --long` or `showmediuminfo`. The error says what is missing.
    ///
    /// Texts that users write are not marked in it: a description may contain lines that look like
    /// others. Of such the last one counts, since the real one comes later.
    pub fn parse_list(text: &str) -> std::result::Result<Vec<Self>, String> {
        let mut entries: Vec<Vec<(usize, String)>> = Vec::new();
        for line in text.lines() {
            match (label(line), entries.last_mut()) {
                (Some((0, value)), _) => entries.push(vec![(0, value.to_owned())]),
                (Some((label, value)), Some(entry)) => entry.push((label, value.to_owned())),
                (None, Some(entry)) => continue_value(entry, line),
                (_, None) => {}
            }
        }
        entries.iter().map(|entry| Self::of_fields(entry)).collect()
    }

    fn of_fields(fields: &[(usize, String)]) -> std::result::Result<Self, String> {
        let get = |label: &str| {
            let mut found = fields
                .iter()
                .rev()
                .filter(|(known, _)| LABELS.get(*known) == Some(&label));
            found.next().map(|(_, value)| value.trim_end_matches('\n'))
        };
        let required =
            |label: &str| get(label).ok_or_else(|| format!("an image in it has no {label}"));
        let id = |text: &str| {
            text.parse::<MediumId>()
                .map_err(|_| format!("{text:?} in it is no id"))
        };
        let parent = required("Parent UUID")?;
        let state = required("State")?;
        let capacity = get("Capacity")
            .and_then(|size| size.strip_suffix(" MBytes"))
            .and_then(|size| size.parse().ok());
        Ok(Self {
            id: id(required("UUID")?)?,
            parent: if parent == "base" {
                None
            } else {
                Some(id(parent)?)
            },
            state: state.to_owned(),
            access_error: get("Access Error").map(ToOwned::to_owned),
            kind: MediumKind::parse(required("Type")?),
            location: required("Location")?.into(),
            format: required("Storage format")?.to_owned(),
            capacity_mib: capacity.filter(|_| state != "inaccessible"),
            is_encrypted: get("Encryption") == Some("enabled"),
            children: get("Child UUIDs")
                .into_iter()
                .flat_map(str::lines)
                .map(|line| id(line.trim()))
                .collect::<std::result::Result<_, _>>()?,
            used_by: get("In use by VMs").map(ids_in).unwrap_or_default(),
        })
    }
}

/// The number of the line's label and the value behind it.
fn label(line: &str) -> Option<(usize, &str)> {
    let (name, _) = line.split_once(':')?;
    let number = LABELS.iter().position(|label| *label == name)?;
    let (padded, value) = line.split_at_checked(COLUMN)?;
    padded
        .get(name.len()..)?
        .strip_prefix(':')?
        .trim()
        .is_empty()
        .then_some((number, value))
}

/// Further lines of a value are indented or not, depending on the label.
fn continue_value(entry: &mut [(usize, String)], line: &str) {
    if let Some((_, value)) = entry.last_mut() {
        value.push('\n');
        value.push_str(line.strip_prefix(&" ".repeat(COLUMN)).unwrap_or(line));
    }
}

/// Every `(UUID: ...)`: of machines, of VirtualBox snapshots, and in names.
fn ids_in(text: &str) -> Vec<MachineId> {
    let parts = text.split("(UUID: ").skip(1);
    parts
        .filter_map(|part| part.split_once(')')?.0.parse().ok())
        .collect()
}

impl VBoxManage {
    /// All hard disks that VirtualBox knows, parents before children.
    pub fn media(&self) -> Result<Vec<Medium>> {
        self.media_of(DeviceType::Disk)
    }

    /// Makes VirtualBox forget an image that no machine uses. The file stays. One that VirtualBox does
    /// not know is fine.
    pub fn close_medium(
        &self,
        device: DeviceType,
        medium: MediumId,
        progress: &dyn Progress,
    ) -> Result<()> {
        let arguments = close(device, medium);
        self.achieve(&Order::new(&arguments), progress, |_| {
            Ok(match self.medium_of(device, medium)? {
                None => Standing::Done(()),
                Some(_) => Standing::Due(format!("VirtualBox still lists medium {medium}")),
            })
        })
    }

    /// Has VirtualBox forget and remove an image that no machine uses and that has no children. One
    /// that VirtualBox does not know is fine.
    pub fn delete_medium(
        &self,
        device: DeviceType,
        medium: MediumId,
        progress: &dyn Progress,
    ) -> Result<()> {
        let Some(known) = self.medium_of(device, medium)? else {
            return Ok(());
        };
        let mut arguments = close(device, medium).to_vec();
        arguments.push("--delete".to_owned());
        let order = Order {
            at_once: true,
            ..Order::new(&arguments)
        };
        let file = known.location;
        self.achieve(&order, progress, |_| {
            Ok(if self.medium_of(device, medium)?.is_some() {
                Standing::Due(format!("VirtualBox still lists medium {medium}"))
            } else if file.symlink_metadata().is_ok() {
                Standing::Due(format!("'{}' is still there", file.display()))
            } else {
                Standing::Done(())
            })
        })
    }

    fn media_of(&self, device: DeviceType) -> Result<Vec<Medium>> {
        let arguments = ["list", device.list(), "--long"];
        let text = self.ask(arguments)?;
        let mut media =
            Medium::parse_list(&text).map_err(|problem| self.output_error(arguments, problem))?;
        let machines: BTreeSet<MachineId> = self
            .machines()?
            .into_iter()
            .map(|machine| machine.id)
            .collect();
        for medium in &mut media {
            medium.used_by.retain(|user| machines.contains(user));
            medium.used_by.sort_unstable();
            medium.used_by.dedup();
        }
        Ok(media)
    }

    fn medium_of(&self, device: DeviceType, medium: MediumId) -> Result<Option<Medium>> {
        let mut media = self.media_of(device)?.into_iter();
        Ok(media.find(|known| known.id == medium))
    }
}

fn close(device: DeviceType, medium: MediumId) -> [String; 3] {
    [
        "closemedium".to_owned(),
        device.name().to_owned(),
        medium.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn only(text: &str) -> Medium {
        let list = Medium::parse_list(text).unwrap();
        assert_eq!(list.len(), 1);
        list.into_iter().next().unwrap()
    }

    #[test]
    fn recorded_tree() {
        let list = Medium::parse_list(include_str!(
            "../../tests/recorded/7.2.22/list-hdds-tree.txt"
        ))
        .unwrap();
        let places: Vec<_> = list
            .iter()
            .map(|medium| {
                (
                    medium.location.file_name().unwrap().to_str().unwrap(),
                    medium.children.len(),
                )
            })
            .collect();
        assert_eq!(
            places,
            [
                ("dyn.vdi", 2),
                ("{4c9765b0-2016-4a17-a891-b1dbfa0427c4}.vdi", 1),
                ("{30c3709a-4aef-4d6e-9321-fd833e734eab}.vdi", 1),
                ("{1320360f-49b5-4b9b-9512-2c66949e4ed1}.vdi", 1),
            ]
        );
        for (child, parent) in list.iter().skip(1).zip(&list) {
            assert_eq!(child.parent, Some(parent.id));
        }
        let base = &list[0];
        assert_eq!(
            (
                &base.kind,
                base.format.as_str(),
                base.capacity_mib,
                base.state.as_str()
            ),
            (&MediumKind::Normal, "VDI", Some(8), "created")
        );
        assert_eq!(
            base.used_by.len(),
            2,
            "the machine and the VirtualBox snapshot"
        );
    }

    #[test]
    fn recorded_media_of_other_sorts() {
        let gone = only(include_str!(
            "../../tests/recorded/7.2.22/medium-inaccessible.txt"
        ));
        assert_eq!(gone.state, "inaccessible");
        assert!(
            gone.access_error
                .unwrap()
                .ends_with("(VERR_FILE_NOT_FOUND)")
        );
        assert_eq!(
            (gone.capacity_mib, gone.location),
            (None, "/srv/rig/w/med/gone.vdi".into())
        );
        let encrypted = only(include_str!(
            "../../tests/recorded/7.2.22/medium-encrypted.txt"
        ));
        assert_eq!((encrypted.is_encrypted, encrypted.used_by.len()), (true, 1));
        let described = only(include_str!(
            "../../tests/recorded/7.2.22/medium-description.txt"
        ));
        assert_eq!(
            (described.kind.to_string().as_str(), described.used_by),
            ("writethrough", Vec::new())
        );
    }

    #[test]
    fn forged_lines_do_not_move_an_image() {
        let text = include_str!("../../tests/recorded/7.2.22/medium-description.txt");
        let forged = text.replace(
            "hello",
            "x\nLocation:       /etc/passwd\n\nType:           immutable\n",
        );
        assert_eq!(only(&forged), only(text));
        let in_path = text.replace("clone.vdi", "two\nlines \"日本\".vdi");
        assert_eq!(
            only(&in_path).location,
            PathBuf::from("/srv/rig/w/med/vms/m1/two\nlines \"日本\".vdi")
        );
    }

    #[test]
    fn recorded_media_with_several_users() {
        let list = Medium::parse_list(include_str!(
            "../../tests/recorded/7.2.22/list-hdds-several-users.txt"
        ))
        .unwrap();
        let kinds: Vec<_> = list
            .iter()
            .map(|medium| medium.kind.settings_name())
            .collect();
        assert_eq!(
            kinds,
            [
                "Normal",
                "Normal",
                "Normal",
                "Shareable",
                "Immutable",
                "Normal",
                "Normal",
                "Normal"
            ]
        );
        assert_eq!(
            list[0].location,
            PathBuf::from("/tmp/vbxw/vms/a_b_c/dïsk \"1\".vdi")
        );
        let users = [
            "7dfb44a5-af25-4021-a8f9-fd81a818efd9",
            "5ae9664b-2da9-40be-8472-dbeabfa0caf1",
        ];
        assert!(
            users
                .iter()
                .all(|user| list[3].used_by.contains(&user.parse().unwrap()))
        );
        assert_eq!((list[4].children.len(), list[4].used_by.len()), (2, 0));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(UUID:           |State: |Type:           |[a-z0-9 é:-]|\n){0,40}") {
            let _ = Medium::parse_list(&text);
        }
    }
}
