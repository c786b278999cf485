//! Folders and files of a snapshot.
//!
//! A tree is a JSON list of nodes, sorted by the bytes of their names, and named by the SHA-256 of
//! that text (restic's design document, "Trees and Data"). Equal folders give equal trees. Reading
//! skips whatever is neither folder nor file; names are checked before they become a [`TreePath`].

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::sync::Arc;

use jiff::Timestamp;
use rustic_core::repofile::{BlobType, Metadata, Node, NodeType, SnapshotFile};
use rustic_core::{Id, TreeId};

use crate::blob::Sealer;
use crate::block_list::BlockList;
use crate::crypto::Digester;
use crate::error::{Error, Result};
use crate::id::{ChunkId, SnapshotId};
use crate::layout::ChunkList;
use crate::loaded_index::LoadedIndex;
use crate::platform::{Ownership, own_ownership};
use crate::repository::ResticRepository;
use crate::sink::{ChunkRef, Sink};
use crate::store::{FileStamp, StoredFile, TreePath};
use crate::tree_copies::TreeCopies;
use crate::tree_text::{self, FoundChunks, FoundNode, NewNode};

/// The bit by which Go, and so restic, marks folders.
const GO_FOLDER: u32 = 1 << 31;

/// A file of a snapshot in the making.
pub(crate) struct NewFile {
    pub(crate) chunks: BlockList<ChunkRef>,
    pub(crate) size_bytes: u64,
    pub(crate) ownership: Ownership,
    /// Absent for bytes that the caller made.
    pub(crate) stamp: Option<FileStamp>,
}

/// A folder of a snapshot in the making.
#[derive(Default)]
struct NewFolder<'a> {
    files: BTreeMap<&'a str, &'a NewFile>,
    folders: BTreeMap<&'a str, NewFolder<'a>>,
}

/// How many trees there are.
#[derive(Default)]
pub(crate) struct TreeCount {
    pub(crate) folders: u64,
    pub(crate) bytes: u64,
}

/// Stores the folders of all files and returns the root. `time` is that of bytes that the caller
/// made; a folder is as old as its youngest file.
pub(crate) fn write<'a>(
    sink: &Sink<'_>,
    files: impl Iterator<Item = (&'a TreePath, &'a NewFile)>,
    time: Timestamp,
) -> Result<(TreeId, TreeCount)> {
    let mut root = NewFolder::default();
    for (path, file) in files {
        root.insert(path, file);
    }
    let mut writer = TreeWriter {
        sink,
        sealer: sink.sealer()?,
        time,
        count: TreeCount::default(),
    };
    let (id, _) = writer.folder(root)?;
    Ok((id, writer.count))
}

impl<'a> NewFolder<'a> {
    fn insert(&mut self, path: &'a TreePath, file: &'a NewFile) {
        let mut parts = path.parts();
        let Some(name) = parts.next_back() else {
            return;
        };
        let folder = parts.fold(self, |folder, part| folder.folders.entry(part).or_default());
        folder.files.insert(name, file);
    }
}

struct TreeWriter<'a> {
    sink: &'a Sink<'a>,
    sealer: Sealer<'a>,
    time: Timestamp,
    count: TreeCount,
}

impl TreeWriter<'_> {
    fn folder(&mut self, folder: NewFolder<'_>) -> Result<(TreeId, Option<Timestamp>)> {
        let mut nodes: BTreeMap<&str, NewNode<'_>> = folder
            .files
            .into_iter()
            .map(|(name, file)| (name, file_node(name, file, self.time)))
            .collect();
        for (name, folder) in folder.folders {
            let (id, time) = self.folder(folder)?;
            nodes.insert(name, folder_node(name, id, time));
        }
        let times = nodes.values().filter_map(|new| new.node.meta.mtime);
        let newest = times.max();
        let nodes: Vec<NewNode<'_>> = nodes.into_values().collect();
        Ok((self.store(&nodes)?, newest))
    }

    /// The text is made twice, to be hashed and to be compressed, because it is never in memory: it
    /// is many times as long as the list of all chunks of all files.
    fn store(&mut self, nodes: &[NewNode<'_>]) -> Result<TreeId> {
        let mut digest = Digester::default();
        tree_text::write(nodes, self.sink, &mut digest).map_err(|_| Error::InvalidRequest {
            subject: "a folder".to_owned(),
            reason: "it has no JSON form",
        })?;
        let (length_bytes, digest) = digest.finish();
        self.count.folders = self.count.folders.saturating_add(1);
        self.count.bytes = self.count.bytes.saturating_add(length_bytes);
        let id = ChunkId::from_bytes(digest);
        self.sink.store_tree(id, || {
            let write = |text: &mut dyn Write| tree_text::write(nodes, self.sink, text);
            let blob = self
                .sealer
                .seal_written(BlobType::Tree, id, length_bytes, write)?;
            if let Some(copies) = self.sink.repository.tree_copies() {
                copies.put(&id, &blob.sealed);
            }
            Ok(blob)
        })?;
        Ok(TreeId::from(Id::from(id)))
    }
}

