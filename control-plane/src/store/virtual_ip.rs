//! Allots virtual IPs to services: by a hash of the name first, so that a service gets the same
//! address again also in a new store, then the next free one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

/// 240.0.0.0/8: reserved (RFC 1112), so no real host is hidden by it.
const IPV4_NETWORK: u32 = 240 << 24;
const IPV4_HOST_MASK: u32 = (1 << 24) - 1;

/// fd77:6566:7400::/48: unique local (RFC 4193).
const IPV6_NETWORK: u128 = 0xfd77_6566_7400 << 80;
const IPV6_HOST_MASK: u128 = (1 << 80) - 1;

/// Addresses that are tried before it is said that none is free.
const PROBES_MAX: u32 = 1 << 20;

/// An address of each family that `taken` does not know; nothing when none is free.
pub(super) fn allot(
    namespace: &str,
    name: &str,
    taken: impl Fn(IpAddr) -> bool,
) -> Option<[IpAddr; 2]> {
    let digest = Sha256::digest(format!("{namespace}/{name}"));
    let mut start = [0u8; 16];
    start.copy_from_slice(&digest[..16]);
    let start = u128::from_be_bytes(start);
    let ipv4 = |probe: u32| {
        let low = start & u128::from(IPV4_HOST_MASK);
        let host = u32::try_from(low).ok()?.wrapping_add(probe) & IPV4_HOST_MASK;
        // The network's own address and its broadcast address confuse some applications.
        (host != 0 && host != IPV4_HOST_MASK)
            .then(|| IpAddr::V4(Ipv4Addr::from_bits(IPV4_NETWORK | host)))
    };
    let ipv6 = |probe: u32| {
        let host = start.wrapping_add(u128::from(probe)) & IPV6_HOST_MASK;
        (host != 0).then(|| IpAddr::V6(Ipv6Addr::from_bits(IPV6_NETWORK | host)))
    };
    let free = |address: &IpAddr| !taken(*address);
    let ipv4 = (0..PROBES_MAX).filter_map(ipv4).find(free)?;
    let ipv6 = (0..PROBES_MAX).filter_map(ipv6).find(free)?;
    Some([ipv4, ipv6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_stable_and_avoids_what_is_taken() {
        let first = allot("shop", "orders", |_| false).unwrap();
        assert_eq!(first, allot("shop", "orders", |_| false).unwrap());
        assert_ne!(first, allot("shop", "web", |_| false).unwrap());
        assert!(first[0].to_string().starts_with("240."));
        assert!(first[1].to_string().starts_with("fd77:6566:7400:"));
        let second = allot("shop", "orders", |ip| first.contains(&ip)).unwrap();
        assert!(!second.contains(&first[0]) && !second.contains(&first[1]));
        assert_eq!(allot("shop", "orders", |ip| ip.is_ipv6()), None);
    }
}
