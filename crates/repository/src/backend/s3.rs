//! Objects in a bucket of an S3-compatible server, named as restic names them.
//!
//! A `PUT` makes a whole object appear or none, which is what S3 promises, and only if its checksum is right. Requests are signed in
//! their address, which is never shown.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::http::Method;

use super::http::{Answer, Http, Request};
use super::limit::Limits;
use super::rest::{range, whole_part};
use super::storage::{
    Failure, FailureKind, Ground, Kind, Listed, NO_ID, Object, Outcome, Part, Storage, listed,
};
use crate::access::Access;
use crate::location::S3Place;

/// How long a signature is good for; an upload may start long after it was signed.
const VALID: Duration = Duration::from_secs(60 * 60);

/// See the module.
pub(super) struct S3 {
    http: Http,
    bucket: Bucket,
    key: Option<Credentials>,
    /// Empty, or ending with a slash.
    prefix: String,
}

impl S3 {
    pub(super) fn new(place: &S3Place, access: &Access, limits: Arc<Limits>) -> Outcome<Self> {
        let host = place.endpoint.host_str().unwrap_or_default();
        let is_amazon = host.ends_with(".amazonaws.com");
        let region = access
            .s3_region
            .clone()
            .or_else(|| amazon_region(host))
            .unwrap_or_else(|| "us-east-1".to_owned());
        // A name with dots would not fit the certificate.
        let style = if is_amazon && !place.bucket.contains('.') {
            UrlStyle::VirtualHost
        } else {
            UrlStyle::Path
        };
        let bucket = Bucket::new(place.endpoint.clone(), style, place.bucket.clone(), region)
            .map_err(|error| Failure::new(FailureKind::Other, error))?;
        let key = access.s3_key.as_ref().map(|key| {
            let secret = key.secret.expose();
            match &key.session_token {
                Some(token) => Credentials::new_with_token(&key.id, secret, token.expose()),
                None => Credentials::new(&key.id, secret),
            }
        });
        Ok(Self {
            http: Http::new(access, limits)?,
            bucket,
            key,
            prefix: match place.prefix.as_str() {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            },
        })
    }

    fn name(&self, object: Object) -> String {
        format!("{}{}", self.prefix, object.path())
    }

