use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::op::{Edns, MessageType, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;
use tokio::task::LocalSet;

use super::forward::{READING_AGE_MAX, ResolvConf, parse_resolvers};
use super::*;

#[derive(Clone, Default)]
struct Mesh {
    services: HashMap<ServiceName, Arc<Service>>,
    /// Nobody can be asked for others.
    alone: bool,
}

impl Lookup for Mesh {
    async fn service(&self, name: &ServiceName) -> Known<Service> {
        match self.services.get(name) {
            Some(service) => Known::Present(service.clone()),
            None if self.alone => Known::Unknown,
            None => Known::Absent,
        }
    }
}

impl Mesh {
    fn shop() -> Self {
        let mut mesh = Mesh::default();
        mesh.add("orders", &["240.0.0.7", "fd77:6566:7400::7"], &[], None);
        mesh.add("legacy", &["240.0.0.8"], &[], None);
        let many: Vec<String> = (1..=200).map(|n| format!("10.0.0.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        mesh.add("peers", &[], &["10.1.0.1", "10.1.0.2", "fd00::1"], None);
        mesh.add("crowd", &[], &many, None);
        mesh.add("site", &[], &[], Some("www.example.com"));
        mesh.add("alias", &[], &[], Some("orders.shop.svc.cluster.local"));
        mesh.add("loop", &[], &[], Some("loop.shop"));
        mesh.add("lost", &[], &[], Some("nothing.shop"));
        mesh
    }

    fn add(
        &mut self,
        name: &str,
        virtual_ips: &[&str],
        endpoints: &[&str],
        external: Option<&str>,
    ) {
        let name = ServiceName::new("shop", name).unwrap();
        let ips =
            |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        let service = Service {
            name: name.clone(),
            virtual_ips: ips(virtual_ips),
            ports: Vec::new(),
            headless: !endpoints.is_empty(),
            external_name: external.map(str::to_owned),
            endpoint_addresses: ips(endpoints),
        };
        self.services.insert(name, Arc::new(service));
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn ask_udp_at(server: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let bytes = message.to_vec().unwrap();
    socket.send_to(&bytes, server).await.unwrap();
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let received = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await;
    let length = received.expect("an answer in time").unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask_tcp_at(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    write_message(&mut stream, &message.to_vec().unwrap())
        .await
        .unwrap();
    let bytes = read_message(&mut stream).await.unwrap().unwrap();
    Message::from_vec(&bytes).unwrap()
}

fn describe(answer: &Message) -> String {
    let mut text = format!("{:?}", answer.metadata.response_code);
    for record in &answer.answers {
        text.push_str(&format!(" {}={}", record.name, record.data));
    }
    text
}

/// A resolver that knows one name, sends a wrong answer first, and truncates `long.example.com`.
async fn start_resolver() -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    tokio::task::spawn_local(async move {
        let mut buffer = vec![0; 2048];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let answer = resolve(&buffer[..length], true);
            let mut forged = answer.clone();
            forged.metadata.id = forged.metadata.id.wrapping_add(1);
            udp.send_to(&forged.to_vec().unwrap(), from).await.unwrap();
            udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    tokio::task::spawn_local(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let bytes = read_message(&mut stream).await.unwrap().unwrap();
            let answer = resolve(&bytes, false).to_vec().unwrap();
            write_message(&mut stream, &answer).await.unwrap();
        }
    });
    address
}

fn resolve(bytes: &[u8], udp: bool) -> Message {
    let asked = Message::from_vec(bytes).unwrap();
    let mut answer = asked.clone().into_response();
    answer.metadata.message_type = MessageType::Response;
    let name = asked.queries[0].name().clone();
    match name.to_ascii().to_ascii_lowercase().as_str() {
        "long.example.com." if udp => answer.metadata.truncation = true,
        "example.com." | "www.example.com." | "long.example.com." => {
            let data = RData::A(A([192, 0, 2, 80].into()));
            answer.add_answer(Record::from_rdata(name, 60, data));
        }
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer
}

async fn start(resolvers: Vec<SocketAddr>) -> SocketAddr {
    start_with(Mesh::shop(), resolvers).await
}

async fn start_with(mesh: Mesh, resolvers: Vec<SocketAddr>) -> SocketAddr {
    let forwarder = Forwarder::new(resolvers, Duration::from_millis(300));
    let address = vec!["127.0.0.1:0".parse().unwrap()];
    let bound = bind(address, "shop".to_owned(), mesh, forwarder).await;
    bound.unwrap()[0]
}

#[tokio::test]
async fn names() {
    let test = async {
        let resolver = start_resolver().await;
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = start(vec![silent.local_addr().unwrap(), resolver]).await;
        let check = async |name: &str, kind: RecordType, expect: &str| {
            let asked = question(name, kind);
            for answer in [
                ask_udp_at(server, &asked).await,
                ask_tcp_at(server, &asked).await,
            ] {
                assert_eq!(describe(&answer), expect, "{name} {kind}");
                assert_eq!(answer.metadata.id, asked.metadata.id);
                assert_eq!(answer.queries, asked.queries);
            }
        };
        use RecordType::{A, AAAA, MX};
        check("orders.", A, "NoError orders.=240.0.0.7").await;
        check("OrDeRs.Shop.", A, "NoError OrDeRs.Shop.=240.0.0.7").await;
        let full = "orders.shop.svc.cluster.local.";
        check(full, AAAA, &format!("NoError {full}=fd77:6566:7400::7")).await;
        check("orders.", MX, "NoError").await;
        check("legacy.", AAAA, "NoError").await;
        check("peers.", A, "NoError peers.=10.1.0.1 peers.=10.1.0.2").await;
        check("peers.", AAAA, "NoError peers.=fd00::1").await;
        let site = "NoError site.=www.example.com. www.example.com.=192.0.2.80";
        check("site.", A, site).await;
        let alias = format!("NoError alias.={full} {full}=240.0.0.7");
        check("alias.", A, &alias).await;
        check("loop.", A, "ServFail").await;
        check("www.example.com.", A, "NoError www.example.com.=192.0.2.80").await;
        check("nothing.shop.", A, "NXDomain").await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_may_be_a_service_is_not_denied_while_nobody_can_be_asked() {
    let test = async {
        let resolver = start_resolver().await;
        let known = start(vec![resolver]).await;
        let alone = Mesh {
            alone: true,
            ..Mesh::shop()
        };
        let alone = start_with(alone, vec![resolver]).await;
        let check = async |server, name: &str, expect: &str| {
            let asked = question(name, RecordType::A);
            for answer in [
                ask_udp_at(server, &asked).await,
                ask_tcp_at(server, &asked).await,
            ] {
                assert_eq!(describe(&answer), expect, "{name}");
                assert_eq!(answer.metadata.id, asked.metadata.id);
            }
        };
        check(known, "nothing.", "NXDomain").await;
        check(known, "lost.", "NXDomain lost.=nothing.shop.").await;
        check(alone, "nothing.", "ServFail").await;
        check(alone, "nothing.shop.svc.cluster.local.", "ServFail").await;
        check(alone, "lost.", "ServFail lost.=nothing.shop.").await;
        check(alone, "orders.", "NoError orders.=240.0.0.7").await;
        check(alone, "example.com.", "NoError example.com.=192.0.2.80").await;
        check(alone, "no.example.com.", "NXDomain").await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn long_answers_come_by_tcp() {
    let test = async {
        let server = start(vec![start_resolver().await]).await;
        for name in ["crowd.", "long.example.com."] {
            let asked = question(name, RecordType::A);
            let short = ask_udp_at(server, &asked).await;
            assert!(short.metadata.truncation, "{name}");
            assert!(short.answers.is_empty(), "{name}");
            let whole = ask_tcp_at(server, &asked).await;
            assert!(!whole.metadata.truncation, "{name}");
            assert!(!whole.answers.is_empty(), "{name}");
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn without_a_resolver_only_the_mesh_resolves() {
    let test = async {
        let server = start(Vec::new()).await;
        let answer = ask_udp_at(server, &question("www.example.com.", RecordType::A)).await;
        assert_eq!(describe(&answer), "ServFail");
        let mut asked = question("orders.", RecordType::A);
        asked.set_edns(Edns::new());
        let answer = ask_udp_at(server, &asked).await;
        assert_eq!(describe(&answer), "NoError orders.=240.0.0.7");
        assert!(answer.edns.is_some());
        assert_eq!(answer.answers[0].ttl, answer::TTL_SECONDS);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    let test = async {
        let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = start(vec![resolver.local_addr().unwrap()]).await;
        let asked = question("www.example.com.", RecordType::A);
        let mut buffer = vec![0; 2048];
        let answer_second = async {
            resolver.recv(&mut buffer).await.unwrap();
            let (length, from) = resolver.recv_from(&mut buffer).await.unwrap();
            let answer = resolve(&buffer[..length], true).to_vec().unwrap();
            resolver.send_to(&answer, from).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask_udp_at(server, &asked), answer_second);
        let expect = "NoError www.example.com.=192.0.2.80";
        assert_eq!(describe(&answer), expect);
        // Nobody answers in either round, and the resolver saw both.
        let answer = ask_udp_at(server, &asked).await;
        assert_eq!(describe(&answer), "ServFail");
        let mut seen = 0;
        while resolver.try_recv(&mut buffer).is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 2);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn too_many_questions_are_refused() {
    let test = async {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = Forwarder::new(vec![silent.local_addr().unwrap()], Duration::from_secs(30));
        let address = vec!["127.0.0.1:0".parse().unwrap()];
        let bound = bind(address, "shop".to_owned(), Mesh::shop(), forwarder).await;
        let server = bound.unwrap()[0];
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let bytes = question("www.example.com.", RecordType::A)
            .to_vec()
            .unwrap();
        let mut buffer = vec![0; 2048];
        let mut forwarded = 0;
        // Each is waited for until it reached the resolver, so that no socket buffer overflows.
        for _ in 0..QUESTIONS_MAX {
            client.send_to(&bytes, server).await.unwrap();
            silent.recv(&mut buffer).await.unwrap();
            forwarded += 1;
        }
        assert_eq!(forwarded, QUESTIONS_MAX);
        let refused = ask_udp_at(server, &question("orders.", RecordType::A)).await;
        assert_eq!(describe(&refused), "ServFail");
    };
    LocalSet::new().run_until(test).await;
}

#[test]
fn what_is_no_question_is_refused_or_passed_over() {
    let check = |message: &Message, expect: Option<ResponseCode>| {
        let code = match answer::read(&message.to_vec().unwrap(), "shop") {
            Asked::Question(_) => panic!("taken for a question"),
            Asked::Wrong(bytes) => Some(Message::from_vec(&bytes).unwrap().metadata.response_code),
            Asked::Nothing => None,
        };
        assert_eq!(code, expect);
    };
    let mut message = question("orders.", RecordType::A);
    message.metadata.op_code = OpCode::Update;
    check(&message, Some(ResponseCode::NotImp));
    let mut message = question("orders.", RecordType::A);
    message.add_query(message.queries[0].clone());
    check(&message, Some(ResponseCode::FormErr));
    check(&Message::query(), Some(ResponseCode::FormErr));
    check(&question("orders.", RecordType::A).into_response(), None);
}

#[test]
fn resolvers() {
    let check = |text: &str, own: &[&str], expect: &[&str]| {
        let own: Vec<SocketAddr> = own.iter().map(|a| a.parse().unwrap()).collect();
        let expect: Vec<SocketAddr> = expect.iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(parse_resolvers(text, &own), expect, "{text}");
    };
    check("", &[], &[]);
    let text = "# c\nsearch a\nnameserver 127.0.0.1\n nameserver\tfd00::1 \nnameservers 1.1.1.1\nnameserver x\n";
    check(text, &[], &["127.0.0.1:53", "[fd00::1]:53"]);
    check(text, &["127.0.0.1:53"], &["[fd00::1]:53"]);
    check(text, &["0.0.0.0:53"], &["[fd00::1]:53"]);
    check(text, &["127.0.0.1:4153"], &["127.0.0.1:53", "[fd00::1]:53"]);
}

#[test]
fn resolvers_are_read_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let file = ResolvConf::new(path.clone(), vec!["127.0.0.1:53".parse().unwrap()]);
    let start = Instant::now();
    let check = |text: Option<&str>, age: Duration, expect: &[&str]| {
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap_or_default(),
        }
        let expect: Vec<SocketAddr> = expect.iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(file.resolvers(start + age), expect, "{text:?} {age:?}");
    };
    let (first, second) = ("nameserver 192.0.2.1", "nameserver 192.0.2.2");
    let tick = Duration::from_millis(1);
    check(None, Duration::ZERO, &[]);
    check(Some(first), READING_AGE_MAX - tick, &[]);
    check(Some(first), READING_AGE_MAX, &["192.0.2.1:53"]);
    check(Some(second), 2 * READING_AGE_MAX - tick, &["192.0.2.1:53"]);
    check(Some(second), 2 * READING_AGE_MAX, &["192.0.2.2:53"]);
    check(Some(""), 3 * READING_AGE_MAX, &["192.0.2.2:53"]);
    check(None, 4 * READING_AGE_MAX, &["192.0.2.2:53"]);
    let own = "nameserver 127.0.0.1\nnameserver 192.0.2.1";
    check(Some(own), 5 * READING_AGE_MAX, &["192.0.2.1:53"]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Asked::Wrong(answer) = answer::read(&bytes, "shop") {
            prop_assert!(Message::from_vec(&answer).is_ok());
        }
        let _ = answer::refuse(&bytes, ResponseCode::ServFail);
    }

    #[test]
    fn broken_questions_never_panic(at in 0usize..40, byte in any::<u8>(), cut in 0usize..40) {
        let mut bytes = question("orders.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
        if let Some(slot) = bytes.get_mut(at) {
            *slot = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = Server {
            namespace: "shop".to_owned(),
            lookup: Mesh::shop(),
            forwarder: Forwarder::new(Vec::new(), Duration::from_millis(1)),
            questions: Semaphore::new(1),
        };
        if let Some(answer) = runtime.block_on(server.answer(&bytes, Transport::Udp)) {
            prop_assert!(Message::from_vec(&answer).is_ok());
        }
    }
}
