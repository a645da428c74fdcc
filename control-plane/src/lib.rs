//! The rooms of weft's control plane, in the order in which a change walks through them.

pub mod cli;

pub mod resource;
pub mod store;

pub mod ca;
pub mod registry;

pub mod compile;
pub mod subscription;

pub mod grpc;

pub mod admin;
pub mod app;
pub mod telemetry;
