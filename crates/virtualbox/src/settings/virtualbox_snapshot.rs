//! VirtualBox snapshots as a settings file has them.

use roxmltree::Node;

use super::document::{child, children, required};
use super::hardware::Hardware;
use super::tree::walk;
use crate::error::Result;
use crate::id::VirtualBoxSnapshotId;

/// A VirtualBox snapshot and those made after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualBoxSnapshot {
    /// Its id.
    pub id: VirtualBoxSnapshotId,
    /// Its name: need not be unique and may be empty.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// When it was taken, as VirtualBox writes it: `2026-11-21T03:16:17Z`.
    pub taken: Option<String>,
    /// Where its saved state is.
    pub state_file: Option<String>,
    /// The devices at that time.
    pub hardware: Hardware,
    /// VirtualBox snapshots made from it.
    pub children: Vec<VirtualBoxSnapshot>,
}

impl VirtualBoxSnapshot {
    /// This VirtualBox snapshot and all made from it, parents first.
    pub fn walk(&self) -> impl Iterator<Item = &Self> {
        walk(self, |node| &node.children)
    }

    pub(super) fn parse(node: Node<'_, '_>) -> Result<Self> {
        let inner = child(node, "Snapshots")
            .into_iter()
            .flat_map(|list| children(list, "Snapshot"));
        Ok(Self {
            id: required(node, "uuid", "UUID")?,
            name: node.attribute("name").unwrap_or_default().to_owned(),
            description: description(node),
            taken: node.attribute("timeStamp").map(ToOwned::to_owned),
            state_file: node
                .attribute("stateFile")
                .filter(|file| !file.is_empty())
                .map(ToOwned::to_owned),
            hardware: Hardware::parse(node)?,
            children: inner.map(Self::parse).collect::<Result<_>>()?,
        })
    }
}

pub(super) fn description(node: Node<'_, '_>) -> Option<String> {
    child(node, "Description")
        .and_then(|description| description.text())
        .map(ToOwned::to_owned)
}
