//! The password of a repository.

use secrecy::{ExposeSecret, SecretString};

/// A password. It cannot be printed, and its memory is cleared when it is dropped.
#[derive(Clone)]
pub struct Password(SecretString);

impl Password {
    /// Takes over a password.
    #[must_use]
    pub fn new(password: String) -> Self {
        Self(password.into())
    }

    /// The password as text, for whoever has to hand it on.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Password(***)")
    }
}
