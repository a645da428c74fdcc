//! Flags and environment become one typed, validated value. Nothing else reads either.

mod address;
mod options;
mod parse;
mod settings;

pub use options::{AccessLog, InboundPlaintext, Options};
pub use settings::{Problem, Settings};
