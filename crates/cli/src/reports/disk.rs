//! What `vrs disk info`, `chain` and `export` answer.

use std::io::{self, Write};

use serde::Serialize;
use vrs_vdisk::{Chain, Geometry, GuestDisk, ImageFormat, Link, VdiHeader, VdiImage};

use crate::args::{ExportArgs, ExportFormat};
use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "disk_info")]
pub struct InfoReport {
    pub file: String,
    pub format: String,
    pub header: HeaderEntry,
    pub block_map: BlockMapEntry,
}

/// The fields of a VDI header.
#[derive(Debug, Serialize)]
pub struct HeaderEntry {
    pub version: String,
    pub image_type: String,
    pub flags: u32,
    pub comment: String,
    pub capacity_bytes: u64,
    pub block_size_bytes: u32,
    pub block_extra_bytes: u32,
    pub blocks: u32,
    pub allocated_blocks: u32,
    pub block_map_offset_bytes: u64,
    pub data_offset_bytes: u64,
    pub geometry: String,
    pub logical_geometry: Option<String>,
    #[serde(flatten)]
    pub uuids: UuidsEntry,
}

#[derive(Debug, Serialize)]
pub struct UuidsEntry {
    pub uuid: String,
    pub modification_uuid: String,
    pub parent_uuid: Option<String>,
    pub parent_modification_uuid: Option<String>,
}

/// What the block map says, counted.
#[derive(Debug, Serialize)]
pub struct BlockMapEntry {
    pub free_blocks: u32,
    pub zero_blocks: u32,
    pub allocated_blocks: u32,
    /// What cannot be right, the first hundred.
    pub findings: Vec<String>,
    pub findings_total: u64,
}

impl InfoReport {
    pub fn new(image: &VdiImage, format: ImageFormat) -> Self {
        let found = image.block_map().check();
        Self {
            file: image.path().display().to_string(),
            format: format.to_string(),
            header: HeaderEntry::from(image.header()),
            block_map: BlockMapEntry {
                free_blocks: found.free_blocks,
                zero_blocks: found.zero_blocks,
                allocated_blocks: found.allocated_blocks,
                findings: found.findings.iter().map(ToString::to_string).collect(),
                findings_total: found.findings_total,
            },
        }
    }
}

impl From<&VdiHeader> for HeaderEntry {
    fn from(header: &VdiHeader) -> Self {
        Self {
            version: header.version.to_string(),
            image_type: header.image_type.to_string(),
            flags: header.flags,
            comment: header.comment.clone(),
            capacity_bytes: header.capacity_bytes,
            block_size_bytes: header.block_size_bytes,
            block_extra_bytes: header.block_extra_bytes,
            blocks: header.blocks,
            allocated_blocks: header.allocated_blocks,
            block_map_offset_bytes: header.block_map_offset_bytes,
            data_offset_bytes: header.data_offset_bytes,
            geometry: geometry(&header.geometry),
            logical_geometry: header.logical_geometry.as_ref().map(geometry),
            uuids: UuidsEntry::from(header),
        }
    }
}

impl From<&VdiHeader> for UuidsEntry {
    fn from(header: &VdiHeader) -> Self {
        let unless_nil = |uuid: uuid::Uuid| (!uuid.is_nil()).then(|| uuid.to_string());
        Self {
            uuid: header.uuids.creation.to_string(),
            modification_uuid: header.uuids.modification.to_string(),
            parent_uuid: unless_nil(header.uuids.parent),
            parent_modification_uuid: unless_nil(header.uuids.parent_modification),
        }
    }
}

fn geometry(geometry: &Geometry) -> String {
    let Geometry {
        cylinders,
        heads,
        sectors,
        sector_bytes,
    } = geometry;
    format!("{cylinders}/{heads}/{sectors}, sectors of {sector_bytes} bytes")
}

