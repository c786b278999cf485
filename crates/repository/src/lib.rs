//! The snapshot repository.
pub mod error;
pub mod id;
pub mod store;
