//! Machines that the real VirtualBox made.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::contents::random_bytes;
use crate::image;
use crate::rig::Rig;

const PATIENCE: Duration = Duration::from_secs(60);

/// A registered machine, with 16 MB of memory and one SATA controller called "SATA".
#[derive(Debug, Clone)]
pub struct RigMachine<'rig> {
    rig: &'rig Rig,
    id: Uuid,
    settings: PathBuf,
}

/// A `VBoxManage` that waits until it is dropped.
#[derive(Debug)]
pub struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended with the service.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'rig> RigMachine<'rig> {
    /// Makes and registers a machine without disks.
    #[must_use]
    pub fn create(rig: &'rig Rig, name: &str) -> Self {
        let machines = rig.folder().join("machines");
        let arguments = [
            "createvm",
            "--name",
            name,
            "--ostype",
            "Other_64",
            "--register",
            "--basefolder",
        ]
        .map(OsStr::new);
        let printed = rig.run(arguments.into_iter().chain([machines.as_os_str()]));
        let machine = Self::from_printed(rig, &printed);
        machine.modify(&[
            "--memory",
            "16",
            "--vram",
            "2",
            "--graphicscontroller",
            "vboxvga",
            "--boot1",
            "disk",
        ]);
        machine.modify(&[
            "--firmware-logo-fade-in",
            "off",
            "--firmware-logo-fade-out",
            "off",
            "--firmware-boot-menu",
            "disabled",
        ]);
        machine.connect_serial_port();
        // The BIOS looks at each port in turn, for seconds in all where there are thirty.
        machine.call(
            "storagectl",
            &["--name", "SATA", "--add", "sata", "--portcount", "4"],
        );
        machine
    }

    fn from_printed(rig: &'rig Rig, printed: &str) -> Self {
        let id = printed
            .lines()
            .find_map(|line| line.strip_prefix("UUID: "))
            .expect("the machine's UUID");
        let id = id.parse().expect("a UUID");
        Self {
            rig,
            id,
            settings: value_of(rig, id, "CfgFile")
                .expect("the settings file")
                .into(),
        }
    }

    /// A machine that is registered already.
    #[must_use]
    pub fn registered(rig: &'rig Rig, id: Uuid) -> Self {
        Self {
            rig,
            id,
            settings: value_of(rig, id, "CfgFile")
                .expect("the settings file")
                .into(),
        }
    }

    /// Its registry.
    pub fn rig(&self) -> &'rig Rig {
        self.rig
    }

    /// The machine's UUID.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The settings file.
    pub fn settings_path(&self) -> &Path {
        &self.settings
    }

    /// The machine's folder.
    pub fn folder(&self) -> &Path {
        self.settings
            .parent()
            .expect("a settings file lies in a folder")
    }

    /// `modifyvm` with these options.
    pub fn modify(&self, options: &[&str]) {
        self.call("modifyvm", options);
    }

    /// Keeps what VirtualBox knows of the machine in its memory: some five seconds after a client went it
    /// forgets everything, if there is none at that moment, and reads it again for the next.
    ///
    /// # Panics
    /// When the client does not start.
    #[must_use]
    pub fn keep_in_memory(&self) -> Client {
        let id = self.id.to_string();
        let wait = ["guestproperty", "wait", &id, "never", "--timeout", "300000"];
        let mut client = self.rig.command(wait);
        client.stdout(Stdio::null()).stderr(Stdio::null());
        Client(client.spawn().expect("VBoxManage starts"))
    }

    /// `VERB MACHINE ARGUMENTS...`
    pub fn call(&self, verb: &str, arguments: &[&str]) -> String {
        let id = self.id.to_string();
        self.rig.run([verb, &id].iter().chain(arguments))
    }

    /// Adds a controller to a bus: sata, ide, scsi, pcie (NVMe)...
    pub fn add_controller(&self, name: &str, bus: &str) {
        self.call("storagectl", &["--name", name, "--add", bus]);
    }

    /// Makes an image in `format` (VDI, VMDK, VHD) with random contents that begin with the sample
    /// guest's boot sector. `file` is relative to the machine's folder, or absolute. Returns the
    /// image's path.
    pub fn create_disk(
        &self,
        file: impl AsRef<Path>,
        format: &str,
        variant: &str,
        megabytes: usize,
    ) -> PathBuf {
        let contents = disk_contents(&self.guest_program("boot"), megabytes);
        self.create_disk_of(file.as_ref(), format, variant, &contents)
    }

    /// Makes a VDI with these contents at its start and nothing behind.
    pub(crate) fn create_blank_disk(&self, file: &str, start: &[u8], megabytes: usize) -> PathBuf {
        let mut contents = start.to_vec();
        contents.resize(megabytes << 20, 0);
        self.create_disk_of(file.as_ref(), "VDI", "Standard", &contents)
    }

    fn create_disk_of(&self, file: &Path, format: &str, variant: &str, contents: &[u8]) -> PathBuf {
        let path = self.folder().join(file);
        fs::create_dir_all(path.parent().expect("the disk's folder")).expect("the disk's folder");
        let raw = self.rig.folder().join("contents.raw");
        fs::write(&raw, contents).expect("room for the contents");
        self.convert_from_raw(&raw, &path, format, variant);
        path
    }

    /// Makes an image of a raw one, which goes away.
    pub(crate) fn convert_from_raw(&self, raw: &Path, image: &Path, format: &str, variant: &str) {
        let mut arguments: Vec<OsString> = vec!["convertfromraw".into(), raw.into(), image.into()];
        arguments.extend(["--format", format, "--variant", variant].map(OsString::from));
        self.rig.run(arguments);
        fs::remove_file(raw).expect("the contents");
    }

    /// The first sectors of a disk that runs a guest of `rig/guest`.
    pub(crate) fn guest_program(&self, guest: &str) -> Vec<u8> {
        let program = self.rig.installation().join(format!("{guest}.bin"));
        fs::read(program).expect("a guest made by rig/setup")
    }

    /// Attaches an image with a type: immutable, writethrough, shareable, multiattach or readonly.
    /// VirtualBox sets some types only on media that a machine's registry holds, and none while
    /// they are attached.
    pub fn attach_as(&self, kind: &str, controller: &str, port: usize, medium: &Path) {
        self.attach(controller, port, medium);
        self.attach(controller, port, Path::new("none"));
        let medium_kind = ["modifymedium", "disk", "--type", kind].map(OsStr::new);
        self.rig
            .run(medium_kind.into_iter().chain([medium.as_os_str()]));
        self.attach(controller, port, medium);
    }

    /// Attaches an image.
    pub fn attach(&self, controller: &str, port: usize, medium: &Path) {
        let (id, port) = (self.id.to_string(), port.to_string());
        let arguments = [
            "storageattach",
            &id,
            "--storagectl",
            controller,
            "--port",
            &port,
            "--device",
            "0",
        ];
        let arguments = arguments
            .into_iter()
            .chain(["--type", "hdd", "--medium"])
            .map(OsStr::new);
        self.rig.run(arguments.chain([medium.as_os_str()]));
    }

    /// Makes an image and attaches it to the SATA controller.
    pub fn add_disk(
        &self,
        port: usize,
        file: impl AsRef<Path>,
        format: &str,
        variant: &str,
    ) -> PathBuf {
        let path = self.create_disk(file, format, variant, 4);
        self.attach("SATA", port, &path);
        path
    }

    /// The image attached at a place, the one that the guest writes to.
    pub fn attached(&self, controller: &str, port: usize) -> Option<Uuid> {
        self.info(&format!("\"{controller}-ImageUUID-{port}-0\""))?
            .parse()
            .ok()
    }

    /// Where the image attached at a place is.
    pub fn attached_path(&self, controller: &str, port: usize) -> PathBuf {
        self.info(&format!("\"{controller}-{port}-0\""))
            .expect("an attached image")
            .into()
    }

    /// Every attached hard disk: its name in `showvminfo` and its UUID.
    pub fn attachments(&self) -> Vec<(String, Uuid)> {
        let attachment = |line: &str| {
            let (key, value) = line.split_once('=')?;
            let id = value.trim_matches('"').parse().ok()?;
            key.contains("-ImageUUID-")
                .then(|| (key.trim_matches('"').to_owned(), id))
        };
        self.show().lines().filter_map(attachment).collect()
    }

    /// What the guest sees of every attached disk, as a hash.
    pub fn guest_sha256s(&self) -> Vec<(String, String)> {
        let hash = |(place, id): (String, Uuid)| (place, self.rig.guest_sha256(id.to_string()));
        self.attachments().into_iter().map(hash).collect()
    }

    /// Writes a block of random contents into the attached VDI, as the guest would, without running
    /// it.
    pub fn write_vdi(&self, controller: &str, port: usize, block: u64, seed: u64) {
        let path = self.attached_path(controller, port);
        image::write(&[path], block << 20, &random_bytes(seed, 1 << 20));
    }

    /// Takes a VirtualBox snapshot.
    pub fn take_virtualbox_snapshot(&self, name: &str) -> Uuid {
        let printed = self.call("snapshot", &["take", name]);
        printed
            .trim()
            .rsplit(' ')
            .next()
            .and_then(|id| id.parse().ok())
            .expect("the VirtualBox snapshot's UUID")
    }

    /// Restores a VirtualBox snapshot.
    pub fn restore_virtualbox_snapshot(&self, id: Uuid) {
        self.call("snapshot", &["restore", &id.to_string()]);
    }

    /// Makes a linked clone of a VirtualBox snapshot of this machine.
    #[must_use]
    pub fn linked_clone(&self, snapshot: Uuid, name: &str) -> Self {
        let id = Uuid::new_v4();
        let machines = self.rig.folder().join("machines");
        let snapshot = snapshot.to_string();
        let machines = machines.to_str().expect("a Unicode path");
        let (own, new) = (self.id.to_string(), id.to_string());
        let arguments = [
            "clonevm",
            &own,
            "--snapshot",
            &snapshot,
            "--options",
            "link",
            "--name",
            name,
            "--uuid",
            &new,
        ];
        self.rig.run(
            arguments
                .into_iter()
                .chain(["--basefolder", machines, "--register"]),
        );
        let clone = Self::registered(self.rig, id);
        clone.connect_serial_port();
        clone
    }

    /// Runs the machine until its guest, started from the disk at SATA port 0, has written to it.
    pub fn run_guest(&self) {
        self.start_guest();
        self.power_off();
    }

    /// Starts the machine and waits until its guest has written to the disk.
    pub fn start_guest(&self) {
        let _ = fs::remove_file(self.serial());
        self.call("startvm", &["--type", "headless"]);
        let written = || {
            fs::read(self.serial())
                .is_ok_and(|text| text.iter().filter(|byte| **byte == b'T').count() > 1)
        };
        self.wait_until("writing to its disk", written);
    }

    /// Takes the power away, and waits until the machine is at rest.
    pub fn power_off(&self) {
        self.call("controlvm", &["poweroff"]);
        self.wait_until_rested();
    }

    /// Waits until the machine has no process any more.
    pub fn wait_until_rested(&self) {
        self.wait_until("at rest", || self.info("SessionName").is_none());
    }

    /// Runs the guest and leaves the machine with a saved state.
    pub fn save_state(&self) {
        self.start_guest();
        self.save_running_state();
    }

    /// Leaves the running machine with a saved state.
    pub fn save_running_state(&self) {
        // VBoxManage may report a failure here although the state is saved, hence the look at the
        // state itself.
        self.rig
            .output(["controlvm", &self.id.to_string(), "savestate"]);
        self.wait_until("saved", || {
            self.state() == "saved" && self.info("SessionName").is_none()
        });
    }

    /// The file of the saved state.
    pub fn saved_state(&self) -> PathBuf {
        self.info("VMStateFile").expect("a saved state").into()
    }

    /// `VMState` of `showvminfo`.
    pub fn state(&self) -> String {
        self.info("VMState").expect("a state")
    }

    /// One value of `showvminfo --machinereadable`, without quotes; quoted keys are to be given
    /// with theirs.
    pub fn info(&self, key: &str) -> Option<String> {
        value_of(self.rig, self.id, key)
    }

    /// All of `showvminfo --machinereadable`.
    pub fn show(&self) -> String {
        show(self.rig, self.id)
    }

    /// `snapshot list --machinereadable`; a machine without any gets VirtualBox's sentence about
    /// that.
    pub fn virtualbox_snapshots(&self) -> String {
        let output = self.rig.output([
            "snapshot",
            &self.id.to_string(),
            "list",
            "--machinereadable",
        ]);
        String::from_utf8(output.stdout).expect("VBoxManage prints Unicode")
    }

    fn connect_serial_port(&self) {
        let file = self.serial();
        let file = file.to_str().expect("a Unicode path");
        self.modify(&["--uart1", "0x3F8", "4", "--uartmode1", "file", file]);
    }

    /// Where its guest's output on COM1 is; VirtualBox begins it anew with each start.
    pub(crate) fn serial(&self) -> PathBuf {
        Self::serial_of(self.rig, self.id)
    }

    pub(crate) fn serial_of(rig: &Rig, id: Uuid) -> PathBuf {
        rig.folder().join(format!("{id}.serial"))
    }

    pub(crate) fn wait_until(&self, what: &str, reached: impl Fn() -> bool) {
        self.wait_within(PATIENCE, what, reached);
    }

    pub(crate) fn wait_within(&self, patience: Duration, what: &str, reached: impl Fn() -> bool) {
        let start = Instant::now();
        while !reached() {
            assert!(
                start.elapsed() < patience,
                "{} is not {what}:\n{}",
                self.id,
                self.show()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn disk_contents(boot_sector: &[u8], megabytes: usize) -> Vec<u8> {
    let mut contents = vec![0; megabytes << 20];
    contents[..boot_sector.len()].copy_from_slice(boot_sector);
    // Random contents up to the middle; the rest stays unallocated where the format can tell.
    let random = random_bytes(megabytes as u64, (megabytes << 19) - boot_sector.len());
    contents[boot_sector.len()..][..random.len()].copy_from_slice(&random);
    contents
}

fn show(rig: &Rig, id: Uuid) -> String {
    rig.run(["showvminfo", &id.to_string(), "--machinereadable"])
}

fn value_of(rig: &Rig, id: Uuid, key: &str) -> Option<String> {
    let shown = show(rig, id);
    let value = shown
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    let value = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value);
    Some(value.replace("\\\"", "\"").replace("\\\\", "\\"))
}
