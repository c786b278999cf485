//! A stored file as a file.

use std::io::{self, Read, Seek, SeekFrom};

use vrs_repository::store::StoredFileReader;

/// Reads only what is asked for.
pub(super) struct StoredFile<'a> {
    reader: Box<dyn StoredFileReader + 'a>,
    position_bytes: u64,
}

impl<'a> StoredFile<'a> {
    pub(super) const fn new(reader: Box<dyn StoredFileReader + 'a>) -> Self {
        Self {
            reader,
            position_bytes: 0,
        }
    }
}

impl Read for StoredFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left_bytes = self.reader.size_bytes().saturating_sub(self.position_bytes);
        let count = usize::try_from(left_bytes).map_or(buffer.len(), |left| left.min(buffer.len()));
        let wanted = buffer.get_mut(..count).filter(|wanted| !wanted.is_empty());
        let Some(wanted) = wanted else {
            return Ok(0);
        };
        self.reader
            .read_at(self.position_bytes, wanted)
            .map_err(io::Error::other)?;
        self.position_bytes = self.position_bytes.saturating_add(count as u64);
        Ok(count)
    }
}

impl Seek for StoredFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position_bytes = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.reader.size_bytes().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position_bytes.checked_add_signed(offset),
        };
        self.position_bytes =
            position_bytes.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl StoredFileReader for Bytes {
        fn size_bytes(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> vrs_repository::Result<()> {
            let start = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&self.0[start..][..buffer.len()]);
            Ok(())
        }
    }

    #[test]
    fn it_reads_like_a_file() {
        let mut file = StoredFile::new(Box::new(Bytes(b"0123456789".to_vec())));
        let mut text = String::new();
        assert_eq!(file.seek(SeekFrom::End(-3)).unwrap(), 7);
        assert_eq!(file.read_to_string(&mut text).unwrap(), 3);
        assert_eq!(file.seek(SeekFrom::Current(-9)).unwrap(), 1);
        let mut two = [0; 2];
        file.read_exact(&mut two).unwrap();
        assert_eq!((text.as_str(), &two), ("789", b"12"));
        assert!(file.seek(SeekFrom::Current(-9)).is_err());
        assert_eq!(file.seek(SeekFrom::Start(99)).unwrap(), 99);
        assert_eq!(file.read(&mut two).unwrap(), 0);
    }
}