impl Report for InfoReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let header = &self.header;
        writeln!(out, "{}", text::name(&self.file))?;
        let size = |bytes: u64| format!("{bytes} ({})", text::size(bytes));
        let fields = [
            ("format", format!("{} {}", self.format, header.version)),
            ("type", header.image_type.clone()),
            ("capacity", size(header.capacity_bytes)),
            ("block size", size(header.block_size_bytes.into())),
            (
                "extra bytes per block",
                header.block_extra_bytes.to_string(),
            ),
            ("blocks", header.blocks.to_string()),
            ("allocated blocks", header.allocated_blocks.to_string()),
            (
                "block map offset",
                header.block_map_offset_bytes.to_string(),
            ),
            ("data offset", header.data_offset_bytes.to_string()),
            ("flags", format!("{:#x}", header.flags)),
            ("geometry", header.geometry.clone()),
            (
                "logical geometry",
                header.logical_geometry.clone().unwrap_or_default(),
            ),
            ("UUID", header.uuids.uuid.clone()),
            ("modification UUID", header.uuids.modification_uuid.clone()),
            (
                "parent UUID",
                header.uuids.parent_uuid.clone().unwrap_or_default(),
            ),
            (
                "parent modification UUID",
                header
                    .uuids
                    .parent_modification_uuid
                    .clone()
                    .unwrap_or_default(),
            ),
            ("comment", header.comment.clone()),
        ];
        for (field, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(out, "  {field:<25} {}", text::name(value))?;
        }
        self.block_map.human(out)
    }
}

impl BlockMapEntry {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self {
            free_blocks,
            zero_blocks,
            allocated_blocks,
            ..
        } = self;
        let counts =
            format!("{allocated_blocks} allocated, {zero_blocks} zero, {free_blocks} free");
        writeln!(out, "  {:<25} {counts}", "block map")?;
        if self.findings_total > 0 {
            writeln!(
                out,
                "the block map cannot be right in {} places:",
                self.findings_total
            )?;
        }
        self.findings
            .iter()
            .try_for_each(|finding| writeln!(out, "  {finding}"))
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "disk_chain")]
pub struct ChainReport {
    /// From the image that was named down to the base.
    pub links: Vec<LinkEntry>,
}

#[derive(Debug, Serialize)]
pub struct LinkEntry {
    pub file: String,
    pub image_type: String,
    pub capacity_bytes: u64,
    #[serde(flatten)]
    pub uuids: UuidsEntry,
    /// Whether it names another modification of its parent than the one that is there, which is
    /// normal.
    pub parent_was_modified: bool,
}

impl From<&Chain> for ChainReport {
    fn from(chain: &Chain) -> Self {
        Self {
            links: chain.links().iter().map(LinkEntry::from).collect(),
        }
    }
}

impl From<&Link> for LinkEntry {
    fn from(link: &Link) -> Self {
        Self {
            file: link.path.display().to_string(),
            image_type: link.header.image_type.to_string(),
            capacity_bytes: link.header.capacity_bytes,
            uuids: UuidsEntry::from(&link.header),
            parent_was_modified: link.stale_parent_modification.is_some(),
        }
    }
}

impl Report for ChainReport {
    /// The base is the root of the tree.
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for (depth, link) in self.links.iter().rev().enumerate() {
            let branch = if depth == 0 {
                String::new()
            } else {
                format!("{}└─ ", "   ".repeat(depth.saturating_sub(1)))
            };
            let file = text::name(&link.file);
            let note = if link.parent_was_modified {
                ", parent modified since, which is normal"
            } else {
                ""
            };
            let size = text::size(link.capacity_bytes);
            writeln!(
                out,
                "{branch}{file}  {{{}}}  {}, {size}{note}",
                link.uuids.uuid, link.image_type
            )?;
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "disk_export")]
pub struct ExportReport {
    pub file: String,
    pub output: String,
    pub format: &'static str,
    pub capacity_bytes: u64,
}

impl ExportReport {
    pub fn new(disk: &GuestDisk, args: &ExportArgs) -> Self {
        Self {
            file: args.image.file.display().to_string(),
            output: args.output.display().to_string(),
            format: match args.format {
                ExportFormat::Raw => "raw",
                ExportFormat::Vdi => "vdi",
            },
            capacity_bytes: disk.capacity_bytes(),
        }
    }
}

impl Report for ExportReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "wrote a disk of {} to {}",
            text::size(self.capacity_bytes),
            text::name(&self.output)
        )
    }
}
