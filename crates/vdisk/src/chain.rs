//! A disk's images from the one in use down to the base, put together by UUID.
//!
//! An image's parent is the one whose own UUID its header names; nothing else links a chain. The
//! parent's modification UUID is compared, too, but only to be shown: VirtualBox leaves it stale
//! after taking a VirtualBox snapshot and after merging, and opens such chains.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::vdi::VdiHeader;

/// One image of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it is.
    pub path: PathBuf,
    /// Its header.
    pub header: VdiHeader,
    /// Set if the header names another modification UUID than its parent has: normal, for
    /// information.
    pub stale_parent_modification: Option<StaleParentModification>,
}

/// A child remembers another modification UUID than its parent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleParentModification {
    /// What the child's header says.
    pub recorded: Uuid,
    /// What the parent's header says.
    pub actual: Uuid,
}

/// All images that make up one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    links: Vec<Link>,
}

impl Chain {
    /// Follows the parents of the image `leaf` among `candidates`; if there are none, among the VDI
    /// files in the folder of `leaf`, the folder above it and the folder `Snapshots` beside it.
    /// Candidates that are no readable VDI images are passed over.
    ///
    /// # Errors
    /// Those of [`VdiHeader::read`] for the leaf; [`Error::MissingParent`],
    /// [`Error::DuplicateImage`], [`Error::ChainLoop`], [`Error::NoParentUuid`]; [`Error::Io`] if
    /// the leaf's folder cannot be listed.
    pub fn resolve(leaf: &Path, candidates: &[PathBuf]) -> Result<Self> {
        let mut links = vec![Link::read(leaf)?];
        let mut pool = None;
        while let Some((child, parent)) = unresolved(&links)? {
            if links
                .iter()
                .any(|link| link.header.uuids.creation == parent)
            {
                return Err(Error::ChainLoop {
                    path: child,
                    parent,
                });
            }
            let pool = match &mut pool {
                Some(pool) => pool,
                None => pool.insert(Pool::new(leaf, candidates)?),
            };
            links.push(pool.find(&child, parent)?);
        }
        note_stale_parents(&mut links);
        Ok(Self { links })
    }

    /// The images, the leaf first and the base last. There is at least one.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }
}

impl Link {
    fn read(path: &Path) -> Result<Self> {
        let header = VdiHeader::read(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            header,
            stale_parent_modification: None,
        })
    }
}

/// The last image so far and the parent it still needs.
fn unresolved(links: &[Link]) -> Result<Option<(PathBuf, Uuid)>> {
    let Some(last) = links.last() else {
        return Ok(None);
    };
    match last.header.parent() {
        Some(parent) => Ok(Some((last.path.clone(), parent))),
        None if last.header.is_differencing() => Err(Error::NoParentUuid {
            path: last.path.clone(),
        }),
        None => Ok(None),
    }
}

fn note_stale_parents(links: &mut [Link]) {
    let parents: Vec<Uuid> = links
        .iter()
        .skip(1)
        .map(|l| l.header.uuids.modification)
        .collect();
    for (link, actual) in links.iter_mut().zip(parents) {
        let recorded = link.header.uuids.parent_modification;
        link.stale_parent_modification =
            (recorded != actual).then_some(StaleParentModification { recorded, actual });
    }
}

/// The images among which parents are looked for.
struct Pool {
    by_uuid: HashMap<Uuid, Vec<Link>>,
    looked_at: Vec<PathBuf>,
}

impl Pool {
    fn new(leaf: &Path, candidates: &[PathBuf]) -> Result<Self> {
        let (paths, looked_at) = match candidates {
            [] => list_around(leaf)?,
            given => (given.to_vec(), given.to_vec()),
        };
        let mut by_uuid: HashMap<Uuid, Vec<Link>> = HashMap::new();
        for path in distinct(paths) {
            if let Ok(link) = Link::read(&path) {
                by_uuid
                    .entry(link.header.uuids.creation)
                    .or_default()
                    .push(link);
            }
        }
        Ok(Self { by_uuid, looked_at })
    }

    fn find(&mut self, child: &Path, uuid: Uuid) -> Result<Link> {
        let mut found = self.by_uuid.remove(&uuid).unwrap_or_default().into_iter();
        let child = child.to_path_buf();
        match (found.next(), found.next()) {
            (Some(link), None) => Ok(link),
            (Some(first), Some(second)) => Err(Error::DuplicateImage {
                child,
                uuid,
                first: first.path,
                second: second.path,
            }),
            (None, _) => Err(Error::MissingParent {
                child,
                parent: uuid,
                looked_at: self.looked_at.clone(),
            }),
        }
    }
}

/// The VDI files near `leaf`, and the folders they were looked for in.
fn list_around(leaf: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let own = std::path::absolute(leaf).map_err(Error::io("find", leaf))?;
    let own = own.parent().unwrap_or(Path::new(".")).to_path_buf();
    let mut files = list_images(&own).map_err(Error::io("list", &own))?;
    let snapshots = own.join("Snapshots");
    let above = own.parent().map(Path::to_path_buf);
    let mut folders = vec![own];
    for folder in above.into_iter().chain([snapshots]) {
        // Neither folder need exist or be open to us.
        if let Ok(more) = list_images(&folder) {
            files.extend(more);
            folders.push(folder);
        }
    }
    Ok((files, folders))
}

fn list_images(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let is_image = |path: &PathBuf| {
        path.extension()
            .and_then(OsStr::to_str)
            .is_some_and(|ext| ext.eq_ignore_ascii_case("vdi"))
    };
    let mut images = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        images.push(entry?.path());
    }
    images.retain(is_image);
    images.sort();
    Ok(images)
}

/// Each file once, however many names of it are given.
fn distinct(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = std::collections::HashSet::new();
    let mut paths = paths;
    paths.retain(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    paths
}