fn metadata(ownership: Ownership, mtime: Option<Timestamp>) -> Metadata {
    Metadata {
        mode: Some(ownership.mode),
        mtime,
        atime: mtime,
        uid: Some(ownership.uid),
        gid: Some(ownership.gid),
        ..Metadata::default()
    }
}

fn file_node<'a>(name: &str, file: &'a NewFile, time: Timestamp) -> NewNode<'a> {
    let mtime = file
        .stamp
        .map_or(Some(time), |stamp| timestamp(stamp.mtime_ns));
    let mut node = Node::new_node(
        OsStr::new(name),
        NodeType::File,
        metadata(file.ownership, mtime),
    );
    node.meta.size = file.size_bytes;
    node.meta.links = 1;
    if let Some(stamp) = file.stamp {
        node.meta.inode = stamp.inode;
        node.meta.ctime = timestamp(stamp.ctime_ns);
    }
    NewNode {
        node,
        chunks: Some(&file.chunks),
    }
}

fn folder_node(name: &str, id: TreeId, mtime: Option<Timestamp>) -> NewNode<'static> {
    let mut node = Node::new_node(
        OsStr::new(name),
        NodeType::Dir,
        metadata(own_ownership(GO_FOLDER | 0o700), mtime),
    );
    node.subtree = Some(id);
    NewNode { node, chunks: None }
}

fn timestamp(nanoseconds: i128) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds).ok()
}

/// A file node with its place.
#[derive(Clone)]
pub(crate) struct FoundFile {
    pub(crate) path: TreePath,
    pub(crate) node: Node,
    /// Numbers of `loaded`.
    chunks: FoundChunks,
    loaded: Arc<LoadedIndex>,
}

impl FoundFile {
    pub(crate) fn stored(&self) -> StoredFile {
        let (path, meta) = (self.path.clone(), &self.node.meta);
        let stamp = meta.mtime.zip(meta.ctime).map(|(mtime, ctime)| FileStamp {
            size_bytes: meta.size,
            inode: meta.inode,
            mtime_ns: mtime.as_nanosecond(),
            ctime_ns: ctime.as_nanosecond(),
        });
        StoredFile {
            path,
            size_bytes: meta.size,
            stamp,
        }
    }
}

impl ResticRepository {
    /// Reads a tree from the storage. The numbers of chunks are those of `loaded`.
    pub(crate) fn tree(&self, loaded: &LoadedIndex, id: TreeId) -> Result<Vec<FoundNode>> {
        self.tree_from(loaded, id, None)
    }

    /// Reads a tree from its copy, or from the storage, and keeps a copy.
    pub(crate) fn tree_from(
        &self,
        loaded: &LoadedIndex,
        id: TreeId,
        copies: Option<&TreeCopies>,
    ) -> Result<Vec<FoundNode>> {
        let blob = ChunkId::from(*id);
        let damaged = |reason: String| {
            self.backend
                .damaged(format!("tree {}", blob.short()), reason)
        };
        let parse = |json: &mut dyn Read| tree_text::read(json, &loaded.index);
        let tree = self
            .read_tree(loaded, &blob, copies, parse)?
            .ok_or_else(|| damaged("it is in no index".to_owned()))?;
        tree.map_err(|error| damaged(error.to_string()))
    }

    /// All files of a snapshot, sorted by path.
    pub(crate) fn found_files(
        &self,
        loaded: &Arc<LoadedIndex>,
        snapshot: &SnapshotId,
    ) -> Result<Vec<FoundFile>> {
        let root = self.root(snapshot)?;
        self.files_in(loaded, snapshot, None, root)
    }

