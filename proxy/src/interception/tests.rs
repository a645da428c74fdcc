use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn parse(line: &str) -> Result<Options, clap::Error> {
    Line::try_parse_from(line.split_whitespace()).map(|line| line.options)
}

#[test]
fn rules() {
    let check = |line: &str, expect: &[&str]| {
        let text = ruleset::build(&parse(line).unwrap());
        let all: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(
            all[..3],
            [
                "table inet weft",
                "delete table inet weft",
                "table inet weft {"
            ]
        );
        let rules: Vec<&str> = all[3..]
            .iter()
            .copied()
            .filter(|line| !["}", "chain outbound {", "chain inbound {"].contains(line))
            .filter(|line| !line.starts_with("type nat hook "))
            .collect();
        assert_eq!(rules, expect, "{line}");
    };
    check(
        "init --proxy-uid 1337",
        &[
            "meta skuid 1337 return",
            "ip daddr 127.0.0.0/8 return",
            "ip6 daddr ::1 return",
            "fib daddr type local return",
            "meta l4proto tcp redirect to :4140",
            "iifname \"lo\" return",
            "fib daddr type != local return",
            "tcp dport { 4143, 4191 } return",
            "meta l4proto tcp redirect to :4143",
        ],
    );
    check(
        "init --proxy-gid 7 --dns --dns-port 5 --outbound-port 1 --inbound-port 2 --admin-port 3 \
         --skip-inbound-ports 22,9,22 --skip-outbound-ports 25,25 --skip-outbound-cidrs 10.0.0.0/8,fd00::/8,10.1.1.1",
        &[
            "meta skgid 7 return",
            "ip daddr 10.0.0.0/8 return",
            "ip6 daddr fd00::/8 return",
            "ip daddr 10.1.1.1/32 return",
            "meta l4proto { tcp, udp } th dport 53 redirect to :5",
            "ip daddr 127.0.0.0/8 return",
            "ip6 daddr ::1 return",
            "fib daddr type local return",
            "tcp dport { 25 } return",
            "meta l4proto tcp redirect to :1",
            "iifname \"lo\" return",
            "fib daddr type != local return",
            "tcp dport { 2, 3, 9, 22 } return",
            "meta l4proto tcp redirect to :2",
        ],
    );
}

