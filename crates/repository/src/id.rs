//! Identities of repository objects.

use std::cmp::Ordering;
use std::fmt;

/// What an object in storage is named by: 32 bytes, whatever they mean.
pub(crate) trait ObjectId: Ord {
    fn of(bytes: [u8; 32]) -> Self;
}

impl ObjectId for rustic_core::Id {
    fn of(bytes: [u8; 32]) -> Self {
        Self::new(bytes)
    }
}

/// The hexadecimal digits of some bytes.
fn digits<'a>(bytes: &[u8; 32], text: &'a mut [u8; 64]) -> &'a str {
    // It is as long as they need.
    const_hex::encode_to_str(bytes, text).map_or("", |text| text)
}

/// The bytes that 64 digits stand for.
pub(crate) fn bytes_of(digits: &str) -> Option<[u8; 32]> {
    // The library takes a `0x` before them, too.
    let digits = Some(digits).filter(|digits| digits.len() == 64)?;
    const_hex::decode_to_array(digits).ok()
}

/// Reads them from a text.
struct Digits;

impl serde::de::Visitor<'_> for Digits {
    type Value = [u8; 32];

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("64 hexadecimal digits")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<[u8; 32], E> {
        bytes_of(text).ok_or_else(|| E::custom("an id is not 64 hexadecimal digits"))
    }
}

/// A 32-byte identity, written as 64 hexadecimal digits where people may read it.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// From 64 hexadecimal digits.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                bytes_of(text).map(Self)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight bytes as a number, of the same order.
            pub(crate) const fn prefix(&self) -> u64 {
                let [a, b, c, d, e, f, g, h, ..] = self.0;
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }

            /// The first eight digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string().chars().take(8).collect()
            }
        }

        // The prefix almost always decides, and comparing it costs next to nothing.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                let prefixes = self.prefix().cmp(&other.prefix());
                prefixes.then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl From<rustic_core::Id> for $name {
            fn from(id: rustic_core::Id) -> Self {
                Self::from_hex(&id.to_hex()).unwrap_or(Self([0; 32]))
            }
        }

        impl ObjectId for $name {
            fn of(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for rustic_core::Id {
            fn from(id: $name) -> Self {
                Self::new(id.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(digits(&self.0, &mut [0; 64]))
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Digits).map(Self)
                } else {
                    <[u8; 32]>::deserialize(deserializer).map(Self)
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(digits(&self.0, &mut [0; 64]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({})", stringify!($name), self.short())
            }
        }
    };
}

hex_id!(
    /// A snapshot: the SHA-256 of its snapshot object.
    SnapshotId
);
hex_id!(
    /// A repository: the id in its config object.
    RepositoryId
);
hex_id!(
    /// A chunk: the SHA-256 of its content.
    ChunkId
);
hex_id!(
    /// A pack: the SHA-256 of its object.
    PackId
);
hex_id!(
    /// An index file: the SHA-256 of its object.
    IndexId
);
