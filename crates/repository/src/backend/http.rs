//! Requests over HTTP, within the limits, and what their failures mean.
//!
//! No error holds an address: signed ones open the storage to whoever reads them.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ureq::http::{self, Method};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, SendBody};

use super::limit::Limits;
use super::storage::{Failure, FailureKind, LARGEST_OBJECT_BYTES, Outcome};
use crate::access::Access;

/// A server that shows no sign of life for so long is not there any more.
const SILENCE: Duration = Duration::from_secs(120);
const CONNECTING: Duration = Duration::from_secs(30);

/// Longest text of a server that is shown.
const LONGEST_TEXT: usize = 500;

/// Sends requests.
pub(super) struct Http {
    agent: Agent,
    limits: Arc<Limits>,
}

/// One request.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) headers: &'a [(&'static str, String)],
    pub(super) content: &'a [Bytes],
}

/// What a server answered.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Of the content, also where only the head was asked for.
    pub(super) size_bytes: Option<u64>,
    pub(super) content: Bytes,
}

impl Http {
    pub(super) fn new(access: &Access, limits: Arc<Limits>) -> Outcome<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(file) = &access.certificates {
            tls = tls.root_certs(certificates(file)?);
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("vrs/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECTING))
            .timeout_connect(Some(CONNECTING))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .max_idle_connections_per_host(access.connections)
            .max_idle_connections(access.connections)
            .tls_config(tls.build());
        Ok(Self {
            agent: config.build().into(),
            limits,
        })
    }

    /// Sends a request and receives the whole answer, whatever its status.
    pub(super) fn send(&self, request: &Request<'_>) -> Outcome<Answer> {
        let mut head = http::Request::builder()
            .method(request.method.clone())
            .uri(request.url);
        for (name, value) in request.headers {
            head = head.header(*name, value);
        }
        let invalid = |_| Failure::new(FailureKind::Other, "the address is not valid");
        let sent = if matches!(request.method, Method::PUT | Method::POST) {
            let size_bytes: usize = request.content.iter().map(Bytes::len).sum();
            let mut body = Slowly {
                limits: &self.limits,
                part: &[],
                rest: request.content.iter(),
            };
            let head = head.header("Content-Length", size_bytes.to_string());
            let request = head
                .body(SendBody::from_reader(&mut body))
                .map_err(invalid)?;
            self.agent.run(request)
        } else {
            self.agent.run(head.body(()).map_err(invalid)?)
        };
        self.receive(sent.map_err(|error| failure(&error))?)
    }

    fn receive(&self, response: http::Response<ureq::Body>) -> Outcome<Answer> {
        let status = response.status().as_u16();
        let length = response.headers().get("content-length");
        let size_bytes = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let mut reader = response.into_body().into_reader();
        let mut content = Vec::new();
        let mut piece = vec![0; self.limits.download.piece_bytes()];
        loop {
            let count = reader.read(&mut piece).map_err(lost)?;
            if count == 0 {
                break;
            }
            content.extend_from_slice(piece.get(..count).unwrap_or_default());
            if content.len() as u64 > LARGEST_OBJECT_BYTES {
                return Err(Failure::new(FailureKind::Other, "the answer does not end"));
            }
            self.limits.download.wait(count);
        }
        Ok(Answer {
            status,
            size_bytes,
            content: content.into(),
        })
    }
}

fn certificates(file: &Path) -> Outcome<RootCerts> {
    let invalid = |reason: String| {
        let text = format!("{} holds no usable certificates: {reason}", file.display());
        Failure::new(FailureKind::Other, text)
    };
    let text = std::fs::read(file).map_err(|error| invalid(error.to_string()))?;
    let found: Vec<Certificate<'static>> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(invalid("there is none in it".to_owned()));
    }
    Ok(RootCerts::Specific(Arc::new(found)))
}

impl Answer {
    /// The answer, if its status says that all went well.
    pub(super) fn accepted(self) -> Outcome<Self> {
        if (200..300).contains(&self.status) {
            Ok(self)
        } else {
            Err(self.refusal())
        }
    }

    /// What an answer that is none means.
    pub(super) fn refusal(&self) -> Failure {
        let text = self.text();
        let is_full = [
            "no space left",
            "QuotaExceeded",
            "StorageFull",
            "EntityTooLarge",
        ]
        .iter()
        .any(|sign| text.contains(sign));
        let kind = match self.status {
            413 | 507 => FailureKind::Full,
            _ if is_full => FailureKind::Full,
            401 => FailureKind::LoginRefused,
            403 | 405 => FailureKind::NotPermitted,
            404 => FailureKind::Missing,
            416 => FailureKind::TooShort,
            408 | 425 | 429 | 500..=599 => FailureKind::Unwell,
            _ => FailureKind::Other,
        };
        let text = match text.as_str() {
            "" => format!("the server answered with status {}", self.status),
            text => format!("the server answered with status {}: {text}", self.status),
        };
        Failure::new(kind, text)
    }

    /// The beginning of what the server said, on one line.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.content);
        let words: Vec<&str> = text.split_whitespace().collect();
        words
            .join(" ")
            .chars()
            .filter(|character| !character.is_control())
            .take(LONGEST_TEXT)
            .collect()
    }
}

/// Content that is read no faster than the limit allows.
struct Slowly<'a> {
    limits: &'a Limits,
    /// What is left of the part that is being read.
    part: &'a [u8],
    rest: std::slice::Iter<'a, Bytes>,
}

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.rest.next() {
                Some(next) => self.part = next,
                None => return Ok(0),
            }
        }
        let most = buffer.len().min(self.limits.upload.piece_bytes());
        let count = self.part.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.limits.upload.wait(count);
        Ok(count)
    }
}

fn lost(error: io::Error) -> Failure {
    // Certificates that do not fit do not fit next time either.
    let kind = match error.kind() {
        io::ErrorKind::InvalidData => FailureKind::Other,
        _ => FailureKind::Unreachable,
    };
    Failure::new(kind, error)
}

fn failure(error: &ureq::Error) -> Failure {
    use ureq::Error as Cause;
    match error {
        Cause::Io(error) => lost(io::Error::new(error.kind(), error.to_string())),
        Cause::Timeout(_) => Failure::new(FailureKind::Unreachable, "the server does not answer"),
        Cause::HostNotFound => Failure::new(FailureKind::Unreachable, "the host's name is unknown"),
        Cause::ConnectionFailed => Failure::new(FailureKind::Unreachable, "no connection"),
        Cause::Protocol(error) => {
            let text = format!("the server does not speak HTTP properly: {error}");
            Failure::new(FailureKind::Unreachable, text)
        }
        Cause::BadUri(_) => Failure::new(FailureKind::Other, "the address is not valid"),
        other => Failure::new(FailureKind::Other, other.to_string()),
    }
}
