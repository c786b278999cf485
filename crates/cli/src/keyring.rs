//! The system's keyring: Keychain on macOS, Credential Manager on Windows, the kernel's keyring on
//! Linux (which keeps what it is given until the computer restarts).
//!
//! A keyring that is not there or does not answer is the same as an empty one: the user is asked
//! for the password then.

use keyring_core::Entry;
use secrecy::{ExposeSecret, SecretString};

const SERVICE: &str = "vrs";

/// The password of the repository at `location`, if it was saved.
pub fn load(location: &str) -> Option<SecretString> {
    let password = entry(location).ok()?.get_password().ok()?;
    Some(password.into())
}

/// Keeps the password of the repository at `location`. The error is a reason for people.
pub fn save(location: &str, password: &SecretString) -> Result<(), String> {
    let saved = entry(location).and_then(|entry| entry.set_password(password.expose_secret()));
    saved.map_err(|error| error.to_string())
}

fn entry(location: &str) -> keyring_core::Result<Entry> {
    if keyring_core::get_default_store().is_none() {
        keyring_core::set_default_store(store()?);
    }
    Entry::new(SERVICE, location)
}

#[cfg(target_os = "linux")]
fn store() -> keyring_core::Result<std::sync::Arc<keyring_core::CredentialStore>> {
    Ok(linux_keyutils_keyring_store::Store::new()?)
}

#[cfg(target_os = "macos")]
fn store() -> keyring_core::Result<std::sync::Arc<keyring_core::CredentialStore>> {
    Ok(apple_native_keyring_store::keychain::Store::new()?)
}

#[cfg(target_os = "windows")]
fn store() -> keyring_core::Result<std::sync::Arc<keyring_core::CredentialStore>> {
    Ok(windows_native_keyring_store::Store::new()?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "windows")))]
fn store() -> keyring_core::Result<std::sync::Arc<keyring_core::CredentialStore>> {
    Err(keyring_core::Error::NoDefaultStore)
}
