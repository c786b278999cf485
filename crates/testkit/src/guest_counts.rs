//! What the guests `rig/guest/records.S` and `storm.S` print on COM1: "B" and a count when they
//! start from power-off, then one count per line, and "X" where something is not as it should be.

/// A stretch of counts without gap or complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestCounts {
    /// The first count; a line whose beginning is missing, as where a saved state cut it, is left
    /// out.
    pub first: u32,
    /// The last count.
    pub last: u32,
    /// How often the guest was started from power-off.
    pub starts: usize,
}

impl GuestCounts {
    /// Reads what a machine printed since its process was started. `None` as long as there is no
    /// count.
    ///
    /// # Errors
    /// The line with a complaint, or where the counts do not go on one by one.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let whole_lines = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut found: Option<Self> = None;
        let mut expected = None;
        let mut starts = 0;
        for (number, line) in whole_lines.lines().enumerate() {
            if line.contains('X') {
                return Err(format!(
                    "the guest complains in line {}: {line}",
                    number + 1
                ));
            }
            if let Some(count) = line.strip_prefix('B') {
                starts += 1;
                expected = Some(count_of(count)? + 1);
                continue;
            }
            if number == 0 && line.len() < 8 {
                continue;
            }
            let count = count_of(line)?;
            if expected.is_some_and(|expected| count != expected) {
                return Err(format!(
                    "line {} has {line}, which does not follow",
                    number + 1
                ));
            }
            expected = Some(count + 1);
            let first = found.map_or(count, |counts| counts.first);
            found = Some(Self {
                first,
                last: count,
                starts: 0,
            });
        }
        Ok(found.map(|counts| Self { starts, ..counts }))
    }

    /// Whether the guest was resumed from a state in which `last_round` was the last round that
    /// reached both disks, and went on from there.
    #[must_use]
    pub const fn go_on_from(&self, last_round: u32) -> bool {
        // The count of the last round itself may still have had to be printed; and the first disk
        // may have had the next round already, which is then the one that is printed first.
        self.starts == 0 && (self.first == last_round || self.first == last_round + 1)
    }
}

fn count_of(line: &str) -> Result<u32, String> {
    let count = u32::from_str_radix(line, 16).ok();
    count
        .filter(|_| line.len() == 8)
        .ok_or_else(|| format!("{line:?} is no count"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<(u32, u32, usize)>, String> {
        Ok(GuestCounts::parse(text)?.map(|counts| (counts.first, counts.last, counts.starts)))
    }

    #[test]
    fn counts_from_power_off_and_from_a_saved_state() {
        assert_eq!(parsed(""), Ok(None));
        assert_eq!(parsed("B00000000\n0000"), Ok(None));
        assert_eq!(
            parsed("B00000010\n00000011\n00000012\n0000"),
            Ok(Some((0x11, 0x12, 1)))
        );
        assert_eq!(parsed("0ff\n00000100\n"), Ok(Some((0x100, 0x100, 0))));
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        for text in [
            "00000001\n00000003\n",
            "00000002\n00000002\n",
            "00000002\n00000001\n",
            "B00000002\n00000002\n",
            "00000001\n02\n",
            "hello\nhello\n",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn complaints_are_refused() {
        let text = "00000001\nXD00000001\n00000002\n";
        assert_eq!(
            parsed(text),
            Err("the guest complains in line 2: XD00000001".to_owned())
        );
        assert!(parsed("0000XM00000001\n00000002\n").is_err());
    }

    #[test]
    fn going_on_means_from_the_captured_count() {
        let counts = |text| GuestCounts::parse(text).unwrap().unwrap();
        assert!(counts("00000005\n").go_on_from(4));
        assert!(counts("00000005\n").go_on_from(5));
        assert!(!counts("00000005\n").go_on_from(3));
        assert!(!counts("00000005\n").go_on_from(6));
        assert!(!counts("B00000004\n00000005\n").go_on_from(4));
    }
}
