//! Where a repository is, as the user writes it.
//!
//! The syntax is restic's (its manual, "Preparing a new repository"). A [`Location`] is checked when
//! it is parsed: what this version cannot reach is an error there and not a folder with a strange
//! name later. A password in a location is used and never shown again: [`fmt::Display`] and
//! [`fmt::Debug`] leave it out, and what they give can be parsed.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use crate::error::{Error, Result};
use crate::password::Password;

/// Schemes of restic and its relatives that are not folders and not known here.
const FOREIGN_SCHEMES: [&str; 9] = [
    "azure", "b2", "gs", "http", "https", "opendal", "ssh", "swift", "webdav",
];

/// The place of a repository.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    pub(crate) place: Place,
}

/// What a [`Location`] names.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Folder(PathBuf),
    Sftp(SftpPlace),
    S3(S3Place),
    Rest(RestPlace),
    /// A remote of rclone and a path in it, as rclone writes them.
    Rclone(String),
}

/// A folder on a host that is reached with `ssh`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SftpPlace {
    pub(crate) user: Option<String>,
    /// Without the brackets of an address.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// Not starting with `/`: below the user's home folder.
    pub(crate) path: String,
}

/// A part of a bucket.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct S3Place {
    pub(crate) endpoint: Url,
    pub(crate) bucket: String,
    /// Empty, or without a slash at either end.
    pub(crate) prefix: String,
}

/// A server that speaks restic's REST protocol.
#[derive(Clone)]
pub(crate) struct RestPlace {
    /// With the user, without the password, ending with `/`.
    pub(crate) url: Url,
    pub(crate) password: Option<Password>,
}

impl PartialEq for RestPlace {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

impl Eq for RestPlace {}

impl Location {
    /// Understands `PATH` and `local:PATH`, `sftp:USER@HOST:PATH` and `sftp://USER@HOST:PORT/PATH`,
    /// `s3:URL/BUCKET/PREFIX`, `rest:URL` and `rclone:REMOTE:PATH`.
    pub fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
        let place = match scheme {
            "local" => folder(rest),
            "sftp" => sftp(rest).map(Place::Sftp),
            "s3" => s3(rest).map(Place::S3),
            "rest" => rest_server(rest).map(Place::Rest),
            "rclone" => rclone(rest),
            _ if FOREIGN_SCHEMES.contains(&scheme) => {
                return Err(Error::UnsupportedLocation {
                    // What follows the scheme may hold a password.
                    location: format!("{scheme}:..."),
                    scheme: scheme.to_owned(),
                });
            }
            _ => folder(text),
        };
        place
            .map(|place| Self { place })
            .map_err(|reason| Error::InvalidLocation {
                location: if is_elsewhere(scheme) {
                    format!("{scheme}:...")
                } else {
                    text.to_owned()
                },
                reason,
            })
    }

    /// The host of a REST server that wants a login which the location does not hold.
    #[must_use]
    pub fn login_host(&self) -> Option<&str> {
        match &self.place {
            Place::Rest(place) if place.password.is_none() => place.url.host_str(),
            _ => None,
        }
    }

    /// The folder, of a repository on this host.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            _ => None,
        }
    }
}

/// Whether a folder of this name would be taken for something else.
fn has_scheme(folder: &str) -> bool {
    folder.split_once(':').is_some_and(|(scheme, _)| {
        scheme == "local" || is_elsewhere(scheme) || FOREIGN_SCHEMES.contains(&scheme)
    })
}

fn is_elsewhere(scheme: &str) -> bool {
    matches!(scheme, "sftp" | "s3" | "rest" | "rclone")
}

type Parsed<T> = std::result::Result<T, &'static str>;

fn require_text(text: &str) -> Parsed<&str> {
    match text {
        "" => Err("it is empty"),
        _ if text.contains('\0') => Err("it holds a null character"),
        _ => Ok(text),
    }
}

