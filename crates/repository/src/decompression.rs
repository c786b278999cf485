//! Decompression with one decompressor for each thread: making one takes longer than decompressing a snapshot.
//!
//! What comes out is as long as whoever compressed it wanted: callers bound it.

use std::cell::RefCell;
use std::io::{self, Read};

use zstd::zstd_safe::{DCtx, ResetDirective, get_error_name};

thread_local! {
    static DECOMPRESSOR: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Decompresses into a buffer. Returns the number of bytes; it fails when there is not enough room.
pub(crate) fn decompress_to(compressed: &[u8], buffer: &mut [u8]) -> io::Result<usize> {
    with_decompressor(|decompressor| {
        let done = decompressor.decompress(buffer, compressed);
        done.map_err(of_zstd)
    })
}

/// Hands the content to `read` while it is decompressed. `read` must not decompress anything else.
pub(crate) fn decompress_through<T>(
    compressed: &[u8],
    read: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<T> {
    with_decompressor(|decompressor| {
        read(&mut zstd::Decoder::with_context(compressed, decompressor))
    })
}

fn with_decompressor<T>(work: impl FnOnce(&mut DCtx<'static>) -> io::Result<T>) -> io::Result<T> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        // An earlier text may have ended too soon.
        decompressor
            .reset(ResetDirective::SessionOnly)
            .map_err(of_zstd)?;
        work(decompressor)
    })
}

fn of_zstd(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_was_cut_does_not_harm_the_next() {
        let text = b"some text ".repeat(1000);
        let sound = zstd::encode_all(&*text, 1).unwrap();
        let all = |compressed: &[u8]| {
            decompress_through(compressed, |content| {
                let mut read = Vec::new();
                content.read_to_end(&mut read).map(|_| read)
            })
        };
        let mut buffer = vec![0; text.len()];
        for cut in [0, 1, 5, 12, sound.len() - 1] {
            let cut = &sound[..cut];
            assert!(decompress_to(cut, &mut buffer).map_or(true, |bytes| bytes == 0));
            assert!(all(cut).map_or(true, |read| read != text));
            assert_eq!(decompress_to(&sound, &mut buffer).unwrap(), text.len());
            assert_eq!(buffer, text);
            assert_eq!(all(&sound).unwrap(), text);
            buffer.fill(0);
        }
        assert!(decompress_to(&sound, &mut [0; 10]).is_err());
    }
}
