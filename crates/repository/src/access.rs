//! What is needed to reach storage elsewhere, beside its location.
//!
//! This crate reads neither the environment nor files of credentials: whoever opens a repository
//! says what there is. Secrets are [`Password`]s, which cannot be printed.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use crate::password::Password;

/// See the module.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Access {
    /// Who one is to an S3 server.
    pub s3_key: Option<S3Key>,
    /// The region of the bucket, where its server has several.
    pub s3_region: Option<String>,
    /// User and password for a REST server whose location has none.
    pub rest_login: Option<(String, Password)>,
    /// The program `ssh`, and arguments that come before vrs's own.
    pub ssh: Vec<String>,
    /// The program `rclone`, and arguments that come before vrs's own.
    pub rclone: Vec<String>,
    /// Certificates to trust, in PEM, instead of the usual ones.
    pub certificates: Option<PathBuf>,
    /// Most KiB that are sent in a second.
    pub upload_kib_per_second: Option<NonZeroU32>,
    /// Most KiB that are received in a second.
    pub download_kib_per_second: Option<NonZeroU32>,
    /// Requests that are under way at the same time.
    pub connections: usize,
    /// Whether waiting for a server that does not answer is given up.
    pub interrupted: Interrupted,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            s3_key: None,
            s3_region: None,
            rest_login: None,
            ssh: vec!["ssh".to_owned()],
            rclone: vec!["rclone".to_owned()],
            certificates: None,
            upload_kib_per_second: None,
            download_kib_per_second: None,
            connections: 5,
            interrupted: Interrupted::default(),
        }
    }
}

/// A key to an S3 server.
#[derive(Debug, Clone)]
pub struct S3Key {
    /// Its name, not secret.
    pub id: String,
    /// The key.
    pub secret: Password,
    /// Comes with keys that are valid for some hours only.
    pub session_token: Option<Password>,
}

/// Says whether the user asked to stop.
#[derive(Clone)]
pub struct Interrupted(Arc<dyn Fn() -> bool + Send + Sync>);

impl Interrupted {
    /// Asks `is_set` again and again.
    pub fn new(is_set: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_set))
    }

    /// Whether the user did.
    #[must_use]
    pub fn is_set(&self) -> bool {
        (self.0)()
    }
}

impl Default for Interrupted {
    fn default() -> Self {
        Self::new(|| false)
    }
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Interrupted")
    }
}
