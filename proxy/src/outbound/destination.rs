//! Where a connection or a request wants to go.

use std::cell::{RefCell, RefMut};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::Outbound;
use crate::discovery;
use crate::model::{
    Address, Cluster, Configuration, Endpoint, Fault, Host, Known, Name, Protocol, Route,
    ServiceName, ServicePort, Text,
};

/// A destination, as far as its address or host tells it.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    /// A service of the mesh; routes and balancing apply.
    Service(Rc<ServicePort>),
    /// One workload, by its own address.
    Endpoint(Arc<Endpoint>),
    /// An address that the mesh doesn't know: passed through.
    Outside(SocketAddr),
}

impl Destination {
    /// What a request of HTTP/1.0 that names no host asks, as HTTP/1.1 says it.
    pub(super) fn host(&self) -> Option<Text> {
        let host = match self {
            Destination::Service(port) => {
                let (service, port) = (port.service(), port.port());
                format!("{}.{}:{port}", service.name(), service.namespace())
            }
            Destination::Endpoint(endpoint) => endpoint.address.to_string(),
            Destination::Outside(address) => address.to_string(),
        };
        Text::try_from(host.as_str()).ok()
    }
}

/// What was looked up since the last sweep, for as long as nothing changes: requests mostly go on asking for the same.
#[derive(Default)]
pub(super) struct Latest(RefCell<Option<Looked>>);

/// See [`Latest`].
struct Looked {
    configuration: Arc<Configuration>,
    route: Option<(ServicePort, Arc<Route>)>,
    cluster: Option<(ServicePort, Arc<Cluster>)>,
}

impl Latest {
    /// What is known of the configuration that is in force; nothing yet, if it is another than before.
    fn of(&self, discovery: &discovery::Handle) -> RefMut<'_, Looked> {
        let mut latest = self.0.borrow_mut();
        latest.take_if(|looked| !discovery.is_current(&looked.configuration));
        RefMut::map(latest, |latest| {
            latest.get_or_insert_with(|| Looked {
                configuration: discovery.current(),
                route: None,
                cluster: None,
            })
        })
    }

    /// Forgets all of it, so that no old configuration is kept, and discovery sees what is still used.
    pub(super) fn sweep(&self) {
        self.0.take();
    }
}

impl Outbound {
    /// What an address that the application dialled means.
    pub(super) async fn find_address(&self, address: SocketAddr) -> Result<Destination, Fault> {
        if self.is_own(address) {
            return Err(Fault::Loop);
        }
        let name = [Name::Address(address)];
        let known = match self.discovery.current().address(&address) {
            Known::Unknown => match self.discovery.resolve(&name).await {
                Ok(configuration) => configuration.address(&address),
                Err(_) if is_virtual(address.ip()) => return Err(Fault::DiscoveryUnavailable),
                Err(_) => Known::Absent,
            },
            known => known,
        };
        match known {
            Known::Present(found) => Ok(match &*found {
                Address::Service(service) => {
                    Destination::Service(Rc::new(service.port(address.port())))
                }
                Address::Endpoint(endpoint) => Destination::Endpoint(endpoint.clone()),
            }),
            Known::Absent | Known::Unknown if is_virtual(address.ip()) => {
                Err(Fault::UnknownDestination)
            }
            Known::Absent | Known::Unknown => self.outside(address),
        }
    }

    /// An address that is nobody's in the mesh, if policy lets calls to it pass.
    fn outside(&self, address: SocketAddr) -> Result<Destination, Fault> {
        self.pass_unknown()?;
        Ok(Destination::Outside(address))
    }

    /// Whether policy lets calls pass to what is no service of the mesh.
    fn pass_unknown(&self) -> Result<(), Fault> {
        match &self.discovery.current().inbound {
            Some(own) if own.refuses_unknown => Err(Fault::DestinationRefused),
            _ => Ok(()),
        }
    }

