//! Calls that go wrong.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::registry;

const FAULTS: &str = "faults.json";

/// Calls that are to go wrong, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    verb: String,
    skip: usize,
    times: usize,
    kind: FaultKind,
}

/// What goes wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FaultKind {
    /// The call does nothing and never ends.
    Hang,
    /// The call takes this long, then does its work.
    DelayMillis(u64),
    /// The call does nothing and reports a failure without further information.
    Fail,
    /// The call does nothing and says that another session has the machine locked.
    Locked,
    /// The call does nothing and reports success.
    Lie,
    /// The call does its work and reports a failure.
    DoneButFails,
    /// The program crashes before it did anything.
    CrashBefore,
    /// The program crashes when it has done its work, before it said so.
    CrashAfter,
    /// The machine is in this state for so long, then the call does its work. A Ctrl-C meanwhile
    /// cancels it.
    Slow {
        /// By the name that `VMState` has for it.
        state: String,
        /// How long.
        milliseconds: u64,
    },
    /// The program crashes, and VirtualBox goes on without it: the machine is in this state for so
    /// long, then the work is done.
    CrashMeanwhile {
        /// By the name that `VMState` has for it.
        state: String,
        /// How long.
        milliseconds: u64,
    },
    /// The machine's process dies while a VirtualBox snapshot is taken; its new images stay behind.
    MachineDies,
    /// VirtualBox's service has ended, and the call, which then does its work, starts a new one.
    ServiceRestarts,
    /// The call does nothing and says this, for example what another version would say.
    Say {
        /// Standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
        /// Exit code.
        code: u8,
    },
    /// The call does its work and replaces a text in what it prints: another UUID, Windows paths.
    Replace {
        /// The text as it would be printed.
        from: String,
        /// What is printed instead.
        to: String,
    },
}

impl Fault {
    /// One call of a verb goes wrong. `verb` is what the call's arguments begin with: "registervm",
    /// "list vms".
    #[must_use]
    pub fn once(verb: &str, kind: FaultKind) -> Self {
        Self {
            verb: verb.to_owned(),
            skip: 0,
            times: 1,
            kind,
        }
    }

    /// So many of them go wrong.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// So many go well first.
    #[must_use]
    pub fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    fn matches(&self, call: &str) -> bool {
        call.strip_prefix(&self.verb)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    /// Counts a call of the verb; whether it is one that goes wrong.
    fn strikes(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let strikes = self.times > 0;
        self.times = self.times.saturating_sub(1);
        strikes
    }
}

pub(super) fn inject(home: &Path, fault: &Fault) {
    let _lock = registry::lock(home);
    let mut faults = load(home);
    faults.push(fault.clone());
    store(home, &faults);
}

/// How this call goes wrong, if it does. The first fault that strikes wins.
pub(super) fn strike(home: &Path, call: &str) -> Option<FaultKind> {
    let _lock = registry::lock(home);
    let mut faults = load(home);
    let struck = faults.iter_mut().find_map(|fault| {
        let strikes = fault.matches(call) && fault.strikes();
        strikes.then(|| fault.kind.clone())
    });
    store(home, &faults);
    struck
}

fn load(home: &Path) -> Vec<Fault> {
    let text = fs::read_to_string(home.join(FAULTS)).unwrap_or_else(|_| "[]".to_owned());
    serde_json::from_str(&text).expect("faults as stored")
}

fn store(home: &Path, faults: &[Fault]) {
    // A call may be killed at any moment.
    let unfinished = home.join("faults.new");
    fs::write(&unfinished, serde_json::to_string(faults).expect("JSON"))
        .expect("room for the faults");
    fs::rename(unfinished, home.join(FAULTS)).expect("the faults in place");
}
