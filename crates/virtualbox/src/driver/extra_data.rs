//! Extra data of machines: texts by key, some of which change what VirtualBox does.

use vrs_progress::Progress;

use super::VBoxManage;
use super::order::{Order, Standing};
use crate::error::Result;
use crate::id::MachineId;

impl VBoxManage {
    /// The value of a key, if it has one.
    pub fn extra_data(&self, id: MachineId, key: &str) -> Result<Option<String>> {
        let arguments = ["getextradata".to_owned(), id.to_string(), key.to_owned()];
        let text = self.ask(&arguments)?;
        if text.starts_with("No value set!") {
            return Ok(None);
        }
        let value = text
            .strip_prefix("Value: ")
            .map(|value| value.strip_suffix('\n').unwrap_or(value))
            .ok_or_else(|| self.output_error(&arguments, "it has no Value:".to_owned()))?;
        Ok(Some(value.to_owned()))
    }

    /// Gives a key a value, or takes it away. An empty value is none, as VirtualBox has it.
    pub fn set_extra_data(
        &self,
        id: MachineId,
        key: &str,
        value: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let value = value.filter(|value| !value.is_empty());
        let mut arguments = vec!["setextradata".to_owned(), id.to_string(), key.to_owned()];
        arguments.extend(value.map(ToOwned::to_owned));
        self.achieve(&Order::new(&arguments), progress, |_| {
            let found = self.extra_data(id, key)?;
            if found.as_deref() == value {
                return Ok(Standing::Done(()));
            }
            Ok(Standing::Due(format!("{key} is {found:?}")))
        })
    }
}
