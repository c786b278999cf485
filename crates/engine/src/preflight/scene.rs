//! A machine with one disk, for the tests of the checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use uuid::Uuid;
use vrs_virtualbox::{
    Attachment, DeviceKind, Hardware, MachineSettings, Medium, MediumId, MediumKind, Version,
    VirtualBoxSnapshot,
};

use super::disk::{attached_disks, skipped};
use super::facts::Facts;
use super::verdict::{Verdict, VerdictName};
use crate::capture::CaptureMode;
use crate::inventory::Inventory;
use crate::machine::Machine;
use crate::manifest::MediumRecord;

const SETTINGS: &str = r#"<VirtualBox version="1.19-linux">
  <Machine uuid="{00000000-0000-0000-0000-0000000000ff}" name="web">
    <Hardware><Memory RAMSize="16"/><Display VRAMSize="2"/></Hardware>
  </Machine>
</VirtualBox>"#;

/// Its id ends in `ff`, that of its disk in `d1`. Its folder does not exist.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) machine: Machine,
    pub(super) inventory: Inventory,
    pub(super) media: Vec<Medium>,
    pub(super) skip_disks: Vec<String>,
}

impl Scene {
    pub(super) fn new(state: &str) -> Self {
        let settings_file = PathBuf::from("/vms/web/web.vbox");
        let settings = MachineSettings::parse(SETTINGS, &settings_file).unwrap();
        let machine = Machine {
            id: settings.id,
            name: "web".to_owned(),
            settings_file,
            state: state.parse().unwrap(),
            registered: true,
        };
        let inventory = Inventory {
            folder: "web".to_owned(),
            files: Vec::new(),
            media: Vec::new(),
            foreign_media: BTreeSet::new(),
            registry_is_complete: true,
            not_included: Vec::new(),
            local_folder: "/vms/web".into(),
            settings,
            settings_text: SETTINGS.to_owned(),
        };
        let mut scene = Self {
            machine,
            inventory,
            media: Vec::new(),
            skip_disks: Vec::new(),
        };
        scene.add_image(0xd1, None, "disk.vdi");
        scene.attach(0, 0xd1);
        scene
    }

    /// An image of the machine.
    pub(super) fn add_image(&mut self, id: u128, parent: Option<u128>, file: &str) {
        let location = Path::new("/vms/web").join(file);
        let (id, parent) = (medium_id(id), parent.map(medium_id));
        self.inventory.media.push(MediumRecord {
            id,
            parent,
            format: "VDI".to_owned(),
            kind: parent.is_none().then(|| "Normal".to_owned()),
            location: location.clone(),
            path: format!("web/{file}"),
        });
        self.media.push(medium(id, parent, location));
    }

    /// An image that belongs to no machine, or to others.
    pub(super) fn add_foreign_image(&mut self, id: u128, parent: Option<u128>, users: &[u128]) {
        let location = PathBuf::from(format!("/vms/other/{id:x}.vdi"));
        let mut medium = medium(medium_id(id), parent.map(medium_id), location);
        medium.used_by = users.iter().map(|id| Uuid::from_u128(*id).into()).collect();
        self.media.push(medium);
    }

    pub(super) fn attach(&mut self, port: u32, image: u128) {
        let attachments = &mut self.inventory.settings.hardware.attachments;
        attachments.retain(|attachment| attachment.port != port);
        attachments.push(Attachment {
            controller: "SATA".to_owned(),
            port,
            device: 0,
            kind: DeviceKind::HardDisk,
            medium: Some(medium_id(image)),
            host_drive: None,
            passthrough: false,
            hands_on_discards: false,
        });
    }

    /// Gives the type to the disk.
    pub(super) fn set_kind(&mut self, kind: &str) {
        self.inventory.media[0].kind = Some(kind.to_owned());
    }

    pub(super) fn set_capacity_mib(&mut self, capacity_mib: u64) {
        self.media[0].capacity_mib = Some(capacity_mib);
    }

    pub(super) fn set_extra_data(&mut self, key: &str, value: &str) {
        let extra_data: &mut BTreeMap<_, _> = &mut self.inventory.settings.extra_data;
        extra_data.insert(key.to_owned(), value.to_owned());
    }

    /// VirtualBox snapshots, each based on the one before it; their ids are 1, 2...
    pub(super) fn add_virtualbox_snapshots(&mut self, names: &[&str]) {
        let ids = || (1_u128..).map(|number| Uuid::from_u128(number).into());
        let named: Vec<_> = ids().zip(names).collect();
        let mut first = None;
        for (id, name) in named.into_iter().rev() {
            first = Some(VirtualBoxSnapshot {
                id,
                name: (*name).to_owned(),
                description: None,
                taken: None,
                state_file: None,
                hardware: Hardware::default(),
                children: first.into_iter().collect(),
            });
        }
        self.inventory.settings.current_virtualbox_snapshot =
            ids().zip(names).last().map(|(id, _)| id);
        self.inventory.settings.first_virtualbox_snapshot = first;
    }

    pub(super) fn facts(&self, mode: CaptureMode) -> Facts<'_> {
        let disks = attached_disks(&self.inventory, &self.media);
        Facts {
            machine: &self.machine,
            inventory: &self.inventory,
            mode,
            session: None,
            version: Version::parse("7.2.22r1"),
            media: self.media.clone(),
            skipped: skipped(&disks, &self.skip_disks).unwrap(),
            disks,
            snapshot_folder: "/vms/web/Snapshots".into(),
            volumes: Vec::new(),
        }
    }
}

/// The verdicts of one name.
pub(super) fn named(verdicts: Vec<Verdict>, name: VerdictName) -> Vec<Verdict> {
    let mut verdicts = verdicts;
    verdicts.retain(|verdict| verdict.name == name);
    verdicts
}

/// The only verdict of a name.
#[track_caller]
pub(super) fn only(verdicts: Vec<Verdict>, name: VerdictName) -> Verdict {
    let mut found = named(verdicts, name);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn medium_id(id: u128) -> MediumId {
    Uuid::from_u128(id).into()
}

fn medium(id: MediumId, parent: Option<MediumId>, location: PathBuf) -> Medium {
    Medium {
        id,
        parent,
        state: "created".to_owned(),
        access_error: None,
        kind: MediumKind::Normal,
        location,
        format: "VDI".to_owned(),
        capacity_mib: Some(4),
        is_encrypted: false,
        children: Vec::new(),
        used_by: Vec::new(),
    }
}
