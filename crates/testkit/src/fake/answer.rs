//! What the fake prints, in the real one's words.

/// The end of one call.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: u8,
}

pub(super) const PROGRESS: &str =
    "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%\n";

impl Answer {
    pub(super) fn silent() -> Self {
        Self::default()
    }

    pub(super) fn prints(stdout: String) -> Self {
        Self {
            stdout,
            ..Self::default()
        }
    }

    pub(super) fn progress() -> Self {
        Self {
            stderr: PROGRESS.to_owned(),
            ..Self::default()
        }
    }

    /// Fails with lines on standard error, each after "VBoxManage: error: ".
    pub(super) fn error(lines: &[&str]) -> Self {
        let stderr = lines
            .iter()
            .map(|line| format!("VBoxManage: error: {line}\n"))
            .collect();
        Self {
            stderr,
            code: 1,
            ..Self::default()
        }
    }
}

/// An error as VirtualBox's API gives it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) text: String,
    pub(super) code: &'static str,
    /// Component and interface, as in "MachineWrap, interface IMachine".
    pub(super) component: &'static str,
}

pub(super) const OBJECT_NOT_FOUND: &str = "VBOX_E_OBJECT_NOT_FOUND (0x80bb0001)";
pub(super) const FILE_ERROR: &str = "VBOX_E_FILE_ERROR (0x80bb0004)";
pub(super) const INVALID_OBJECT_STATE: &str = "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)";
pub(super) const INVALID_VM_STATE: &str = "VBOX_E_INVALID_VM_STATE (0x80bb0002)";
pub(super) const VM_ERROR: &str = "VBOX_E_VM_ERROR (0x80bb0003)";
pub(super) const OBJECT_IN_USE: &str = "VBOX_E_OBJECT_IN_USE (0x80bb000c)";
pub(super) const ACCESS_DENIED: &str = "E_ACCESSDENIED (0x80070005)";
pub(super) const FAILURE: &str = "NS_ERROR_FAILURE (0x80004005)";

pub(super) const VIRTUALBOX: &str = "VirtualBoxWrap, interface IVirtualBox";
pub(super) const MACHINE: &str = "MachineWrap, interface IMachine";
pub(super) const SESSION_MACHINE: &str = "SessionMachine, interface IMachine";
pub(super) const CONSOLE: &str = "ConsoleWrap, interface IConsole";
pub(super) const MEDIUM: &str = "MediumWrap, interface IMedium";

impl Failure {
    /// `context` is the call in VBoxManage's source and where it stands.
    pub(super) fn answer(&self, context: &str) -> Answer {
        let details = format!(
            "Details: code {}, component {}, callee nsISupports",
            self.code, self.component
        );
        let mut lines: Vec<&str> = self.text.lines().collect();
        let context = format!("Context: {context}");
        lines.extend([details.as_str(), &context]);
        Answer::error(&lines)
    }

    /// As an operation gives it that had begun and showed its progress.
    pub(super) fn answer_after_progress(&self, headline: &str, context: &str) -> Answer {
        let (name, _) = self.code.split_once(' ').unwrap_or((self.code, ""));
        let details = format!("Details: code {}, component {}", self.code, self.component);
        let context = format!("Context: {context}");
        let answer = Answer::error(&[headline, &self.text, &details, &context]);
        Answer {
            stderr: format!("0%...{name}\n{}", answer.stderr),
            ..answer
        }
    }
}
