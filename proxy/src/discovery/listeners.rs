//! Which TCP sockets listen in this network namespace. The kernel is asked by `sock_diag` (see
//! sock_diag(7)), which looks at listening sockets alone; where that is missing, `/proc/net/tcp` is
//! read, for which the kernel walks its whole table of connections each time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Listening sockets that are taken in; those after them are not seen.
const LISTENERS_MAX: usize = 65_536;
/// `TCP_LISTEN` in the kernel's text table.
const LISTEN_TEXT: &str = "0A";

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// The bit of `TCP_LISTEN` in a request's states.
const STATE_LISTEN: u32 = 1 << 10;
/// Octets of a message's header, and with it of a request.
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = 72;
/// Room for one answer of the kernel, which holds many messages.
const ANSWER_BYTES: usize = 32 * 1024;
/// The kernel answers at once; this is for a kernel that doesn't.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Where somebody accepts connections. Every request that comes in looks into it.
pub(super) type Listeners = std::collections::HashSet<SocketAddr, foldhash::fast::RandomState>;

/// Reads every listening socket.
pub(super) fn read() -> io::Result<Listeners> {
    let mut listeners = Listeners::default();
    if ask_kernel(&mut listeners).is_ok() {
        return Ok(listeners);
    }
    listeners.clear();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match File::open(table) {
            Ok(file) => read_table(BufReader::new(file), &mut listeners)?,
            // A host without IPv6 has no second table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

fn ask_kernel(listeners: &mut Listeners) -> io::Result<()> {
    let domain = Domain::from(AF_NETLINK);
    let protocol = Protocol::from(NETLINK_SOCK_DIAG);
    let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut answer = vec![0; ANSWER_BYTES];
    for family in [AF_INET, AF_INET6] {
        socket.send(&request(family))?;
        loop {
            let length = socket.read(&mut answer)?;
            if take_answer(&answer[..length], listeners)? {
                break;
            }
        }
    }
    Ok(())
}

/// `nlmsghdr` and `inet_diag_req_v2`, in the host's byte order.
fn request(family: u8) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    request[0..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request[16] = family;
    request[17] = IPPROTO_TCP;
    request[20..24].copy_from_slice(&STATE_LISTEN.to_ne_bytes());
    request
}

/// Takes the messages of one answer; true after the last.
fn take_answer(mut answer: &[u8], listeners: &mut Listeners) -> io::Result<bool> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    while let Some(header) = answer.first_chunk::<HEADER_BYTES>() {
        let [l0, l1, l2, l3, t0, t1, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let message = answer.get(HEADER_BYTES..length).ok_or_else(malformed)?;
        match u16::from_ne_bytes([t0, t1]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(io::ErrorKind::Unsupported.into()),
            SOCK_DIAG_BY_FAMILY if listeners.len() < LISTENERS_MAX => {
                listeners.insert(local_of(message).ok_or_else(malformed)?);
            }
            _ => {}
        }
        // Messages are aligned to four octets.
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The local address of an `inet_diag_msg`, whose addresses and ports are in network order.
fn local_of(message: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
    let address = message.get(8..)?;
    let ip = match *message.first()? {
        AF_INET => IpAddr::from(Ipv4Addr::from(*address.first_chunk::<4>()?)),
        AF_INET6 => Ipv6Addr::from(*address.first_chunk::<16>()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads the text table; the kernel lists listening sockets before all others.
fn read_table(table: impl BufRead, listeners: &mut Listeners) -> io::Result<()> {
    for line in table.lines().skip(1).take(LISTENERS_MAX) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        if fields.nth(1) != Some(LISTEN_TEXT) {
            break;
        }
        listeners.extend(parse_local(local));
    }
    Ok(())
}

/// `0100007F:0016`: the address as 32-bit words in the host's byte order.
fn parse_local(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn table_lines() {
        let check = |text: &str, expect: Option<&str>| {
            let expect = expect.map(|expect| expect.parse().unwrap());
            assert_eq!(parse_local(text), expect, "{text}");
        };
        if cfg!(target_endian = "little") {
            check("0100007F:0016", Some("127.0.0.1:22"));
            check("00000000000000000000000001000000:1F90", Some("[::1]:8080"));
            check(
                "0000000000000000FFFF00000100007F:1F90",
                Some("127.0.0.1:8080"),
            );
        }
        check("00000000:0050", Some("0.0.0.0:80"));
        check("00000000000000000000000000000000:0050", Some("[::]:80"));
        check("00000000", None);
        check("0000:0050", None);
        check("0000000G:0050", None);
    }

    #[test]
    fn only_listening_sockets_are_read() {
        let table = "  sl  local_address rem_address   st\n\
            0: 00000000:0050 00000000:0000 0A 0\n\
            1: 00000000:0051 00000000:0000 01 0\n\
            2: 00000000:0052 00000000:0000 0A 0\n";
        let mut listeners = Listeners::default();
        read_table(table.as_bytes(), &mut listeners).unwrap();
        assert_eq!(
            listeners,
            Listeners::from_iter(["0.0.0.0:80".parse().unwrap()])
        );
    }

    #[test]
    fn the_kernel_and_its_table_say_the_same() {
        let bound: Vec<TcpListener> = ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"]
            .iter()
            .filter_map(|address| TcpListener::bind(address).ok())
            .collect();
        let _connected = std::net::TcpStream::connect(bound[0].local_addr().unwrap()).unwrap();
        let mut asked = Listeners::default();
        if ask_kernel(&mut asked).is_err() {
            // A kernel without sock_diag: the table is all there is.
            return;
        }
        for listener in &bound {
            let address = listener.local_addr().unwrap();
            assert!(asked.contains(&address), "{address} not in {asked:?}");
        }
        let mut table = Listeners::default();
        read_table(
            BufReader::new(File::open("/proc/net/tcp").unwrap()),
            &mut table,
        )
        .unwrap();
        for listener in bound.iter().filter(|l| l.local_addr().unwrap().is_ipv4()) {
            assert!(table.contains(&listener.local_addr().unwrap()));
        }
    }

    #[test]
    fn an_answer_that_is_cut_is_refused() {
        let mut listeners = Listeners::default();
        let mut message = vec![0; HEADER_BYTES + 4];
        message[0..4].copy_from_slice(&(HEADER_BYTES as u32 + 4).to_ne_bytes());
        message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        assert!(take_answer(&message, &mut listeners).is_err());
        message[0..4].copy_from_slice(&1000u32.to_ne_bytes());
        assert!(take_answer(&message, &mut listeners).is_err());
        assert!(!take_answer(&[], &mut listeners).unwrap());
    }
}
