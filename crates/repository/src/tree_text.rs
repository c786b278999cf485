//! The JSON text of a tree, written and read as a stream: the ids of a file's chunks, of 64 digits
//! each, are never in memory all at once.

use std::fmt;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

use rustic_core::TreeId;
use rustic_core::repofile::{Metadata, Node, NodeType};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::block_list::BlockList;
use crate::id::ChunkId;
use crate::index::{ChunkNumber, Index};
use crate::sink::{ChunkRef, Sink};

/// A node that is to be written.
pub(crate) struct NewNode<'a> {
    /// Without its content.
    pub(crate) node: Node,
    /// Of a file.
    pub(crate) chunks: Option<&'a BlockList<ChunkRef>>,
}

/// Writes a tree as restic does, with a line feed at the end.
pub(crate) fn write(
    nodes: &[NewNode<'_>],
    sink: &Sink<'_>,
    text: &mut dyn Write,
) -> io::Result<()> {
    let nodes = nodes.iter().map(|new| NodeText {
        name: &new.node.name,
        node_type: &new.node.node_type,
        meta: &new.node.meta,
        content: new.chunks.map(|chunks| ContentText { chunks, sink }),
        subtree: new.node.subtree,
    });
    let tree = TreeText {
        nodes: nodes.collect(),
    };
    let mut buffered = BufWriter::new(text);
    serde_json::to_writer(&mut buffered, &tree)?;
    buffered.write_all(b"\n")?;
    buffered.flush()
}

#[derive(Serialize)]
struct TreeText<'a> {
    nodes: Vec<NodeText<'a>>,
}

/// The fields of [`Node`] in its order.
#[derive(Serialize)]
struct NodeText<'a> {
    name: &'a str,
    #[serde(flatten)]
    node_type: &'a NodeType,
    #[serde(flatten)]
    meta: &'a Metadata,
    content: Option<ContentText<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtree: Option<TreeId>,
}

struct ContentText<'a> {
    chunks: &'a BlockList<ChunkRef>,
    sink: &'a Sink<'a>,
}

impl Serialize for ContentText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ids = self.chunks.iter().map(|chunk| IdText(self.sink.id(*chunk)));
        serializer.collect_seq(ids)
    }
}

struct IdText(Option<ChunkId>);

impl Serialize for IdText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(id) => id.serialize(serializer),
            None => Err(S::Error::custom("a chunk without an id")),
        }
    }
}

/// A node that was read.
pub(crate) struct FoundNode {
    /// Without its content.
    pub(crate) node: Node,
    pub(crate) chunks: FoundChunks,
}

impl FoundNode {
    pub(crate) fn chunk_count(&self) -> usize {
        let FoundChunks { known, unknown } = &self.chunks;
        known.len().saturating_add(unknown.len())
    }
}

/// The chunks of a file, as an index knows them.
#[derive(Default, Clone)]
pub(crate) struct FoundChunks {
    /// Those that it knows, in order. Whoever uses them shares them: there are many.
    pub(crate) known: Arc<Vec<ChunkNumber>>,
    /// The others, each with the number of known ones before it.
    pub(crate) unknown: Vec<(usize, ChunkId)>,
}

/// Reads a tree.
pub(crate) fn read(text: &mut dyn Read, index: &Index) -> serde_json::Result<Vec<FoundNode>> {
    // The parser takes single bytes: they must not pass through a virtual call each.
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(text));
    let nodes = TreeSeed(index).deserialize(&mut json)?;
    json.end()?;
    Ok(nodes)
}

/// Lists and objects that need the index to be understood.
macro_rules! seed {
    ($name:ident, $value:ty) => {
        #[derive(Clone, Copy)]
        struct $name<'a>(&'a Index);

        impl<'de> DeserializeSeed<'de> for $name<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<$value, D::Error> {
                source.deserialize_any(self)
            }
        }
    };
}

seed!(TreeSeed, Vec<FoundNode>);
seed!(NodesSeed, Vec<FoundNode>);
seed!(NodeSeed, FoundNode);
seed!(ContentSeed, FoundChunks);

impl<'de> Visitor<'de> for TreeSeed<'_> {
    type Value = Vec<FoundNode>;

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("a tree")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut nodes = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "nodes" {
                nodes = Some(map.next_value_seed(NodesSeed(self.0))?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        nodes.ok_or_else(|| de::Error::missing_field("nodes"))
    }
}

impl<'de> Visitor<'de> for NodesSeed<'_> {
    type Value = Vec<FoundNode>;

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("a list of nodes")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(NodeSeed(self.0))? {
            nodes.push(node);
        }
        Ok(nodes)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = FoundNode;

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("a node")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FoundNode, A::Error> {
        let mut chunks = FoundChunks::default();
        let mut rest = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "content" {
                chunks = map.next_value_seed(ContentSeed(self.0))?;
            } else {
                rest.insert(key, map.next_value()?);
            }
        }
        let node = Node::deserialize(Value::Object(rest)).map_err(de::Error::custom)?;
        Ok(FoundNode { node, chunks })
    }
}

impl<'de> Visitor<'de> for ContentSeed<'_> {
    type Value = FoundChunks;

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("a list of chunks")
    }

    fn visit_unit<E>(self) -> Result<FoundChunks, E> {
        Ok(FoundChunks::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FoundChunks, A::Error> {
        let mut known = Vec::new();
        let mut unknown = Vec::new();
        while let Some(id) = list.next_element::<ChunkId>()? {
            match self.0.number(&id) {
                Some(number) => known.push(number),
                None => unknown.push((known.len(), id)),
            }
        }
        known.shrink_to_fit();
        let known = Arc::new(known);
        Ok(FoundChunks { known, unknown })
    }
}