    fn send<'a>(
        &self,
        method: Method,
        action: &impl S3Action<'a>,
        headers: &[(&'static str, String)],
        content: &[Bytes],
    ) -> Outcome<Answer> {
        self.http.send(&Request {
            method,
            url: action.sign(VALID).as_str(),
            headers,
            content,
        })
    }

    /// What lies below a part of the names, page by page; nothing where there is no bucket.
    fn pages(
        &self,
        below: &str,
        delimiter: Option<&str>,
        mut page: impl FnMut(rusty_s3::actions::list_objects_v2::ListObjectsV2Response),
    ) -> Outcome<()> {
        let mut next: Option<String> = None;
        loop {
            let mut action = self.bucket.list_objects_v2(self.key.as_ref());
            action.with_prefix(below);
            if let Some(delimiter) = delimiter {
                action.with_delimiter(delimiter);
            }
            if let Some(next) = &next {
                action.with_continuation_token(next.as_str());
            }
            let answer = match accepted(self.send(Method::GET, &action, &[], &[])?) {
                Err(failure) if failure.kind == FailureKind::Missing => return Ok(()),
                answer => answer?,
            };
            let text = String::from_utf8_lossy(&answer.content);
            let mut parsed = ListObjectsV2::parse_response(&text).map_err(|error| {
                let text = format!("the server gave no list of objects: {error}");
                Failure::new(FailureKind::Other, text)
            })?;
            next = parsed.next_continuation_token.take();
            page(parsed);
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

/// What a server compares with what arrives. All servers know this one, other than newer checksums, and
/// Amazon's wants it for buckets with object lock.
fn content_md5(content: &[Bytes]) -> String {
    let mut digest = Md5::new();
    content.iter().for_each(|part| digest.update(part));
    BASE64.encode(digest.finalize())
}

/// As in `s3.eu-central-1.amazonaws.com`.
fn amazon_region(host: &str) -> Option<String> {
    let middle = host.strip_prefix("s3.")?.strip_suffix(".amazonaws.com")?;
    Some(middle.trim_start_matches("dualstack.").to_owned())
}

/// The answer, or what the server's error document means.
fn accepted(answer: Answer) -> Outcome<Answer> {
    answer.accepted().map_err(|failure| {
        let text = failure.source.to_string();
        let says = |codes: &[&str]| {
            codes
                .iter()
                .any(|code| text.contains(&format!("<Code>{code}</Code>")))
        };
        let kind = if says(&[
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidClientTokenId",
            "InvalidToken",
            "ExpiredToken",
            "RequestTimeTooSkewed",
            "InvalidSecurity",
        ]) || (says(&["AccessDenied"]) && is_about_time(&text))
        {
            FailureKind::LoginRefused
        } else if says(&["BadDigest"]) {
            // It changed on the way.
            FailureKind::Unwell
        } else {
            failure.kind
        };
        Failure::new(kind, readable(&text))
    })
}

/// What servers say of an address that was signed with a clock which is not theirs.
fn is_about_time(text: &str) -> bool {
    let text = text.to_lowercase();
    ["expired", "not valid yet", "not yet valid"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// Code and message of an error document.
fn readable(text: &str) -> String {
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(part, _)| part)
    };
    match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("the server answered {code}: {message}"),
        (Some(code), None) => format!("the server answered {code}"),
        _ => text.to_owned(),
    }
}

impl Storage for S3 {
    fn ground(&self) -> Outcome<Ground> {
        let mut names: Vec<String> = Vec::new();
        let prefix = &self.prefix;
        self.pages(prefix, Some("/"), |page| {
            let files = page.contents.into_iter().map(|object| object.key);
            let folders = page.common_prefixes.into_iter().map(|folder| folder.prefix);
            names.extend(files.chain(folders).filter_map(|name| {
                Some(name.strip_prefix(prefix)?.trim_end_matches('/').to_owned())
            }));
        })?;
        names.retain(|name| !name.is_empty());
        if names.is_empty() {
            return Ok(Ground::Nothing);
        }
        Ok(Ground::of_names(names.iter().map(String::as_str)))
    }

    /// Makes the bucket if it is not there.
    fn create(&self) -> Outcome<()> {
        let head = self.bucket.head_bucket(self.key.as_ref());
        let found = self.send(Method::HEAD, &head, &[], &[])?;
        let Some(key) = self.key.as_ref().filter(|_| found.status == 404) else {
            return accepted(found).map(drop);
        };
        let action = self.bucket.create_bucket(key);
        let body = Bytes::from(action.body());
        accepted(self.send(Method::PUT, &action, &[], &[body])?).map(drop)
    }

    fn list(&self, kind: Kind) -> Outcome<Vec<Listed>> {
        let below = format!("{}{}", self.prefix, kind.folder());
        let mut found = Vec::new();
        if kind.is_config() {
            self.pages(&below, None, |page| {
                let config = page.contents.into_iter().find(|object| object.key == below);
                let size = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
                found.extend(config.map(|object| (NO_ID, size(object.size.unwrap_or(0)))));
            })?;
            return Ok(found);
        }
        self.pages(&format!("{below}/"), None, |page| {
            found.extend(page.contents.iter().filter_map(|object| {
                let name = object.key.rsplit('/').next()?;
                listed(name, object.size?)
            }));
        })?;
        Ok(found)
    }

    fn read(&self, object: Object, part: Option<Part>) -> Outcome<Bytes> {
        let name = self.name(object);
        let action = self.bucket.get_object(self.key.as_ref(), &name);
        let headers: Vec<_> = part
            .map(|part| ("Range", range(part)))
            .into_iter()
            .collect();
        let answer = accepted(self.send(Method::GET, &action, &headers, &[])?)?;
        whole_part(answer, part)
    }

    fn write(&self, object: Object, content: &[Bytes]) -> Outcome<()> {
        let name = self.name(object);
        let action = self.bucket.put_object(self.key.as_ref(), &name);
        let headers = [("Content-MD5", content_md5(content))];
        accepted(self.send(Method::PUT, &action, &headers, content)?).map(drop)
    }

    fn remove(&self, object: Object) -> Outcome<()> {
        let name = self.name(object);
        let action = self.bucket.delete_object(self.key.as_ref(), &name);
        accepted(self.send(Method::DELETE, &action, &[], &[])?).map(drop)
    }
}
