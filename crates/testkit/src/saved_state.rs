//! Saved states that are sound as files, for machines that never ran.

use std::io::{self, Write};

use crc32fast::Hasher;

/// Behind a unit's data and at the start of the other parts.
const UNIT: &[u8] = b"\nUnit\n\0\0";
const END: &[u8] = b"\nTheEnd\0";
const DIRECTORY: &[u8] = b"\nDir\n\0\0\0";
const FOOTER: &[u8] = b"\nFooter\0";
const MAGIC: &[u8] = b"\x7fVirtualBox SavedState V2.0\n\0\0\0\0";
const FINAL_PASS: u32 = u32::MAX;
const PAGE: usize = 4096;

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
        let mut file = Vec::new();
        self.write(&mut file).expect("memory");
        file
    }

    pub(crate) fn write(&self, to: impl Write) -> io::Result<()> {
        self.write_with(to, self.memory.chunks(PAGE))
    }

    /// Writes the file with these records in the place of the memory, as VirtualBox has one for each page: each of
    /// a few KiB.
    pub(crate) fn write_with(
        &self,
        to: impl Write,
        memory: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> io::Result<()> {
        let mut stream = Stream::new(to);
        stream.put(&self.header())?;
        let directory = [
            stream.put_unit("SSM", 0, 1, [self.host_texts()])?,
            stream.put_unit("cpum", 1, 24, [self.processor_leaves()])?,
            stream.put_unit("pgm", 1, 14, memory)?,
        ];
        stream.put_unit_header(END, 0, 0, b"")?;
        stream.put_directory(&directory)?;
        stream.put_footer(directory.len())
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

/// Knows the length and the checksum of what it has written, which the format wants in many places.
struct Stream<W> {
    to: W,
    crc: Hasher,
    length_bytes: u64,
}

impl<W: Write> Stream<W> {
    fn new(to: W) -> Self {
        Self {
            to,
            crc: Hasher::new(),
            length_bytes: 0,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.length_bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// Returns what the directory says about it.
    fn put_unit(
        &mut self,
        name: &str,
        instance: u32,
        version: u32,
        records: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> io::Result<Vec<u8>> {
        const TERMINATOR: [u8; 2] = [0x91, 14];
        let mut entry = self.length_bytes.to_le_bytes().to_vec();
        push(&mut entry, &[instance, crc32fast::hash(name.as_bytes())]);
        self.put_unit_header(UNIT, instance, version, &[name.as_bytes(), b"\0"].concat())?;
        let start_bytes = self.length_bytes;
        for record in records {
            self.put_record(record.as_ref())?;
        }
        self.put(&TERMINATOR)?;
        let mut end = 1_u16.to_le_bytes().to_vec();
        push(&mut end, &[self.crc()]);
        let length_bytes = self.length_bytes + end.len() as u64 + 8 - start_bytes;
        end.extend(length_bytes.to_le_bytes());
        self.put(&end)?;
        Ok(entry)
    }

    fn put_record(&mut self, data: &[u8]) -> io::Result<()> {
        const RAW: u8 = 0x92;
        // Lengths are written as UTF-8 writes characters.
        let length = char::from_u32(data.len() as u32).expect("a short record");
        self.put(&[&[RAW], length.to_string().as_bytes()].concat())?;
        self.put(data)
    }

    fn put_unit_header(
        &mut self,
        magic: &[u8],
        instance: u32,
        version: u32,
        name: &[u8],
    ) -> io::Result<()> {
        let mut header = magic.to_vec();
        header.extend(self.length_bytes.to_le_bytes());
        let (crc, name_bytes) = (self.crc(), name.len() as u32);
        push(
            &mut header,
            &[crc, 0, version, instance, FINAL_PASS, 0, name_bytes],
        );
        header.extend(name);
        set_crc(&mut header, 20);
        self.put(&header)
    }

    fn put_directory(&mut self, entries: &[Vec<u8>]) -> io::Result<()> {
        let mut directory = DIRECTORY.to_vec();
        push(&mut directory, &[0, entries.len() as u32]);
        directory.extend(entries.concat());
        set_crc(&mut directory, 8);
        self.put(&directory)
    }

    fn put_footer(&mut self, entries: usize) -> io::Result<()> {
        let mut footer = FOOTER.to_vec();
        footer.extend(self.length_bytes.to_le_bytes());
        push(&mut footer, &[self.crc(), entries as u32, 0, 0]);
        set_crc(&mut footer, 28);
        self.put(&footer)
    }
}

fn push(bytes: &mut Vec<u8>, words: &[u32]) {
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

/// Sets the checksum of a structure that holds zeros in its place.
fn set_crc(bytes: &mut [u8], at: usize) {
    let crc = crc32fast::hash(bytes);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}
