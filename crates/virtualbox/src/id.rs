//! The ids by which VirtualBox knows its objects.
//!
//! Guarantees: an id of one sort cannot be taken for one of another. Shown without braces, as
//! `VBoxManage` does; read with or without them, because settings files write them with braces.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The bare UUID.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// As settings files and the names of differencing images write it: `{uuid}`.
            #[must_use]
            pub fn braced(self) -> String {
                format!("{{{}}}", self.0)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
                Uuid::try_parse(inner).map(Self)
            }
        }
    };
}

id! {
    /// Id of a machine.
    MachineId
}
id! {
    /// Id of a hard disk, DVD or floppy image.
    MediumId
}
id! {
    /// Id of a VirtualBox snapshot.
    VirtualBoxSnapshotId
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "60b68e35-fd26-488e-8d09-97ddb3cc17b1";

    #[test]
    fn reads_with_and_without_braces_and_shows_without() {
        let bare: MachineId = TEXT.parse().unwrap();
        assert_eq!(bare, format!("{{{TEXT}}}").parse().unwrap());
        assert_eq!(bare.to_string(), TEXT);
        assert_eq!(bare.braced(), format!("{{{TEXT}}}"));
    }

    #[test]
    fn refuses_what_is_no_uuid() {
        for text in ["", "{", "m1", "{60b68e35-fd26-488e-8d09-97ddb3cc17b1"] {
            assert!(text.parse::<MediumId>().is_err(), "{text}");
        }
    }

    #[test]
    fn is_stored_as_plain_text() {
        let id: VirtualBoxSnapshotId = TEXT.parse().unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{TEXT}\""));
        assert_eq!(
            serde_json::from_str::<VirtualBoxSnapshotId>(&format!("\"{TEXT}\"")).unwrap(),
            id
        );
    }
}
