//! Shell scripts in the place of programs.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script that can be started at once.
///
/// Another process writes it: whatever a thread of this one starts meanwhile would inherit the open file for a
/// moment, in which the system refuses to run it ("Text file busy").
///
/// # Panics
/// Without `sh`, or where the file cannot be written.
pub fn write_script(program: &Path, text: &str) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(program)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut script = writer.stdin.take().expect("its input");
    script
        .write_all(text.as_bytes())
        .expect("room for a script");
    drop(script);
    assert!(writer.wait().expect("its end").success());
}