    /// Those below a folder of it. No tree outside of it is read but those that lead to it.
    pub(crate) fn found_files_below(
        &self,
        loaded: &Arc<LoadedIndex>,
        snapshot: &SnapshotId,
        folder: &TreePath,
    ) -> Result<Vec<FoundFile>> {
        let mut tree = self.root(snapshot)?;
        for part in folder.parts() {
            let nodes = self.kept_tree(loaded, tree)?;
            let Some(subtree) = child(&nodes, part).and_then(|found| found.node.subtree) else {
                return Ok(Vec::new());
            };
            tree = subtree;
        }
        self.files_in(loaded, snapshot, Some(folder.clone()), tree)
    }

    fn files_in(
        &self,
        loaded: &Arc<LoadedIndex>,
        snapshot: &SnapshotId,
        folder: Option<TreePath>,
        tree: TreeId,
    ) -> Result<Vec<FoundFile>> {
        let mut found = Vec::new();
        let mut pending = vec![(folder, tree)];
        while let Some((folder, tree)) = pending.pop() {
            for FoundNode { node, chunks } in &*self.kept_tree(loaded, tree)? {
                let path =
                    child_path(folder.as_ref(), node).map_err(|source| Error::UnusableName {
                        snapshot: *snapshot,
                        source,
                    })?;
                match (&node.node_type, node.subtree) {
                    (NodeType::File, _) => found.push(FoundFile {
                        path,
                        node: node.clone(),
                        chunks: chunks.clone(),
                        loaded: Arc::clone(loaded),
                    }),
                    (NodeType::Dir, Some(subtree)) => pending.push((Some(path), subtree)),
                    _ => {}
                }
            }
        }
        found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// One file of a snapshot.
    pub(crate) fn found_file(
        &self,
        loaded: &Arc<LoadedIndex>,
        snapshot: &SnapshotId,
        path: &TreePath,
    ) -> Result<FoundFile> {
        let missing = || Error::NoSuchFile {
            snapshot: *snapshot,
            path: path.clone(),
        };
        let mut tree = Some(self.root(snapshot)?);
        let mut parts = path.parts();
        let name = parts.next_back().unwrap_or_default();
        for part in parts {
            let nodes = self.kept_tree(loaded, tree.ok_or_else(missing)?)?;
            tree = child(&nodes, part).ok_or_else(missing)?.node.subtree;
        }
        let nodes = self.kept_tree(loaded, tree.ok_or_else(missing)?)?;
        let FoundNode { node, chunks } = child(&nodes, name)
            .filter(|found| found.node.node_type == NodeType::File)
            .ok_or_else(missing)?;
        Ok(FoundFile {
            path: path.clone(),
            node: node.clone(),
            chunks: chunks.clone(),
            loaded: Arc::clone(loaded),
        })
    }

    /// The chunks of a stored file with their places in it.
    pub(crate) fn stored_chunks(&self, file: FoundFile) -> Result<ChunkList> {
        let FoundFile {
            path,
            node,
            chunks,
            loaded,
        } = file;
        let unknown = chunks.unknown.first().copied();
        let list = ChunkList::new(loaded, chunks.known);
        if let Some((before, chunk)) = unknown {
            return Err(Error::MissingChunk {
                location: self.backend.location().to_owned(),
                path,
                offset: list.offset(before).unwrap_or(list.size_bytes()),
                chunk,
            });
        }
        if list.size_bytes() == node.meta.size {
            return Ok(list);
        }
        let reason = format!(
            "its chunks are {} bytes and not {}",
            list.size_bytes(),
            node.meta.size
        );
        Err(self.backend.damaged(format!("file {path}"), reason))
    }

    /// A snapshot object, or an error of its own when there is none.
    pub(crate) fn require_snapshot(&self, id: &SnapshotId) -> Result<SnapshotFile> {
        let known = self
            .backend
            .list::<SnapshotId>(rustic_core::FileType::Snapshot)?;
        if known.contains_key(id) {
            return self.snapshot_file(id);
        }
        Err(Error::NoSnapshot {
            location: self.backend.location().to_owned(),
            snapshot: *id,
        })
    }
}

fn child<'a>(nodes: &'a [FoundNode], name: &str) -> Option<&'a FoundNode> {
    let is_named = |child: &&FoundNode| child.node.name() == OsStr::new(name);
    nodes.iter().find(is_named)
}

fn child_path(
    folder: Option<&TreePath>,
    node: &Node,
) -> std::result::Result<TreePath, crate::store::InvalidTreePath> {
    let name = node.name();
    let name = name.to_string_lossy();
    if name.contains('/') {
        return Err(crate::store::InvalidTreePath {
            path: name.into_owned(),
        });
    }
    match folder {
        Some(folder) => TreePath::new(format!("{folder}/{name}")),
        None => TreePath::new(name),
    }
}
