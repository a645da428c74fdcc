//! What is in force now: an immutable value, replaced as a whole at each push.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use rpds::HashTrieMapSync;

use super::{Address, Cluster, Inbound, Route, Service, ServiceName, ServicePort};

/// Every resource that this proxy has asked for. The maps share what they have in common with their
/// clones, so the next configuration costs what is new in it and not what there is.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    pub services: HashTrieMapSync<ServiceName, Entry<Service>, RandomState>,
    pub addresses: HashTrieMapSync<SocketAddr, Entry<Address>, RandomState>,
    pub routes: HashTrieMapSync<ServicePort, Entry<Route>, RandomState>,
    pub clusters: HashTrieMapSync<ServicePort, Entry<Cluster>, RandomState>,
    pub inbound: Option<Arc<Inbound>>,
}

/// A resource, or the knowledge that there is none of that name.
#[derive(Debug)]
pub struct Entry<T> {
    value: Option<Arc<T>>,
    /// Set by every look-up, cleared by discovery's sweep: what stays clear is forgotten.
    used: Arc<AtomicBool>,
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq)]
pub enum Known<T> {
    /// The control plane said what it is.
    Present(Arc<T>),
    /// The control plane said that there is none.
    Absent,
    /// Never asked for.
    Unknown,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            used: self.used.clone(),
        }
    }
}

impl<T> Entry<T> {
    /// A fresh entry counts as used until the next sweep but one.
    pub fn new(value: Option<Arc<T>>) -> Self {
        Self {
            value,
            used: Arc::new(AtomicBool::new(true)),
        }
    }

    /// The next version of the same resource; use is remembered.
    pub fn replace(&self, value: Option<Arc<T>>) -> Self {
        Self {
            value,
            used: self.used.clone(),
        }
    }

    /// The resource without marking it as used.
    pub fn peek(&self) -> Option<&Arc<T>> {
        self.value.as_ref()
    }

    /// Whether it was looked up since the last sweep; clears the mark.
    pub fn sweep(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    fn get(&self) -> Known<T> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.value.clone().map_or(Known::Absent, Known::Present)
    }
}

impl Configuration {
    pub fn service(&self, name: &ServiceName) -> Known<Service> {
        self.services.get(name).map_or(Known::Unknown, Entry::get)
    }

    pub fn address(&self, address: &SocketAddr) -> Known<Address> {
        self.addresses
            .get(address)
            .map_or(Known::Unknown, Entry::get)
    }

    pub fn route(&self, name: &ServicePort) -> Known<Route> {
        self.routes.get(name).map_or(Known::Unknown, Entry::get)
    }

    pub fn cluster(&self, name: &ServicePort) -> Known<Cluster> {
        self.clusters.get(name).map_or(Known::Unknown, Entry::get)
    }
}
