//! What `vrs disk map` answers: which image of a chain supplies which part of the disk.

use std::io::{self, Write};

use serde::Serialize;
use vrs_vdisk::{BlockEntry, Extent, ExtentKind, GuestDisk, VdiImage};

use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "disk_map")]
pub struct MapReport {
    pub capacity_bytes: u64,
    /// The images, from the one that was named down to the base.
    pub layers: Vec<LayerEntry>,
    /// Bytes that no image says anything about.
    pub unallocated_bytes: u64,
    pub extents: Vec<ExtentEntry>,
    #[serde(skip)]
    source: String,
}

#[derive(Debug, Serialize)]
pub struct LayerEntry {
    pub file: String,
    /// What it supplies to the disk.
    pub data_bytes: u64,
    /// What it declares to be zero.
    pub zero_bytes: u64,
    #[serde(skip)]
    picture: String,
}

#[derive(Debug, Serialize)]
pub struct ExtentEntry {
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub kind: &'static str,
    /// Place of the image in `layers`.
    pub layer: Option<usize>,
}

/// What stands in front of each picture.
const TITLE_COLUMNS: usize = 8;

const DATA: char = '#';
const ZERO: char = '0';
const NOTHING: char = '.';

impl MapReport {
    /// Draws pictures that fit into `width` columns.
    pub fn new(disk: &GuestDisk, width: usize) -> Self {
        let columns = width.saturating_sub(TITLE_COLUMNS).max(8);
        let scale = Scale {
            capacity_bytes: disk.capacity_bytes(),
            cells: columns,
        };
        let mut report = Self {
            capacity_bytes: disk.capacity_bytes(),
            layers: disk
                .layers()
                .iter()
                .map(|image| LayerEntry::new(image, scale))
                .collect(),
            unallocated_bytes: 0,
            extents: Vec::new(),
            source: String::new(),
        };
        let mut picture = SourcePicture::new(scale);
        for extent in disk.extents() {
            report.add(&extent);
            picture.add(&extent);
        }
        report.source = picture.draw();
        report
    }

    fn add(&mut self, extent: &Extent) {
        let layer = extent.layer.and_then(|layer| self.layers.get_mut(layer));
        let count = match (extent.kind, layer) {
            (ExtentKind::Data, Some(layer)) => &mut layer.data_bytes,
            (ExtentKind::Zero, Some(layer)) => &mut layer.zero_bytes,
            _ => &mut self.unallocated_bytes,
        };
        *count = count.saturating_add(extent.length_bytes);
        self.extents.push(ExtentEntry::from(extent));
    }
}

impl From<&Extent> for ExtentEntry {
    fn from(extent: &Extent) -> Self {
        Self {
            offset_bytes: extent.offset_bytes,
            length_bytes: extent.length_bytes,
            kind: match extent.kind {
                ExtentKind::Data => "data",
                ExtentKind::Zero => "zero",
                ExtentKind::Unallocated => "unallocated",
            },
            layer: extent.layer,
        }
    }
}

/// A disk drawn in a row of cells.
#[derive(Debug, Clone, Copy)]
struct Scale {
    capacity_bytes: u64,
    cells: usize,
}

impl Scale {
    /// The cells that a run of bytes touches.
    fn cells_of(self, offset_bytes: u64, length_bytes: u64) -> std::ops::RangeInclusive<usize> {
        let last = offset_bytes.saturating_add(length_bytes.saturating_sub(1));
        self.cell_at(offset_bytes)..=self.cell_at(last)
    }

    fn cell_at(self, offset_bytes: u64) -> usize {
        let cell = u128::from(offset_bytes)
            .saturating_mul(self.cells as u128)
            .checked_div(u128::from(self.capacity_bytes));
        let last = self.cells.saturating_sub(1);
        usize::try_from(cell.unwrap_or(0)).unwrap_or(last).min(last)
    }
}

impl LayerEntry {
    fn new(image: &VdiImage, scale: Scale) -> Self {
        Self {
            file: image.path().display().to_string(),
            data_bytes: 0,
            zero_bytes: 0,
            picture: picture(image, scale),
        }
    }
}

/// What one image has of the disk. A cell shows data if there is any.
fn picture(image: &VdiImage, scale: Scale) -> String {
    let block_bytes = u64::from(image.header().block_size_bytes);
    let mut cells = vec![NOTHING; scale.cells];
    for (block, entry) in (0_u64..).zip(image.block_map().entries()) {
        let offset_bytes = block.saturating_mul(block_bytes);
        if offset_bytes >= scale.capacity_bytes {
            break;
        }
        let sign = match entry {
            BlockEntry::Free => continue,
            BlockEntry::Zero => ZERO,
            BlockEntry::Allocated(_) => DATA,
        };
        for cell in cells
            .get_mut(scale.cells_of(offset_bytes, block_bytes))
            .unwrap_or_default()
        {
            *cell = if *cell == DATA { DATA } else { sign };
        }
    }
    cells.into_iter().collect()
}

/// Which image supplies each cell.
struct SourcePicture {
    scale: Scale,
    cells: Vec<char>,
    /// How much of a cell the image that it shows supplies.
    shares: Vec<u64>,
}

impl SourcePicture {
    fn new(scale: Scale) -> Self {
        Self {
            scale,
            cells: vec![NOTHING; scale.cells],
            shares: vec![0; scale.cells],
        }
    }

    fn add(&mut self, extent: &Extent) {
        let Some(layer) = extent.layer else { return };
        let touched = self
            .scale
            .cells_of(extent.offset_bytes, extent.length_bytes);
        let (Some(cells), Some(shares)) = (
            self.cells.get_mut(touched.clone()),
            self.shares.get_mut(touched),
        ) else {
            return;
        };
        for (cell, share) in cells.iter_mut().zip(shares) {
            if extent.length_bytes > *share {
                (*cell, *share) = (layer_sign(layer), extent.length_bytes);
            }
        }
    }

    fn draw(self) -> String {
        self.cells.into_iter().collect()
    }
}

/// One sign for each image: digits, then letters, then a plus for all others.
fn layer_sign(layer: usize) -> char {
    const RADIX: u32 = 36;
    u32::try_from(layer)
        .ok()
        .and_then(|layer| char::from_digit(layer, RADIX))
        .unwrap_or('+')
}

impl Report for MapReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for (number, layer) in self.layers.iter().enumerate() {
            let (data, zero) = (text::size(layer.data_bytes), text::size(layer.zero_bytes));
            writeln!(
                out,
                "{}  {}: supplies {data} of data, {zero} of zeros",
                layer_sign(number),
                text::name(&layer.file)
            )?;
        }
        let unallocated = text::size(self.unallocated_bytes);
        writeln!(
            out,
            "of {}, no image says anything about {unallocated}\n",
            text::size(self.capacity_bytes)
        )?;
        for (number, layer) in self.layers.iter().enumerate() {
            writeln!(out, "{:<7} {}", layer_sign(number), layer.picture)?;
        }
        writeln!(out, "{:<7} {}\n", "source", self.source)?;
        writeln!(
            out,
            "{DATA} data  {ZERO} zeros  {NOTHING} nothing, left to the image below"
        )?;
        writeln!(out, "source: the image that supplies most of that part")
    }
}
