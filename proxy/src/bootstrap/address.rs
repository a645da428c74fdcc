//! Which of this host's addresses others reach it at.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// Addresses kept for documentation (RFC 5737, RFC 3849): a socket connected to one takes the
/// address of the default route. No packet is sent.
const ELSEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        9,
    ),
];

/// The local address of a socket connected to the control plane, or that of the default route while
/// the control plane's name does not resolve.
pub(super) fn find_own(control_plane: &str) -> io::Result<IpAddr> {
    let resolved = control_plane.to_socket_addrs();
    let mut last = io::Error::other("the host has no route");
    for target in resolved.into_iter().flatten().chain(ELSEWHERE) {
        match local_towards(target) {
            Ok(address) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn local_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_loopback_is_loopback() {
        let own = find_own("127.0.0.1:4180").unwrap();
        assert_eq!(own, IpAddr::from(Ipv4Addr::LOCALHOST));
    }
}
