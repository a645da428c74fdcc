//! Which protocol the first bytes of a connection are (pure). What was read is kept by the caller
//! and served again.

mod client_hello;
mod rewound;
mod sniff;

pub use client_hello::{ClientHello, HelloError, client_hello};
pub use rewound::Rewound;
pub use sniff::sniff;
