//! The part of docs/performance.md that the benchmark writes.

use std::fs;
use std::io;
use std::path::Path;

const BEGIN: &str = "<!-- What the benchmark prints begins here. -->\n";
const END: &str = "<!-- What the benchmark prints ends here. -->\n";

/// Puts what a command printed in the place of what was there.
///
/// # Errors
/// When the file cannot be read or written, or the marks are not in it.
pub fn write(path: &Path, command: &str, printed: &str) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let new = replaced(&text, command, printed)
        .ok_or_else(|| io::Error::other(format!("the marks are not in {}", path.display())))?;
    fs::write(path, new)
}

fn replaced(text: &str, command: &str, printed: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{BEGIN}`{command}` printed\n\n```text\n{printed}\n```\n{END}{after}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_marks_is_replaced() {
        let text = format!("before\n{BEGIN}old\n{END}after\n");
        let new = replaced(&text, "cargo xtask bench", "new").expect("the marks");
        let (before, after) = (format!("before\n{BEGIN}"), format!("{END}after\n"));
        assert!(new.starts_with(&before) && new.ends_with(&after));
        assert!(new.contains("new") && !new.contains("old"));
        assert_eq!(
            replaced(&new, "cargo xtask bench", "new"),
            Some(new.clone())
        );
        assert_eq!(replaced("no marks", "", ""), None);
    }
}