#[test]
fn wrong_usage() {
    for line in [
        "init",
        "init --proxy-uid x",
        "init --proxy-uid 1 --outbound-port 0",
        "init --proxy-uid 1 --skip-outbound-ports 70000",
        "init --proxy-uid 1 --skip-outbound-cidrs 10.0.0.0/33",
        "init --proxy-uid 1 --skip-outbound-cidrs web",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    let ports = vec!["22"; SKIPPED_MAX + 1].join(",");
    let options = parse(&format!("init --proxy-uid 1 --skip-inbound-ports {ports}")).unwrap();
    assert!(matches!(init(&options), Err(Error::TooMany { .. })));
}

#[test]
fn a_missing_program_and_refused_rules_are_named() {
    let missing = nft::load(&["weft-no-such-program"], ruleset::REMOVE);
    assert!(matches!(missing, Err(Error::Missing)), "{missing:?}");
    let refused = nft::load(&["sh", "-c", "echo 'Error: syntax' >&2; exit 1"], "");
    assert!(refused.unwrap_err().to_string().contains("Error: syntax"));
    let denied = nft::load(
        &["sh", "-c", "echo 'Operation not permitted' >&2; exit 1"],
        "",
    );
    assert!(matches!(denied, Err(Error::NotPermitted { .. })));
}

/// Two network namespaces joined by a pair of interfaces, gone when dropped.
struct Namespaces(String, String);

impl Namespaces {
    fn create() -> Option<Self> {
        let id = std::process::id();
        let spaces = Self(format!("weft-a-{id}"), format!("weft-b-{id}"));
        let (a, b) = (&spaces.0, &spaces.1);
        let script = format!(
            "set -e\nip netns add {a}; ip netns add {b}\n\
             ip -n {a} link set lo up; ip -n {b} link set lo up\n\
             ip -n {a} link add weft0 type veth peer name weft1 netns {b}\n\
             ip -n {a} link set weft0 up; ip -n {b} link set weft1 up\n\
             ip -n {a} addr add 10.77.0.1/24 dev weft0; ip -n {b} addr add 10.77.0.2/24 dev weft1\n\
             ip -n {a} addr add fd77::1/64 dev weft0 nodad; ip -n {b} addr add fd77::2/64 dev weft1 nodad\n\
             ip -n {a} route add default via 10.77.0.2; ip -n {a} -6 route add default via fd77::2\n"
        );
        let output = Command::new("sh").args(["-c", &script]).output();
        match output {
            Ok(output) if output.status.success() => Some(spaces),
            other => {
                eprintln!("SKIPPED: network namespaces can't be made here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.0, &self.1] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs the test below inside a network namespace of its own.
#[test]
fn in_a_network_namespace() {
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("SKIPPED: nft is not installed");
        return;
    }
    let Some(spaces) = Namespaces::create() else {
        return;
    };
    let output = Command::new("ip")
        .args(["netns", "exec", &spaces.0])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "interception::tests::connections_are_redirected",
        ])
        .args(["--nocapture"])
        .env("WEFT_TEST_PEER", &spaces.1)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "{text}{errors}");
}

#[test]
#[ignore = "run by in_a_network_namespace, inside one"]
fn connections_are_redirected() {
    let peer = std::env::var("WEFT_TEST_PEER").expect("in_a_network_namespace starts this test");
    let before = rules_in_force();
    let options = parse("init --proxy-uid 61337 --dns --skip-inbound-ports 2222").unwrap();
    init(&options).unwrap();
    let once = rules_in_force();
    init(&options).unwrap();
    assert_eq!(rules_in_force(), once, "the second run changed something");

    for (loopback, elsewhere, own) in [
        ("127.0.0.1", "240.0.0.5", "10.77.0.1"),
        ("::1", "fd77:6566:7400::5", "fd77::1"),
    ] {
        let [loopback, elsewhere, own] =
            [loopback, elsewhere, own].map(|a| a.parse::<IpAddr>().unwrap());
        outbound_goes_to_the_proxy(loopback, elsewhere);
        local_goes_straight(own);
        dns_goes_to_the_proxy(loopback, elsewhere);
        inbound_goes_to_the_proxy(own, &peer);
    }
    cleanup(&CleanupOptions { dry_run: false }).unwrap();
    cleanup(&CleanupOptions { dry_run: false }).unwrap();
    assert_eq!(rules_in_force(), before, "something is left behind");
}

fn rules_in_force() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

fn original_destination(stream: &TcpStream) -> SocketAddr {
    let socket = socket2::SockRef::from(stream);
    let original = if stream.peer_addr().unwrap().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    original.unwrap().as_socket().unwrap()
}

fn outbound_goes_to_the_proxy(loopback: IpAddr, elsewhere: IpAddr) {
    let proxy = TcpListener::bind((loopback, 4140)).unwrap();
    let target = SocketAddr::new(elsewhere, 80);
    let _client = TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap();
    let (accepted, _) = proxy.accept().unwrap();
    assert_eq!(original_destination(&accepted), target);
}

fn local_goes_straight(own: IpAddr) {
    let server = TcpListener::bind((own, 0)).unwrap();
    let target = server.local_addr().unwrap();
    let client = TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap();
    let (_, from) = server.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
}

fn dns_goes_to_the_proxy(loopback: IpAddr, elsewhere: IpAddr) {
    let server = UdpSocket::bind((loopback, 4153)).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let any: IpAddr = if loopback.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    let client = UdpSocket::bind((any, 0)).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client.connect((elsewhere, 53)).unwrap();
    client.send(b"question").unwrap();
    let mut bytes = [0; 16];
    let (length, from) = server.recv_from(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"question");
    server.send_to(b"answer", from).unwrap();
    let length = client.recv(&mut bytes).unwrap();
    assert_eq!(
        &bytes[..length],
        b"answer",
        "answers come from the address that was asked"
    );
    let server = TcpListener::bind((loopback, 4153)).unwrap();
    let target = SocketAddr::new(elsewhere, 53);
    let _client = TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap();
    let (accepted, _) = server.accept().unwrap();
    assert_eq!(original_destination(&accepted), target);
}

/// The peer connects to a port that nobody listens on, then to one that is left alone.
fn inbound_goes_to_the_proxy(own: IpAddr, peer: &str) {
    for (asked, listens, redirected) in [(9000, 4143, true), (2222, 2222, false)] {
        let server = TcpListener::bind((own, listens)).unwrap();
        let connect = format!("exec 3<>/dev/tcp/{own}/{asked}; echo hello >&3; cat <&3");
        let mut client = Command::new("ip")
            .args(["netns", "exec", peer, "bash", "-c", &connect])
            .spawn()
            .unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        let mut bytes = [0; 6];
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello\n");
        if redirected {
            assert_eq!(original_destination(&accepted), SocketAddr::new(own, asked));
        }
        accepted.flush().unwrap();
        drop(accepted);
        assert!(client.wait().unwrap().success());
    }
}
