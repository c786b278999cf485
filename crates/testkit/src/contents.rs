//! Contents for files and disks that look like nothing else, the same for the same seed on every
//! run.

/// `length_bytes` of pseudo-random, incompressible contents.
#[must_use]
pub fn random_bytes(seed: u64, length_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; length_bytes];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// The SHA-256 of `bytes`, in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
