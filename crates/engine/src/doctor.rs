//! Finding trouble with machines and repairing it, also without a journal.
//!
//! Guarantees: looking changes nothing. A repair is a plan that is shown first; it changes only what
//! the plan names, keeps a copy of what it changes, goes through the journal, and is believed only
//! when the trouble is looked for again and is gone. What is not known to be ours is never touched
//! unless the user names it, and neither is anything whose repair gives up data.
//!
//! Not guaranteed: that an image with a sound header and block map holds what the guest wrote;
//! nothing in a file tells.

mod carry_out;
mod examination;
mod fetch;
mod finding;
mod image_cures;
mod images;
mod left_over;
mod memory;
mod other_settings;
mod patients;
mod registry;
mod repair;
mod settings;
mod states;
mod unnamed;

pub(crate) use carry_out::carry_out;
pub use carry_out::{Repaired, execute};
pub use examination::{Examination, Scope, examine};
pub use finding::{Cure, Finding, FoundMachine, Problem, RegistryEntry};
pub use repair::{
    Consent, FetchedFile, ImageIdentity, RepairAction, RepairIntent, RepairPlan, RepairSource,
};
