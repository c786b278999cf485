//! The rules as they are typed, stored and shown.

use std::fmt;
use std::str::FromStr;

use jiff::{Span, Zoned};
use serde::{Deserialize, Serialize};

/// What to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// So many of the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Count>,
    /// One for each of so many hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hourly: Option<Count>,
    /// One for each of so many days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<Count>,
    /// One for each of so many weeks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekly: Option<Count>,
    /// One for each of so many months.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly: Option<Count>,
    /// One for each of so many years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yearly: Option<Count>,
    /// All that are no older than this before the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
    /// All that have all tags of one of these lists, which are separated by commas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Rules {
    /// Whether there is no rule, so that everything is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Rules {
    /// The options that stand for them, each with its value.
    fn options(&self) -> Vec<(String, String)> {
        let counts = [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ];
        let counts = counts
            .into_iter()
            .filter_map(|(name, count)| Some((format!("--keep-{name}"), count?.to_string())));
        let within = self
            .within
            .map(|within| ("--keep-within".to_owned(), within.to_string()));
        let tags = self
            .tags
            .iter()
            .map(|tags| ("--keep-tag".to_owned(), tags.clone()));
        counts.chain(within).chain(tags).collect()
    }

    /// The same rules as arguments of a command line, one word each.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let options = self.options().into_iter();
        options
            .map(|(option, value)| format!("{option}={value}"))
            .collect()
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return formatter.write_str("keep everything");
        }
        let options = self.options().into_iter();
        let all: Vec<String> = options
            .map(|(option, value)| format!("{option} {value}"))
            .collect();
        formatter.write_str(&all.join(" "))
    }
}

/// A number of snapshots to keep; -1 means all, as in restic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum Count {
    /// However many there are.
    All,
    /// So many.
    Of(u32),
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRule(String);

impl TryFrom<i64> for Count {
    type Error = InvalidRule;

    fn try_from(number: i64) -> Result<Self, InvalidRule> {
        if number == -1 {
            return Ok(Self::All);
        }
        let count = u32::try_from(number);
        count
            .map(Self::Of)
            .map_err(|_| InvalidRule(format!("{number} is no number of snapshots")))
    }
}

impl From<Count> for i64 {
    fn from(count: Count) -> Self {
        match count {
            Count::All => -1,
            Count::Of(count) => count.into(),
        }
    }
}

impl FromStr for Count {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        if text == "unlimited" {
            return Ok(Self::All);
        }
        let invalid = || InvalidRule("give a number, or 'unlimited'".to_owned());
        let number: i64 = text.parse().map_err(|_| invalid())?;
        Self::try_from(number)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("unlimited"),
            Self::Of(count) => count.fmt(formatter),
        }
    }
}

/// A time span as restic writes it: `1y5m7d2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Within {
    years: u16,
    months: u16,
    days: u16,
    hours: u16,
}

impl Within {
    pub(super) fn before(self, time: &Zoned) -> Option<Zoned> {
        let calendar = Span::new()
            .try_years(self.years)
            .and_then(|span| span.try_months(self.months))
            .and_then(|span| span.try_days(self.days))
            .ok()?;
        let hours = Span::new().try_hours(self.hours).ok()?;
        time.checked_sub(calendar).ok()?.checked_sub(hours).ok()
    }
}

impl FromStr for Within {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let invalid =
            || InvalidRule("give years, months, days and hours, as in 1y5m7d2h".to_owned());
        let mut within = Self {
            years: 0,
            months: 0,
            days: 0,
            hours: 0,
        };
        let mut rest = text;
        while let Some(end) = rest.find(|character: char| !character.is_ascii_digit()) {
            let (number, unit) = rest.split_at(end);
            let part = match unit.chars().next() {
                Some('y') => &mut within.years,
                Some('m') => &mut within.months,
                Some('d') => &mut within.days,
                Some('h') => &mut within.hours,
                _ => return Err(invalid()),
            };
            *part = number.parse().map_err(|_| invalid())?;
            rest = unit.get(1..).unwrap_or_default();
        }
        if rest.is_empty() && !text.is_empty() {
            Ok(within)
        } else {
            Err(invalid())
        }
    }
}

impl fmt::Display for Within {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.years, 'y'),
            (self.months, 'm'),
            (self.days, 'd'),
            (self.hours, 'h'),
        ];
        if parts.iter().all(|(number, _)| *number == 0) {
            return formatter.write_str("0h");
        }
        parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .try_for_each(|(number, unit)| write!(formatter, "{number}{unit}"))
    }
}

impl TryFrom<String> for Within {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Self, InvalidRule> {
        text.parse()
    }
}

impl From<Within> for String {
    fn from(within: Within) -> Self {
        within.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("1y5m7d2h", Some("1y5m7d2h"))]
    #[case("10d", Some("10d"))]
    #[case("0h", Some("0h"))]
    #[case("", None)]
    #[case("d", None)]
    #[case("7", None)]
    #[case("7w", None)]
    #[case("99999d", None)]
    fn spans(#[case] text: &str, #[case] shown: Option<&str>) {
        let parsed = text.parse::<Within>().ok().map(|within| within.to_string());
        assert_eq!(parsed.as_deref(), shown);
    }

    #[test]
    fn rules_are_the_same_after_being_stored() {
        let rules = Rules {
            last: Some(Count::All),
            daily: Some(Count::Of(7)),
            within: Some("1m".parse().unwrap()),
            tags: vec!["a".to_owned()],
            ..Rules::default()
        };
        let text = serde_json::to_string(&rules).unwrap();
        insta::assert_snapshot!(text, @r#"{"last":-1,"daily":7,"within":"1m","tags":["a"]}"#);
        assert_eq!(serde_json::from_str::<Rules>(&text).unwrap(), rules);
        insta::assert_snapshot!(rules, @"--keep-last unlimited --keep-daily 7 --keep-within 1m --keep-tag a");
    }
}
