//! What one check says about one thing, before anything is changed.
//!
//! Each kind of check has names of its own, which `--force` takes, and levels of its own; what a
//! verdict is made of, and what forcing one means, is the same for all.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What one check says about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict<Name, Level> {
    /// The check.
    pub name: Name,
    /// What was looked at: a machine, a disk, a folder, a part of a saved state.
    pub subject: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub reason: String,
    /// What to do; empty where there is nothing to do.
    pub advice: String,
}

/// The checks of one kind.
pub trait Check: Copy + PartialEq + fmt::Display + FromStr<Err = ()> + 'static {
    /// All of them, in the order of their verdicts.
    const NAMES: &'static [Self];
}

/// Levels of which one stops what was wanted.
pub trait Stopping: Copy + PartialEq {
    /// The one that does.
    const STOPS: Self;
    /// What it becomes when the user insists.
    const FORCED: Self;
}

impl<Name: Check, Level: Stopping> Verdict<Name, Level> {
    pub(crate) fn new(
        name: Name,
        subject: &str,
        level: Level,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            name,
            subject: subject.to_owned(),
            level,
            reason: reason.into(),
            advice: advice.into(),
        }
    }

    /// One that stops, unless its check is forced.
    pub(crate) fn unless_forced(mut self, forced: &[Name]) -> Self {
        if self.level == Level::STOPS && forced.contains(&self.name) {
            self.level = Level::FORCED;
            self.reason.push_str(" (forced)");
        }
        self
    }
}

/// One line: the check, the subject, what was found, and what to do about it.
impl<Name: fmt::Display, Level> fmt::Display for Verdict<Name, Level> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            subject,
            reason,
            advice,
            ..
        } = self;
        write!(formatter, "{name}: {subject}: {reason}")?;
        if !advice.is_empty() {
            write!(formatter, "; {advice}")?;
        }
        Ok(())
    }
}

/// Reads what `--force` got.
pub(crate) fn forced_names<Name: Check>(names: &[String]) -> Result<Vec<Name>> {
    let known: Vec<_> = Name::NAMES.iter().map(ToString::to_string).collect();
    let parse = |name: &String| {
        name.parse().map_err(|()| Error::Usage {
            message: format!(
                "no verdict is called '{name}'; there are: {}",
                known.join(", ")
            ),
        })
    };
    names.iter().map(parse).collect()
}

/// An enumeration of checks with their names, which are stable: `--force` takes them.
macro_rules! checks {
    ($(#[$attribute:meta])* pub enum $Check:ident {
        $($(#[$doc:meta])* $Variant:ident = $name:literal,)+
    }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum $Check {
            $($(#[$doc])* $Variant,)+
        }

        impl $Check {
            /// All of them, in the order of their verdicts.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$Variant),+];

            /// The name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Variant => $name,)+
                }
            }
        }

        impl $crate::verdict::Check for $Check {
            const NAMES: &'static [Self] = &Self::ALL;
        }

        impl std::fmt::Display for $Check {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $Check {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                let known = Self::ALL.into_iter().find(|name| name.as_str() == text);
                known.ok_or(())
            }
        }
    };
}
pub(crate) use checks;
