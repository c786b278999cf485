//! Errors of the repository.

/// The result of repository operations.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong. The owner of this crate fills it in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user asked to stop.
    #[error("interrupted; what was stored so far will be reused by the next run")]
    Interrupted,
}