fn folder(text: &str) -> Parsed<Place> {
    require_text(text).map(|path| Place::Folder(PathBuf::from(path)))
}

fn sftp(text: &str) -> Parsed<SftpPlace> {
    let place = if text.starts_with("//") {
        sftp_url(text)?
    } else {
        let (login, path) = text
            .split_once("]:")
            .filter(|(login, _)| login.rsplit('@').next().is_some_and(is_bracket_open))
            .map(|(login, path)| (format!("{login}]"), path))
            .or_else(|| {
                let (login, path) = text.split_once(':')?;
                Some((login.to_owned(), path))
            })
            .ok_or("it has no ':' between host and path")?;
        if seems_to_hold_password(path) {
            return Err("it seems to hold a password, which ssh does not take; use a key");
        }
        let (user, host) = match login.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, login.as_str()),
        };
        SftpPlace {
            user,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: None,
            path: path.to_owned(),
        }
    };
    // `ssh` would take them for options.
    let is_option = |text: &str| text.starts_with('-');
    let is_name = |text: &str, no_part: &[char]| {
        !text.is_empty() && !is_option(text) && !text.contains(no_part)
    };
    if !is_name(&place.host, &['/', '[', ']']) {
        return Err("it names no host");
    }
    if !place
        .user
        .as_deref()
        .is_none_or(|user| is_name(user, &['/', ':']))
    {
        return Err("its user is no name");
    }
    require_text(&place.path)?;
    Ok(place)
}

fn is_bracket_open(host: &str) -> bool {
    host.starts_with('[')
}

/// Whether what follows the first colon may be the rest of `USER:PASSWORD@HOST:PATH`.
fn seems_to_hold_password(path: &str) -> bool {
    path.split_once('@')
        .is_some_and(|(_, rest)| rest.contains(':'))
}

/// After the host one slash divides, so an absolute path begins with two, as for restic.
fn sftp_url(text: &str) -> Parsed<SftpPlace> {
    let url = Url::parse(&format!("sftp:{text}")).map_err(|_| "it is no URL")?;
    if url.password().is_some() {
        return Err("it holds a password, which ssh does not take; use a key");
    }
    let user = Some(url.username()).filter(|user| !user.is_empty());
    let path = url.path();
    Ok(SftpPlace {
        user: user.map(from_url).transpose()?,
        host: url
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned(),
        port: url.port(),
        path: from_url(path.strip_prefix('/').unwrap_or(path))?,
    })
}

fn s3(text: &str) -> Parsed<S3Place> {
    let is_url = text.starts_with("http://") || text.starts_with("https://");
    let whole = if is_url {
        text.to_owned()
    } else {
        // It is no URL, so nothing in it is escaped.
        let text = text.trim_start_matches('/');
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        format!("https://{host}/{}", in_url(path))
    };
    let mut endpoint = Url::parse(&whole).map_err(|_| "it is no URL")?;
    if has_login(&endpoint) {
        return Err("it holds a login; keys come from AWS_ACCESS_KEY_ID or the shared profile");
    }
    let path = from_url(endpoint.path())?;
    let (bucket, prefix) = {
        let path = path.trim_matches('/');
        path.split_once('/').unwrap_or((path, ""))
    };
    if bucket.is_empty() {
        return Err("it names no bucket");
    }
    if has_steps(&path) {
        return Err("it has '.' or '..' in its path, which a bucket does not know");
    }
    endpoint.set_path("");
    endpoint.set_query(None);
    endpoint.set_fragment(None);
    Ok(S3Place {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        endpoint,
    })
}

fn has_login(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn rest_server(text: &str) -> Parsed<RestPlace> {
    let mut url = Url::parse(text).map_err(|_| "it is no URL")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("it is no http or https URL");
    }
    let password = url.password().map(from_url).transpose()?;
    // Cannot fail for a URL with a host.
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(RestPlace {
        url,
        password: password.map(Password::new),
    })
}

