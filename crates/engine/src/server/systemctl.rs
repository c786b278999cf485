//! What systemd is told and asked, through its `systemctl`.

use std::process::{Command, Output, Stdio};

use super::Scope;
use crate::error::{Error, Result};

/// The program, for one kind of service.
#[derive(Debug, Clone)]
pub struct Systemctl {
    /// Whose services.
    pub scope: Scope,
    /// Variables that hold secrets, which it does not need.
    pub secret_variables: Vec<String>,
}

/// How a timer and its service are doing, in systemd's words. Empty: it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimerState {
    /// The timer.
    pub timer: String,
    /// "enabled" when it starts with the computer.
    pub enabled: String,
    /// "active" when it is waiting for its time.
    pub active: String,
    /// When it elapsed last.
    pub last: String,
    /// When it elapses next.
    pub next: String,
    /// How the service ended last: "success" or how it failed.
    pub result: String,
    /// With which exit code.
    pub exit_code: String,
}

impl TimerState {
    /// Whether it waits for its time, and will after a restart.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.enabled == "enabled" && self.active == "active"
    }

    /// Whether the service failed when it ran last.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !matches!(self.result.as_str(), "" | "success")
    }

    pub(super) fn not_active(&self) -> Error {
        self.unexpected("is")
    }

    pub(super) fn still_active(&self) -> Error {
        self.unexpected("is still")
    }

    fn unexpected(&self, is: &'static str) -> Error {
        Error::TimerState {
            timer: self.timer.clone(),
            state: format!("{is} {}, {}", shown(&self.enabled), shown(&self.active)),
        }
    }
}

fn shown(word: &str) -> &str {
    if word.is_empty() { "unknown" } else { word }
}

impl Systemctl {
    pub(super) fn reload(&self) -> Result<()> {
        self.run(&["daemon-reload"]).map(drop)
    }

    pub(super) fn start(&self, units: &[&str]) -> Result<()> {
        self.run(&[&["enable", "--now"], units].concat()).map(drop)
    }

    pub(super) fn stop(&self, units: &[&str]) -> Result<()> {
        self.run(&[&["disable", "--now"], units].concat()).map(drop)
    }

    pub(super) fn state(&self, timer: &str) -> Result<TimerState> {
        let about_timer = self.show(
            timer,
            "UnitFileState,ActiveState,LastTriggerUSec,NextElapseUSecRealtime",
        )?;
        let service = timer.replace(".timer", ".service");
        let about_service = self.show(&service, "Result,ExecMainStatus")?;
        Ok(TimerState {
            timer: timer.to_owned(),
            enabled: value(&about_timer, "UnitFileState"),
            active: value(&about_timer, "ActiveState"),
            last: value(&about_timer, "LastTriggerUSec"),
            next: value(&about_timer, "NextElapseUSecRealtime"),
            result: value(&about_service, "Result"),
            exit_code: value(&about_service, "ExecMainStatus"),
        })
    }

    fn show(&self, unit: &str, properties: &str) -> Result<String> {
        self.run(&["show", "--property", properties, "--", unit])
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("systemctl");
        if self.scope == Scope::User {
            command.arg("--user");
        }
        command.arg("--no-pager").args(arguments);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        for variable in &self.secret_variables {
            command.env_remove(variable);
        }
        let failed = |reason: String| Error::Systemd {
            command: arguments.join(" "),
            reason,
        };
        let output = command.output();
        let Output {
            status,
            stdout,
            stderr,
        } = output.map_err(|error| failed(format!("systemctl could not be started: {error}")))?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&stderr);
        Err(failed(match said.trim() {
            "" => status.to_string(),
            said => said.to_owned(),
        }))
    }
}

/// The value of a line `NAME=VALUE`. Systemd says "n/a" or 0 for times that are none.
fn value(text: &str, name: &str) -> String {
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let found = lines.find(|(found, _)| *found == name);
    let found = found.map_or("", |(_, value)| value.trim());
    if matches!(found, "n/a" | "infinity") {
        String::new()
    } else {
        found.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_systemctl_show() {
        let text = "UnitFileState=enabled\nLastTriggerUSec=n/a\nNext=Fri 2026-11-27 00:00:00 UTC\n";
        assert_eq!(value(text, "UnitFileState"), "enabled");
        assert_eq!(value(text, "LastTriggerUSec"), "");
        assert_eq!(value(text, "Next"), "Fri 2026-11-27 00:00:00 UTC");
        assert_eq!(value(text, "Other"), "");
    }
}
