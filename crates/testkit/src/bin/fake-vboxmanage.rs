//! The fake `VBoxManage` as a program. Its state is in the folder `FAKE_VBOX_HOME`, or, without
//! that, in the folder of the link through which it was called.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let program = PathBuf::from(arguments.next().expect("a program name"));
    let arguments: Vec<String> = arguments
        .map(|argument| argument.into_string().expect("Unicode"))
        .collect();
    let home = env::var_os("FAKE_VBOX_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| program.parent().unwrap_or(Path::new(".")).to_owned());
    let answer = vrs_testkit::fake_vboxmanage(&home, &arguments);
    print!("{}", answer.stdout);
    eprint!("{}", answer.stderr);
    ExitCode::from(answer.code)
}
