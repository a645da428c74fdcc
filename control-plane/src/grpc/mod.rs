//! The gRPC services. `encode` and `decode` hold all protobuf but for the requests themselves;
//! `listen` says who is at the other end of a connection, and each service who may do what.

mod admin;
mod apply;
mod check;
mod decode;
mod discovery;
mod document;
mod encode;
mod explain;
mod history;
mod identity;
mod inbound_policy;
mod listen;
mod peer;
mod policies;
mod renewal;
mod routes;

pub use admin::AdminService;
pub use discovery::DiscoveryService;
pub use encode::{encode, encode_change};
pub use identity::{IdentityService, TOKENS_TABLE, sweep_tokens};
pub use listen::{CONNECTIONS_MAX, Connection, LocalConnection, accept_local, accept_tls, tls};
pub use peer::Peer;
pub use renewal::Renewals;
