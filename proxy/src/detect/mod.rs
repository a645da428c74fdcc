//! Which protocol the first bytes of a connection are (pure). What was read is kept by the caller
//! and served again.

mod client_hello;
mod sniff;

pub use client_hello::{ClientHello, HelloError, client_hello};
pub use sniff::sniff;
