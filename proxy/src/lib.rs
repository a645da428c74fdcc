//! The rooms of weft's sidecar, in the order in which a connection walks through them. The story of
//! a direction is in `outbound` and `inbound`; `app` starts and stops everything.

pub mod app;
pub mod bootstrap;
pub mod interception;
pub mod listener;

pub mod detect;
pub mod outbound;

pub mod inbound;

pub mod admission;
pub mod authorization;
pub mod balance;
pub mod route;

pub mod endpoint;

pub mod http;
pub mod http1;
pub mod http2;
pub mod multiplex;
pub mod tcp;

pub mod discovery;
pub mod identity;
pub mod ratelimit;

pub mod admin;
pub mod dns;
pub mod telemetry;

pub mod model;