fn rclone(text: &str) -> Parsed<Place> {
    require_text(text)?;
    match text.split_once(':') {
        _ if text.starts_with('-') => Err("it begins like an option of rclone"),
        None => Err("it has no ':' between remote and path"),
        Some(_) => Ok(Place::Rclone(text.to_owned())),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Folder(folder) => {
                let folder = folder.display().to_string();
                let prefix = if has_scheme(&folder) { "local:" } else { "" };
                write!(formatter, "{prefix}{folder}")
            }
            Place::Sftp(place) => place.fmt(formatter),
            Place::S3(place) => place.fmt(formatter),
            Place::Rest(place) => write!(formatter, "rest:{}", place.url),
            // rclone's connection strings, as in `:sftp,pass=...:path`, may hold secrets.
            Place::Rclone(remote) => {
                let (options, path) = remote.rsplit_once(':').unwrap_or((remote, ""));
                let name = options.split(',').next().unwrap_or_default();
                write!(formatter, "rclone:{name}:{path}")
            }
        }
    }
}

impl fmt::Display for SftpPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user,
            host,
            port,
            path,
        } = self;
        let login = user
            .as_ref()
            .map(|user| format!("{user}@"))
            .unwrap_or_default();
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let port = port.map(|port| format!(":{port}"));
        if port.is_none() && !seems_to_hold_password(path) {
            return write!(formatter, "sftp:{login}{host}:{path}");
        }
        let (login, path) = (in_url(&login), in_url(path));
        let port = port.unwrap_or_default();
        write!(formatter, "sftp://{login}{host}{port}/{path}")
    }
}

/// A path as it stands in a URL, with what would mean something else there escaped.
///
/// A URL takes steps to the folder above at once, escaped or not (WHATWG's URL standard, "double-dot
/// URL path segment"): where a path has some, its slashes are escaped, so that it is one name there.
fn in_url(path: &str) -> String {
    let has_steps = has_steps(path);
    let mut text = String::with_capacity(path.len());
    for letter in path.chars() {
        let means_more = matches!(letter, '%' | '?' | '#' | '\\' | ' ')
            || letter.is_ascii_control()
            || (letter == '/' && has_steps);
        match u8::try_from(letter) {
            Ok(byte) if means_more => text.push_str(percent_encoding::percent_encode_byte(byte)),
            _ => text.push(letter),
        }
    }
    text
}

fn from_url(part: &str) -> Parsed<String> {
    percent_encoding::percent_decode_str(part)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| "it is not valid Unicode")
}

fn has_steps(path: &str) -> bool {
    path.split('/').any(|name| matches!(name, "." | ".."))
}

