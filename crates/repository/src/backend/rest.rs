//! restic's REST protocol (its document "REST Backend"), as `rest-server` and `rclone` serve it.
//!
//! That an object appears complete or not at all is up to the server: `rest-server` renames complete
//! ones, and `rclone` removes what it could not receive completely.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use ureq::http::Method;
use url::Url;

use super::http::{Answer, Http, Request};
use super::limit::Limits;
use super::rclone::Server;
use super::storage::{
    Failure, FailureKind, Ground, Kind, Listed, NO_ID, Object, Outcome, Part, Storage, listed,
};
use crate::access::Access;
use crate::location::RestPlace;

/// The version of the protocol in which lists have sizes.
const VERSION_2: &str = "application/vnd.x.restic.rest.v2";

/// See the module.
pub(super) struct Rest {
    http: Http,
    /// Without a login, ending with a slash.
    url: Url,
    authorization: Option<String>,
    /// Of this repository only.
    _server: Option<Server>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    size: u64,
}

impl Rest {
    pub(super) fn new(place: &RestPlace, access: &Access, limits: Arc<Limits>) -> Outcome<Self> {
        let mut url = place.url.clone();
        let user = percent_encoding::percent_decode_str(url.username())
            .decode_utf8_lossy()
            .into_owned();
        // Cannot fail for a URL with a host.
        let _ = url.set_username("");
        let elsewhere = access.rest_login.as_ref();
        let login = match (&place.password, elsewhere) {
            (Some(password), _) => Some((user, password)),
            (None, Some((other, password))) if user.is_empty() || user == *other => {
                Some((other.clone(), password))
            }
            _ => None,
        };
        let authorization = login.map(|(user, password)| {
            let pair = format!("{user}:{}", password.expose());
            format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair))
        });
        Ok(Self {
            http: Http::new(access, limits)?,
            url,
            authorization,
            _server: None,
        })
    }

    /// Serves a remote of rclone for as long as it is used.
    pub(super) fn of_rclone(remote: &str, access: &Access, limits: Arc<Limits>) -> Outcome<Self> {
        let (server, place) = Server::start(remote, access)?;
        Ok(Self {
            _server: Some(server),
            ..Self::new(&place, access, limits)?
        })
    }

    fn send(&self, method: Method, path: &str, extra: Extra<'_>) -> Outcome<Answer> {
        let mut headers = extra.headers;
        let authorization = self.authorization.clone();
        headers.extend(authorization.map(|value| ("Authorization", value)));
        self.http.send(&Request {
            method,
            url: &format!("{}{path}", self.url),
            headers: &headers,
            content: extra.content,
        })
    }

    /// The size of an object that is there.
    fn size_bytes(&self, path: &str) -> Outcome<Option<u64>> {
        let answer = self.send(Method::HEAD, path, Extra::default())?;
        match answer.status {
            404 => Ok(None),
            _ => Ok(Some(answer.accepted()?.size_bytes.unwrap_or(0))),
        }
    }
}

/// What some requests have beside method and path.
#[derive(Default)]
struct Extra<'a> {
    headers: Vec<(&'static str, String)>,
    content: &'a [Bytes],
}

impl Extra<'_> {
    fn header(name: &'static str, value: impl Into<String>) -> Self {
        Self {
            headers: vec![(name, value.into())],
            content: &[],
        }
    }
}

/// Packs lie in one folder here; which one is the server's business.
fn path(object: Object) -> String {
    if object.kind.is_config() {
        object.path()
    } else {
        format!("{}/{}", object.kind.folder(), object.id.to_hex().as_str())
    }
}

impl Storage for Rest {
    /// The protocol shows only what belongs to a repository.
    fn ground(&self) -> Outcome<Ground> {
        Ok(Ground::Usable)
    }

    fn create(&self) -> Outcome<()> {
        self.send(Method::POST, "?create=true", Extra::default())?
            .accepted()
            .map(drop)
    }

    fn list(&self, kind: Kind) -> Outcome<Vec<Listed>> {
        if kind.is_config() {
            let size_bytes = self.size_bytes(kind.folder())?;
            let config = |bytes| (NO_ID, u32::try_from(bytes).unwrap_or(u32::MAX));
            return Ok(size_bytes.map(config).into_iter().collect());
        }
        let path = format!("{}/", kind.folder());
        let answer = self.send(Method::GET, &path, Extra::header("Accept", VERSION_2))?;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        // An empty list is `null` for some servers.
        let entries: Option<Vec<Entry>> = serde_json::from_slice(&answer.accepted()?.content)
            .map_err(|error| {
                let text = format!("the server gave no list of objects: {error}");
                Failure::new(FailureKind::Other, text)
            })?;
        let entries = entries.unwrap_or_default().into_iter();
        Ok(entries
            .filter_map(|entry| listed(&entry.name, entry.size))
            .collect())
    }

    fn read(&self, object: Object, part: Option<Part>) -> Outcome<Bytes> {
        let extra = part.map_or_else(Extra::default, |part| Extra::header("Range", range(part)));
        let answer = self.send(Method::GET, &path(object), extra)?.accepted()?;
        whole_part(answer, part)
    }

    fn write(&self, object: Object, content: &[Bytes]) -> Outcome<()> {
        let path = path(object);
        let size_bytes: usize = content.iter().map(Bytes::len).sum();
        let extra = Extra {
            headers: vec![("Content-Type", "application/octet-stream".to_owned())],
            content,
        };
        let sent = self.send(Method::POST, &path, extra)?.accepted().map(drop);
        match sent {
            // A server that only appends refuses what an attempt before this one stored.
            Err(refused) if refused.kind == FailureKind::NotPermitted => {
                match self.size_bytes(&path) {
                    Ok(Some(present)) if present == size_bytes as u64 => Ok(()),
                    _ => Err(refused),
                }
            }
            sent => sent,
        }
    }

    fn remove(&self, object: Object) -> Outcome<()> {
        self.send(Method::DELETE, &path(object), Extra::default())?
            .accepted()
            .map(drop)
    }
}

/// The header's value for a part of an object.
pub(super) fn range(part: Part) -> String {
    format!("bytes={}-{}", part.offset, part.end().saturating_sub(1))
}

/// The wanted part of an answer, which may be longer when a server ignores ranges.
pub(super) fn whole_part(answer: Answer, part: Option<Part>) -> Outcome<Bytes> {
    let Some(part) = part else {
        return Ok(answer.content);
    };
    let from = if answer.status == 206 {
        0
    } else {
        part.offset as usize
    };
    let to = from.saturating_add(part.length_bytes as usize);
    if to <= answer.content.len() {
        return Ok(answer.content.slice(from..to));
    }
    Err(Failure::new(FailureKind::TooShort, "it ends too early"))
}
