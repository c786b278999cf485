//! [`Backend`] as `rustic_core` wants it.

use std::error::Error as _;

use bytes::Bytes;
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};

use super::Backend;
use crate::error::Error;

/// See the module.
pub(super) struct ForRustic(pub(super) Backend);

fn foreign(error: Error) -> Box<RusticError> {
    RusticError::with_source(ErrorKind::Backend, "the storage failed", error)
}

/// The error of this crate that one of `rustic_core` came from.
pub(super) fn own_error(error: &RusticError) -> Option<Error> {
    let mut cause = error.source();
    while let Some(present) = cause {
        if let Some(own) = present.downcast_ref::<Error>() {
            return Some(own.again());
        }
        cause = present.source();
    }
    None
}

impl ReadBackend for ForRustic {
    fn location(&self) -> String {
        self.0.location().to_owned()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        let listed = self.0.list::<Id>(kind).map_err(foreign)?;
        Ok(listed.into_iter().collect())
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        self.0.read(kind, *id).map_err(foreign)
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        let object = super::Object::new(kind, *id);
        let part = super::Part {
            offset,
            length_bytes: length,
        };
        self.0.read_part(object, Some(part)).map_err(foreign)
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        super::Object::new(kind, *id).path()
    }
}

impl WriteBackend for ForRustic {
    fn create(&self) -> RusticResult<()> {
        self.0.create().map_err(foreign)
    }

    fn write_bytes(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        self.0.write(kind, *id, content).map_err(foreign)
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        self.0.remove(kind, *id).map_err(foreign)
    }
}