impl fmt::Display for S3Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s3:{}{}", self.endpoint, in_url(&self.bucket))?;
        if self.prefix.is_empty() {
            Ok(())
        } else {
            write!(formatter, "/{}", in_url(&self.prefix))
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Location({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Location::parse(text).unwrap().to_string()
    }

    fn refused(text: &str) -> String {
        Location::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn folders_with_odd_names_are_folders() {
        for (text, folder) in [
            ("/srv/repo", "/srv/repo"),
            ("local:/srv/repo", "/srv/repo"),
            ("local:sftp:x", "sftp:x"),
            ("my: folder", "my: folder"),
            ("-dash", "-dash"),
            (r"C:\repo", r"C:\repo"),
        ] {
            assert_eq!(
                Location::parse(text).unwrap().folder(),
                Some(Path::new(folder)),
                "{text}"
            );
        }
    }

    #[test]
    fn locations_elsewhere_are_understood_as_restic_writes_them() {
        for (text, canonical) in [
            ("sftp:me@host:/srv/repo", "sftp:me@host:/srv/repo"),
            ("sftp:host:repo", "sftp:host:repo"),
            ("sftp:me@[::1]:/srv", "sftp:me@[::1]:/srv"),
            (
                "sftp://me@host:2222//srv/repo",
                "sftp://me@host:2222//srv/repo",
            ),
            ("sftp://me@[::1]:2222/repo", "sftp://me@[::1]:2222/repo"),
            ("sftp://host//srv/a%20b", "sftp:host:/srv/a b"),
            (
                "s3:s3.amazonaws.com/bucket",
                "s3:https://s3.amazonaws.com/bucket",
            ),
            (
                "s3:http://localhost:9000/bucket/a/b/",
                "s3:http://localhost:9000/bucket/a/b",
            ),
            (
                "s3:host/bucket/100% of a",
                "s3:https://host/bucket/100%25%20of%20a",
            ),
            ("rest:http://host:8000/me", "rest:http://host:8000/me/"),
            ("rest:https://me:hunter2@host/", "rest:https://me@host/"),
            ("rclone:b2prod:yggdrasil/foo", "rclone:b2prod:yggdrasil/foo"),
            ("rclone::sftp,pass=hunter2:/x", "rclone::sftp:/x"),
        ] {
            assert_eq!(shown(text), canonical, "{text}");
        }
        for text in [
            "local:sftp:host:/srv",
            "local:local:x",
            "local:b2:x",
            "sftp:me@[::1]:/srv",
            "sftp://me@host:2222//srv/repo",
            "sftp://me@host:2222//srv/100%2525%3Fa%23",
            "sftp://me@host//me@nas:22/repo",
            "sftp://host/u:p@nas:22%2f..%2Frepo",
            "sftp://me@host:2222/a%2F..%2fb",
            "sftp://a%2541%3f@host:2222/a%0a%5C%20",
            "s3:http://localhost:9000/bucket/100%2525%20%3F",
            "rest:https://me@host/",
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(Location::parse(&location.to_string()).unwrap(), location);
        }
    }

    #[test]
    fn passwords_are_kept_and_not_shown() {
        let location = Location::parse("rest:https://me:hunter%202@host/").unwrap();
        let Place::Rest(place) = &location.place else {
            panic!("{location}");
        };
        assert_eq!(place.password.as_ref().unwrap().expose(), "hunter 2");
        assert!(!format!("{location:?} {location}").contains("hunter"));
    }

    #[test]
    fn what_cannot_be_reached_is_refused_without_repeating_a_secret() {
        insta::assert_snapshot!(refused("b2:me:hunter2"), @r#"repositories at "b2:..." are not supported: the scheme "b2" is unknown here; use PATH, sftp:USER@HOST:PATH, s3:URL/BUCKET, rest:URL, rclone:REMOTE:PATH or borg:PATH"#);
        insta::assert_snapshot!(refused("local:"), @r#""local:" is not a repository location: it is empty; give PATH, sftp:USER@HOST:PATH, s3:URL/BUCKET, rest:URL, rclone:REMOTE:PATH or borg:PATH"#);
        insta::assert_snapshot!(refused("sftp://me:hunter2@host//srv"), @r#""sftp:..." is not a repository location: it holds a password, which ssh does not take; use a key; give PATH, sftp:USER@HOST:PATH, s3:URL/BUCKET, rest:URL, rclone:REMOTE:PATH or borg:PATH"#);
        insta::assert_snapshot!(refused("s3:https://me:hunter2@host/bucket"), @r#""s3:..." is not a repository location: it holds a login; keys come from AWS_ACCESS_KEY_ID or the shared profile; give PATH, sftp:USER@HOST:PATH, s3:URL/BUCKET, rest:URL, rclone:REMOTE:PATH or borg:PATH"#);
        for text in [
            "sftp:host",
            "sftp::/srv",
            "sftp:-oProxyCommand=x:/srv",
            "sftp:-l@host:/srv",
            "sftp:host:",
            "sftp://",
            "s3:host",
            "s3:",
            "s3:host/bucket/../other",
            "s3:https://host/bucket/a%2f..",
            "rest:host",
            "rest:ftp://host/",
            "rclone:remote",
            "rclone:-x:y",
            "rclone:",
        ] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }
}
