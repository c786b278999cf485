//! Where a borg repository is, as the user writes it.
//!
//! `borg:` and what borg itself takes: a path, `USER@HOST:PATH` or `ssh://USER@HOST:PORT/PATH`. None of
//! them can hold a password.

use std::fmt;
use std::path::PathBuf;

use url::Url;
use vrs_repository::{Error, Result};

const SCHEME: &str = "borg:";

/// The place of a borg repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BorgLocation {
    /// As borg takes it.
    text: String,
    server: Option<Server>,
}

/// A host that is reached with `ssh`, and where the repository is for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) user: Option<String>,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// Absolute, or below the user's home folder.
    pub(crate) path: String,
}

impl BorgLocation {
    /// Understands `borg:PATH`, `borg:USER@HOST:PATH` and `borg:ssh://USER@HOST:PORT/PATH`. None: it is the
    /// location of another kind of repository.
    pub fn parse(text: &str) -> Option<Result<Self>> {
        let rest = text.strip_prefix(SCHEME)?;
        Some(parse(rest).map_err(|reason| Error::InvalidLocation {
            location: text.to_owned(),
            reason,
        }))
    }

    /// The same from every folder.
    #[must_use]
    pub fn absolute(self) -> Self {
        if self.server.is_some() {
            return self;
        }
        let path = PathBuf::from(&self.text);
        let absolute = std::path::absolute(&path).unwrap_or(path);
        Self {
            text: absolute.display().to_string(),
            server: None,
        }
    }

    pub(crate) const fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// For borg's command line, where braces mean something.
    pub(crate) fn argument(&self) -> String {
        self.text.replace('{', "{{").replace('}', "}}")
    }

    pub(crate) fn archive_argument(&self, archive: &str) -> String {
        format!(
            "{}::{}",
            self.argument(),
            archive.replace('{', "{{").replace('}', "}}")
        )
    }
}

impl fmt::Display for BorgLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}", self.text)
    }
}

fn parse(text: &str) -> std::result::Result<BorgLocation, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.contains("::") {
        return Err("it names an archive; give the repository alone");
    }
    if text.chars().any(char::is_control) {
        return Err("it holds a control character");
    }
    let server = if text.starts_with("ssh://") {
        Some(server_of_url(text)?)
    } else {
        server_of_login(text)?
    };
    let is_option = |text: &str| text.is_empty() || text.starts_with('-');
    if let Some(server) = &server {
        // `ssh` would take them for options.
        if is_option(&server.host) || server.user.as_deref().is_some_and(is_option) {
            return Err("it names no host");
        }
        if server.path.is_empty() {
            return Err("it names no path");
        }
    } else if text.starts_with('-') {
        return Err("it begins like an option; put './' before it");
    }
    Ok(BorgLocation {
        text: text.to_owned(),
        server,
    })
}

/// `ssh://host/path` is absolute; `/./` and `/~/` before a path make it one below the home folder.
fn server_of_url(text: &str) -> std::result::Result<Server, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is no URL")?;
    if url.password().is_some() {
        return Err("it holds a password, which ssh does not take; use a key");
    }
    // The parser of URLs resolves the dots that borg gives a meaning.
    let after_scheme = text.strip_prefix("ssh://").unwrap_or_default();
    let path = after_scheme
        .find('/')
        .and_then(|slash| after_scheme.get(slash..))
        .unwrap_or_default();
    Ok(Server {
        user: Some(url.username().to_owned()).filter(|user| !user.is_empty()),
        host: url
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned(),
        port: url.port(),
        path: below_home(path.strip_prefix("/./").unwrap_or(path)),
    })
}

fn server_of_login(text: &str) -> std::result::Result<Option<Server>, &'static str> {
    let Some((login, path)) = text.split_once(':') else {
        return Ok(None);
    };
    if login.contains('/') {
        return Ok(None);
    }
    let (user, host) = match login.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, login),
    };
    if host.starts_with('[') {
        return Err("an address in brackets needs the form ssh://USER@[ADDRESS]/PATH");
    }
    Ok(Some(Server {
        user,
        host: host.to_owned(),
        port: None,
        path: below_home(path),
    }))
}

fn below_home(path: &str) -> String {
    let path = path.strip_prefix("/~/").unwrap_or(path);
    path.strip_prefix("~/").unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Option<(Option<String>, String, Option<u16>, String)> {
        let server = BorgLocation::parse(text).unwrap().unwrap().server?;
        Some((server.user, server.host, server.port, server.path))
    }

    #[test]
    fn locations_are_borgs_own() {
        assert_eq!(server("borg:/srv/borg"), None);
        assert_eq!(server("borg:./a:b"), None);
        let me = || Some("me".to_owned());
        let of = |user, port, path: &str| Some((user, "nas".to_owned(), port, path.to_owned()));
        assert_eq!(server("borg:me@nas:/srv/x"), of(me(), None, "/srv/x"));
        assert_eq!(server("borg:nas:x"), of(None, None, "x"));
        assert_eq!(server("borg:nas:~/x"), of(None, None, "x"));
        let url = "borg:ssh://me@nas:2222/srv/x";
        assert_eq!(server(url), of(me(), Some(2222), "/srv/x"));
        assert_eq!(server("borg:ssh://nas/./x"), of(None, None, "x"));
        assert_eq!(server("borg:ssh://nas/~/x"), of(None, None, "x"));
        let parsed = BorgLocation::parse(url).unwrap().unwrap();
        assert_eq!(parsed.to_string(), url);
        assert_eq!(BorgLocation::parse("/srv/borg").map(|_| ()), None);
    }

    #[test]
    fn what_cannot_be_one_is_refused() {
        for text in [
            "borg:",
            "borg:-x",
            "borg:-oProxyCommand=x:/srv",
            "borg:-l@nas:/srv",
            "borg:nas:",
            "borg:/srv::archive",
            "borg:ssh://nas",
            "borg:ssh://me:hunter2@nas/srv",
        ] {
            assert!(BorgLocation::parse(text).unwrap().is_err(), "{text}");
        }
    }

    #[test]
    fn braces_are_not_placeholders() {
        let location = BorgLocation::parse("borg:/srv/{hostname}")
            .unwrap()
            .unwrap();
        assert_eq!(location.archive_argument("a"), "/srv/{{hostname}}::a");
    }
}
