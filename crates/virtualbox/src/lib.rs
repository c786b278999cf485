//! VirtualBox, as far as vrs has to do with it: the program `VBoxManage`, and the settings files of
//! machines.
//!
//! Guarantees: machines, media and VirtualBox snapshots are addressed by id; names are for people.
//! Nothing here prints, reads the environment, or knows what snapshots in a repository are.

mod driver;
mod error;
mod id;
mod platform;
mod result_code;
mod saved_state;
mod settings;
mod state;
mod version;

pub use driver::{
    DeviceType, ExtensionPack, Frontend, HeldClient, HostInfo, ImageIds, ListedVirtualBoxSnapshot,
    LocateOptions, MachineReadable, MachineStatus, Medium, MediumKind, RegisteredMachine,
    SERVICE_ENDS_WITHIN, TakeVirtualBoxSnapshot, VBoxManage, parse_virtualbox_snapshots,
};
pub use error::{Error, ErrorKind, Result};
pub use id::{MachineId, MediumId, VirtualBoxSnapshotId};
pub use result_code::ResultCode;
pub use saved_state::{
    CpuidLeaf, GuestProcessor, SavedState, SavedStateFault, SavedStatePart, SavedStateUnit,
};
pub use settings::{
    Attachment, DeviceKind, HardDisk, Hardware, MachineSettings, NetworkAdapter, RemovableImage,
    SettingsEdit, SharedFolder, VirtualBoxSnapshot,
};
pub use state::MachineState;
pub use version::{MINIMUM_VERSION, Version};
