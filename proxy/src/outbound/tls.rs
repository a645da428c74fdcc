//! Connections to a service that TLSRoutes are attached to: the server name that the client asks for
//! decides where its bytes go. TLS is the application's own and passes unopened.

use tokio::time::timeout;

use super::destination::Destination;
use super::{Client, Known, Outbound};
use crate::detect::client_hello;
use crate::model::{Fault, Protocol, Route};
use crate::route;
use crate::tcp::Reader;

impl Outbound {
    pub(super) async fn find_tls_route(
        &self,
        destination: Destination,
        route: &Route,
        mut client: Client,
    ) -> Option<Box<Known>> {
        let wanted = timeout(self.limits.head_timeout, server_name(&mut client.reader)).await;
        let server_name = match wanted {
            Ok(Ok(server_name)) => server_name,
            Ok(Err(fault)) => return self.refuse(client, fault),
            Err(_) => return self.refuse(client, Fault::HeaderTimeout),
        };
        let Some(rule) = route::find_tls(&route.tls_rules, server_name.as_deref()) else {
            return self.refuse(client, Fault::NoRoute);
        };
        let opened = self.open_tcp_backend(&rule.route, &rule.backends, Protocol::Tls);
        match Box::pin(opened).await {
            Ok(upstream) => Some(Box::new(Known {
                destination,
                client,
                protocol: Protocol::Tls,
                upstream: Some(upstream),
            })),
            Err(fault) => self.refuse(client, fault),
        }
    }
}

/// The server name of the ClientHello, which stays in the reader's buffer; nothing where the client
/// names none.
async fn server_name(reader: &mut Reader) -> Result<Option<String>, Fault> {
    loop {
        match client_hello(&reader.buffer) {
            Ok(Some(hello)) => return Ok(hello.server_name),
            // What isn't TLS is no TLSRoute's.
            Err(_) => return Err(Fault::NoRoute),
            Ok(None) => {}
        }
        if !matches!(reader.fill().await, Ok(count) if count > 0) {
            return Err(Fault::ClientGone);
        }
    }
}