    /// What `HOST` or `HOST:PORT` means; the scheme gives the port that is left out.
    pub(super) async fn find_authority(
        &self,
        authority: &str,
        scheme: Option<&str>,
    ) -> Result<Destination, Fault> {
        let authority: ::http::uri::Authority =
            authority.parse().map_err(|_| Fault::MalformedRequest)?;
        let default = if scheme == Some("https") { 443 } else { 80 };
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| Fault::MalformedRequest)?,
            None => default,
        };
        match Host::parse(authority.host(), &self.own.namespace) {
            Host::Ip(ip) => return self.find_address(SocketAddr::new(ip, port)).await,
            Host::Service(service) => {
                if let Some(known) = self.known_service(&service).await? {
                    return Ok(Destination::Service(Rc::new(known.port(port))));
                }
            }
            Host::Other(_) => {}
        }
        self.look_up(authority.host(), port).await
    }

    /// The name of this service, if it is one: shared with the configuration, so that all connections have the same
    /// texts to compare.
    async fn known_service(&self, service: &ServiceName) -> Result<Option<ServiceName>, Fault> {
        let known = match self.discovery.current().service(service) {
            Known::Unknown => {
                let resolved = self
                    .discovery
                    .resolve(&[Name::Service(service.clone())])
                    .await;
                resolved
                    .map_err(|_| Fault::DiscoveryUnavailable)?
                    .service(service)
            }
            known => known,
        };
        Ok(match known {
            Known::Present(service) => Some(service.name.clone()),
            Known::Absent | Known::Unknown => None,
        })
    }

    /// A host that is no service is asked of the host's own resolver.
    async fn look_up(&self, host: &str, port: u16) -> Result<Destination, Fault> {
        self.pass_unknown()?;
        let mut addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(|_| Fault::UnknownDestination)?;
        let address = addresses.next().ok_or(Fault::UnknownDestination)?;
        if self.is_own(address) {
            Err(Fault::Loop)
        } else {
            Ok(Destination::Outside(address))
        }
    }

    /// Whether the proxy would call one of its own listeners.
    fn is_own(&self, address: SocketAddr) -> bool {
        let ip = address.ip();
        self.own.ports.contains(&address.port()) && (ip.is_loopback() || ip.is_unspecified())
    }

    /// The protocol that the destination's document names, if it names one.
    pub(super) async fn protocol_of(
        &self,
        destination: &Destination,
    ) -> Result<Option<Protocol>, Fault> {
        match destination {
            Destination::Service(port) if self.route(port).await?.tcp.is_some() => {
                Ok(Some(Protocol::Tcp))
            }
            Destination::Service(port) => Ok(self.cluster(port).await?.protocol),
            Destination::Endpoint(_) => Ok(None),
            Destination::Outside(_) => Ok(Some(Protocol::Tcp)),
        }
    }

    /// The endpoints of a port of a service.
    pub(super) async fn cluster(&self, port: &ServicePort) -> Result<Arc<Cluster>, Fault> {
        match self.discovery.current().cluster(port) {
            Known::Present(cluster) => Ok(cluster),
            Known::Absent => Err(Fault::UnknownDestination),
            Known::Unknown => match self.ask(port).await?.cluster(port) {
                Known::Present(cluster) => Ok(cluster),
                Known::Absent | Known::Unknown => Err(Fault::UnknownDestination),
            },
        }
    }

    /// The routes of a port of a service.
    pub(super) async fn route(&self, port: &ServicePort) -> Result<Arc<Route>, Fault> {
        match self.discovery.current().route(port) {
            Known::Present(route) => Ok(route),
            Known::Absent => Err(Fault::UnknownDestination),
            Known::Unknown => match self.ask(port).await?.route(port) {
                Known::Present(route) => Ok(route),
                Known::Absent | Known::Unknown => Err(Fault::UnknownDestination),
            },
        }
    }

    /// As [`route`](Self::route), for a request: most ask for the same as the one before.
    pub(super) async fn latest_route(&self, port: &ServicePort) -> Result<Arc<Route>, Fault> {
        {
            let mut latest = self.latest.of(&self.discovery);
            match &latest.route {
                Some((known, route)) if known == port => return Ok(route.clone()),
                _ => {}
            }
            if let Known::Present(route) = latest.configuration.route(port) {
                latest.route = Some((port.clone(), route.clone()));
                return Ok(route);
            }
        }
        self.route(port).await
    }

    /// As [`cluster`](Self::cluster), for a request: most ask for the same as the one before.
    pub(super) async fn latest_cluster(&self, port: &ServicePort) -> Result<Arc<Cluster>, Fault> {
        {
            let mut latest = self.latest.of(&self.discovery);
            match &latest.cluster {
                Some((known, cluster)) if known == port => return Ok(cluster.clone()),
                _ => {}
            }
            if let Known::Present(cluster) = latest.configuration.cluster(port) {
                latest.cluster = Some((port.clone(), cluster.clone()));
                return Ok(cluster);
            }
        }
        self.cluster(port).await
    }

    /// Asks for everything of a port at once, so that its first request waits once.
    async fn ask(&self, port: &ServicePort) -> Result<Arc<Configuration>, Fault> {
        let names = [Name::Route(port.clone()), Name::Cluster(port.clone())];
        self.discovery
            .resolve(&names)
            .await
            .map_err(|_| Fault::DiscoveryUnavailable)
    }
}

/// The ranges from which the control plane allots virtual IPs; nothing else lives there.
fn is_virtual(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 240,
        IpAddr::V6(ip) => ip.segments()[..3] == [0xfd77, 0x6566, 0x7400],
    }
}
