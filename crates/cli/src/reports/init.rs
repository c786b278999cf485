//! What `vrs init` answers.

use std::io::{self, Write};

use serde::Serialize;

use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "init")]
pub struct InitReport {
    pub location: String,
}

impl Report for InitReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "created a repository at {}",
            text::name(&self.location)
        )?;
        writeln!(
            out,
            "without its password nobody can read it, and nobody can replace a lost password"
        )
    }
}
