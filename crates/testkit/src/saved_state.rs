//! Saved states that are sound as files, for machines that never ran.

/// Behind a unit's data and at the start of the other parts.
const UNIT: &[u8] = b"\nUnit\n\0\0";
const END: &[u8] = b"\nTheEnd\0";
const DIRECTORY: &[u8] = b"\nDir\n\0\0\0";
const FOOTER: &[u8] = b"\nFooter\0";
const MAGIC: &[u8] = b"\x7fVirtualBox SavedState V2.0\n\0\0\0\0";
const FINAL_PASS: u32 = u32::MAX;

/// What goes into a saved state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedStateFile {
    /// Major, minor and build number of the VirtualBox that wrote it.
    pub version: (u16, u16, u32),
    /// Its revision.
    pub revision: u32,
    /// System and architecture of its host.
    pub host: String,
    /// Whether it claims to have been made by `snapshot take --live`.
    pub is_live: bool,
    /// Vendor (12 characters) and signature (EAX of CPUID leaf 1) of the guest's processor.
    pub processor: ([u8; 12], u32),
    /// What stands for the memory.
    pub memory: Vec<u8>,
}

impl Default for SavedStateFile {
    fn default() -> Self {
        Self {
            version: (7, 2, 22),
            revision: 175_245,
            host: "linux.amd64".to_owned(),
            is_live: false,
            processor: (*b"AuthenticAMD", 0x00a1_0f11),
            memory: b"memory".to_vec(),
        }
    }
}

impl SavedStateFile {
    /// One whose guest saw the processor that there is, so that it can resume here.
    #[must_use]
    pub fn of_this_computer() -> Self {
        Self {
            processor: own_processor(),
            ..Self::default()
        }
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = self.header();
        let units = [
            ("SSM", 0, 1, self.host_texts()),
            ("cpum", 1, 24, self.processor_leaves()),
            ("pgm", 1, 14, self.memory.clone()),
        ];
        let mut directory = Vec::new();
        for (name, instance, version, data) in units {
            directory.extend((file.len() as u64).to_le_bytes());
            push(
                &mut directory,
                &[instance, crc32fast::hash(name.as_bytes())],
            );
            push_unit(&mut file, name, instance, version, &data);
        }
        push_unit_header(&mut file, END, 0, 0, b"");
        push_directory(&mut file, &directory);
        push_footer(&mut file, directory.len() / 16);
        file
    }

    fn header(&self) -> Vec<u8> {
        const CHECKSUMMED: u32 = 1;
        const LIVE: u32 = 2;
        let mut header = MAGIC.to_vec();
        header.extend(self.version.0.to_le_bytes());
        header.extend(self.version.1.to_le_bytes());
        push(&mut header, &[self.version.2, self.revision]);
        header.extend([64, 8, 8, 0]);
        let flags = CHECKSUMMED | if self.is_live { LIVE } else { 0 };
        push(&mut header, &[3, flags, 4096, 0]);
        set_crc(&mut header, 60);
        header
    }

    fn host_texts(&self) -> Vec<u8> {
        let mut texts = Vec::new();
        for text in ["Build Type", "release", "Host OS", &self.host, ""] {
            push(&mut texts, &[text.len() as u32]);
            texts.extend(text.as_bytes());
        }
        texts
    }

    fn processor_leaves(&self) -> Vec<u8> {
        let (vendor, signature) = self.processor;
        let vendor = vendor.as_chunks::<4>().0;
        let [b, d, c] = [0, 1, 2].map(|word| u32::from_le_bytes(vendor[word]));
        let mut data = vec![0; 100];
        push(&mut data, &[32, 3]);
        push(&mut data, &[0, 0, 0, 1, b, c, d, 0]);
        push(&mut data, &[1, 0, 0, signature, 0, 0, 0, 0]);
        push(&mut data, &[0x8000_0000, 0, 0, 0x8000_0000, b, c, d, 0]);
        data
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn own_processor() -> ([u8; 12], u32) {
    let first = raw_cpuid::cpuid!(0);
    let words = [first.ebx, first.edx, first.ecx].map(u32::to_le_bytes);
    let vendor = words.concat().try_into().expect("twelve bytes");
    (vendor, raw_cpuid::cpuid!(1).eax)
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn own_processor() -> ([u8; 12], u32) {
    SavedStateFile::default().processor
}

fn push_unit(file: &mut Vec<u8>, name: &str, instance: u32, version: u32, data: &[u8]) {
    const RAW: u8 = 0x92;
    const TERMINATOR: [u8; 2] = [0x91, 14];
    let name = [name.as_bytes(), b"\0"].concat();
    push_unit_header(file, UNIT, instance, version, &name);
    let start = file.len();
    for piece in data.chunks(4096) {
        let length = piece.len();
        let (high, middle) = ((length >> 12) as u8, (length >> 6 & 0x3f) as u8);
        file.extend([
            RAW,
            0xe0 | high,
            0x80 | middle,
            0x80 | (length & 0x3f) as u8,
        ]);
        file.extend(piece);
    }
    file.extend(TERMINATOR);
    let crc = crc32fast::hash(file);
    file.extend(1_u16.to_le_bytes());
    push(file, &[crc]);
    let length = (file.len() - start + 8) as u64;
    file.extend(length.to_le_bytes());
}

fn push_unit_header(file: &mut Vec<u8>, magic: &[u8], instance: u32, version: u32, name: &[u8]) {
    let mut header = magic.to_vec();
    header.extend((file.len() as u64).to_le_bytes());
    let crc = crc32fast::hash(file);
    let name_bytes = name.len() as u32;
    push(
        &mut header,
        &[crc, 0, version, instance, FINAL_PASS, 0, name_bytes],
    );
    header.extend(name);
    set_crc(&mut header, 20);
    file.extend(header);
}

fn push_directory(file: &mut Vec<u8>, entries: &[u8]) {
    let mut directory = DIRECTORY.to_vec();
    push(&mut directory, &[0, (entries.len() / 16) as u32]);
    directory.extend(entries);
    set_crc(&mut directory, 8);
    file.extend(directory);
}

fn push_footer(file: &mut Vec<u8>, entries: usize) {
    let mut footer = FOOTER.to_vec();
    footer.extend((file.len() as u64).to_le_bytes());
    push(&mut footer, &[crc32fast::hash(file), entries as u32, 0, 0]);
    set_crc(&mut footer, 28);
    file.extend(footer);
}

fn push(bytes: &mut Vec<u8>, words: &[u32]) {
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

/// Sets the checksum of a structure that holds zeros in its place.
fn set_crc(bytes: &mut [u8], at: usize) {
    let crc = crc32fast::hash(bytes);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}
