//! What lives behind the services: the workloads whose sidecars are connected, the application ports
//! of theirs that accept connections, and the addresses that DNS gives for external names.

mod external;
mod resolver;
mod workload;
mod workloads;

pub use external::{ExternalNames, HOSTS_MAX, Resolution};
pub use resolver::{Answer, Resolver};
pub use workload::{InvalidWorkload, LABELS_MAX, PORTS_MAX, Workload};
pub use workloads::Workloads;
