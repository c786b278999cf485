//! The text of systemd's units.
//!
//! Whatever a path holds stays one word, and is not expanded.

use std::path::Path;

use super::{MARK, Scope, Service};
use crate::error::{Error, Result};
use crate::platform::Owner;

const PRUNE: &str = "prune";
const CHECK: &str = "check";
/// Name under which a service finds the password.
const CREDENTIAL: &str = "vrs-password";

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its file's name.
    pub name: String,
    /// What is in the file.
    pub text: String,
}

impl Unit {
    pub(super) fn is_timer(&self) -> bool {
        is_timer(&self.name)
    }
}

pub(super) fn is_timer(name: &str) -> bool {
    name.ends_with(".timer")
}

/// The units of a repository by name.
pub(super) fn names(repository: &Path) -> Result<Vec<String>> {
    let place = escaped_path(text_of(repository)?);
    let kinds = [
        (PRUNE, "service"),
        (PRUNE, "timer"),
        (CHECK, "service"),
        (CHECK, "timer"),
    ];
    let name = |(verb, kind)| format!("vrs-{verb}-{place}.{kind}");
    Ok(kinds.map(name).into())
}

/// All units of a service. `owner` is that of the repository, where the system knows owners.
pub(super) fn all(service: &Service, owner: Option<Owner>) -> Result<Vec<Unit>> {
    let check = format!("check --read-data={}%", service.check_percent);
    let texts = [
        service_text(service, owner, PRUNE, &prune_command(service)?)?,
        timer_text(service, PRUNE, &service.prune_at)?,
        service_text(service, owner, CHECK, &check)?,
        timer_text(service, CHECK, &service.check_at)?,
    ];
    let units = names(&service.repository)?.into_iter().zip(texts);
    Ok(units.map(|(name, text)| Unit { name, text }).collect())
}

fn prune_command(service: &Service) -> Result<String> {
    let mut words = vec![PRUNE.to_owned(), "--yes".to_owned()];
    if let Some(rules) = &service.rules {
        words.push("--ignore-policy".to_owned());
        for argument in rules.arguments() {
            words.push(command_word(one_line(&argument)?));
        }
    }
    Ok(words.join(" "))
}

fn service_text(
    service: &Service,
    owner: Option<Owner>,
    verb: &str,
    command: &str,
) -> Result<String> {
    let repository = text_of(&service.repository)?;
    let program = command_word(text_of(&service.program)?);
    let place = format!("VRS_REPOSITORY=local:{repository}");
    let mut lines = vec![
        MARK.to_owned(),
        "[Unit]".to_owned(),
        format!(
            "Description=vrs {verb} of the repository at {}",
            specifier_free(repository)
        ),
        format!("RequiresMountsFor={}", word(repository)),
        String::new(),
        "[Service]".to_owned(),
        "Type=oneshot".to_owned(),
        format!("Environment={}", word(&place)),
    ];
    lines.extend(password_lines(service)?);
    lines.extend([
        format!("ExecStart={program} {command} --no-progress"),
        // Done, with warnings.
        "SuccessExitStatus=3".to_owned(),
        "Nice=10".to_owned(),
        "IOSchedulingClass=idle".to_owned(),
        "NoNewPrivileges=yes".to_owned(),
    ]);
    if service.scope == Scope::System {
        let owner = owner.map(|owner| {
            [
                format!("User={}", owner.uid),
                format!("Group={}", owner.gid),
            ]
        });
        lines.extend(owner.into_iter().flatten());
        lines.extend([
            "PrivateTmp=yes".to_owned(),
            "PrivateDevices=yes".to_owned(),
            "ProtectSystem=strict".to_owned(),
            "ProtectHome=read-only".to_owned(),
            format!("ReadWritePaths={}", word(repository)),
        ]);
    }
    Ok(lines.join("\n") + "\n")
}

/// A system service gets the password from systemd, which alone reads the file; a user's reads it itself.
fn password_lines(service: &Service) -> Result<Vec<String>> {
    let file = text_of(&service.password_file)?;
    Ok(match service.scope {
        Scope::System => vec![
            format!("LoadCredential={CREDENTIAL}:{}", specifier_free(file)),
            format!("Environment=VRS_PASSWORD_FILE=%d/{CREDENTIAL}"),
        ],
        Scope::User => vec![format!(
            "Environment={}",
            word(&format!("VRS_PASSWORD_FILE={file}"))
        )],
    })
}

fn timer_text(service: &Service, verb: &str, at: &str) -> Result<String> {
    let repository = specifier_free(text_of(&service.repository)?);
    let at = specifier_free(one_line(at)?);
    // One that was missed is made up for; several computers do not begin in the same second.
    Ok(format!(
        "{MARK}\n[Unit]\nDescription=When to {verb} the repository at {repository}\n\n[Timer]\n\
         OnCalendar={at}\nPersistent=yes\nRandomizedDelaySec=10min\n\n[Install]\n\
         WantedBy=timers.target\n"
    ))
}

fn text_of(path: &Path) -> Result<&str> {
    let text = path.to_str();
    let text = text.ok_or_else(|| unusable(&path.to_string_lossy(), "is not Unicode"))?;
    one_line(text)
}

fn one_line(text: &str) -> Result<&str> {
    if text.is_empty() {
        return Err(unusable(text, "is empty"));
    }
    if text.contains(char::is_control) {
        return Err(unusable(text, "holds control characters"));
    }
    Ok(text)
}

fn unusable(text: &str, reason: &str) -> Error {
    Error::Usage {
        message: format!(
            "'{}' cannot stand in a unit of systemd: it {reason}",
            text.escape_debug()
        ),
    }
}

/// So that systemd puts nothing in place of `%h` and the like.
fn specifier_free(text: &str) -> String {
    text.replace('%', "%%")
}

/// One word of a setting.
fn word(text: &str) -> String {
    let text = specifier_free(text)
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!("\"{text}\"")
}

/// One word of a command line, in which systemd puts nothing in place of `$HOME` and the like.
fn command_word(text: &str) -> String {
    word(&text.replace('$', "$$"))
}

/// A path as it stands in names of units (systemd.unit(5), "String Escaping for Inclusion in Unit Names").
fn escaped_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut escaped = String::new();
    for byte in parts.join("/").bytes() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if escaped.is_empty() => escaped.push_str("\\x2e"),
            b':' | b'_' | b'.' => escaped.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            byte => escaped.push_str(&format!("\\x{byte:02x}")),
        }
    }
    if escaped.is_empty() {
        "-".to_owned()
    } else {
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_as_systemd_does_it() {
        // What `systemd-escape --path` prints.
        for (path, escaped) in [
            ("/srv/machines", "srv-machines"),
            ("/srv/my-machines", r"srv-my\x2dmachines"),
            ("/.hidden/a b", r"\x2ehidden-a\x20b"),
            ("/ü", r"\xc3\xbc"),
            ("/", "-"),
        ] {
            assert_eq!(escaped_path(path), escaped);
        }
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(word(r#"/a b"c\d%h$e"#), r#""/a b\"c\\d%%h$e""#);
        assert_eq!(command_word("$HOME"), "\"$$HOME\"");
        let error = one_line("daily\nExecStart=/bin/false").unwrap_err();
        assert!(error.to_string().contains("control characters"), "{error}");
    }
}
