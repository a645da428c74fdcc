//! Questions as they are meant, and answers for the mesh's own names (pure).

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::Transport;
use crate::model::{Host, Service, ServiceName};

/// How long an application may keep an answer; the mesh changes at any time.
pub(super) const TTL_SECONDS: u32 = 5;
/// A datagram that passes everywhere (dnsflagday.net/2020).
const UDP_PAYLOAD: u16 = 1_232;
/// Bytes of a message's header (RFC 1035 section 4.1.1).
const HEADER_BYTES: usize = 12;

/// What a datagram turned out to be.
pub(super) enum Asked {
    Question(Box<Question>),
    /// No valid question; here is what the client is told.
    Wrong(Vec<u8>),
    /// Nothing that may be answered: too short, or an answer itself.
    Nothing,
}

/// A valid message with one question.
pub(super) struct Question {
    message: Message,
    pub query: Query,
    /// The service that it may ask for.
    pub service: Option<ServiceName>,
}

/// Reads what came, as an application in `namespace` means it.
pub(super) fn read(bytes: &[u8], namespace: &str) -> Asked {
    let wrong = |code| refuse(bytes, code).map_or(Asked::Nothing, Asked::Wrong);
    let Ok(message) = Message::from_vec(bytes) else {
        return wrong(ResponseCode::FormErr);
    };
    if message.metadata.message_type != MessageType::Query {
        return Asked::Nothing;
    }
    if message.metadata.op_code != OpCode::Query {
        return wrong(ResponseCode::NotImp);
    }
    let [query] = &message.queries[..] else {
        return wrong(ResponseCode::FormErr);
    };
    let query = query.clone();
    let service = (query.query_class() == DNSClass::IN)
        .then(|| service_name(query.name(), namespace))
        .flatten();
    Asked::Question(Box::new(Question {
        message,
        query,
        service,
    }))
}

/// The service that a name may stand for.
pub(super) fn service_name(name: &Name, namespace: &str) -> Option<ServiceName> {
    match Host::parse(&name.to_ascii(), namespace) {
        Host::Service(service) => Some(service),
        Host::Ip(_) | Host::Other(_) => None,
    }
}

/// An answer with a code and nothing else, made of the question's header alone, so that it can be
/// made for what can't be parsed; none for an answer, because two servers would go on forever.
pub(super) fn refuse(question: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    const QR: u8 = 0x80;
    const OPCODE_AND_RD: u8 = 0x79;
    const RA: u8 = 0x80;
    let header = question.get(..HEADER_BYTES)?;
    if header[2] & QR != 0 {
        return None;
    }
    let mut answer = vec![0; HEADER_BYTES];
    answer[..2].copy_from_slice(&header[..2]);
    answer[2] = QR | header[2] & OPCODE_AND_RD;
    answer[3] = RA | code.low();
    // The question comes back where it can be read (RFC 1035 section 4.1.2).
    if let Ok(message) = Message::from_vec(question) {
        let mut full = Message::response(message.metadata.id, message.metadata.op_code);
        full.metadata.recursion_desired = message.metadata.recursion_desired;
        full.metadata.recursion_available = true;
        full.metadata.response_code = code;
        full.add_queries(message.queries);
        return full.to_vec().ok().or(Some(answer));
    }
    Some(answer)
}

/// Whether an answer says that there is no such name.
pub(super) fn denies(answer: &[u8]) -> bool {
    const RCODE: u8 = 0x0f;
    answer
        .get(3)
        .is_some_and(|flags| flags & RCODE == ResponseCode::NXDomain.low())
}

/// An answer without records yet; the name comes back in the case in which it was asked.
pub(super) fn begin(question: &Question) -> Message {
    let asked = &question.message.metadata;
    let mut message = Message::response(asked.id, asked.op_code);
    message.metadata.authoritative = true;
    message.metadata.recursion_desired = asked.recursion_desired;
    message.metadata.recursion_available = true;
    message.add_query(question.query.clone());
    if question.message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        message.set_edns(edns);
    }
    message
}

/// Where a service of type ExternalName points.
pub(super) fn alias(service: &Service) -> Option<Name> {
    let target = service.external_name.as_deref()?;
    let mut name = Name::from_ascii(target).ok()?;
    name.set_fqdn(true);
    Some(name)
}

pub(super) fn push_alias(message: &mut Message, owner: &Name, target: &Name) {
    let data = RData::CNAME(CNAME(target.clone()));
    message.add_answer(Record::from_rdata(owner.clone(), TTL_SECONDS, data));
}

/// The service's addresses of the family asked for. Where there are none the answer stays empty,
/// and a resolver then knows that the name exists.
pub(super) fn push_addresses(
    message: &mut Message,
    owner: &Name,
    question: &Question,
    service: &Service,
) {
    let addresses = if service.headless {
        &service.endpoint_addresses
    } else {
        &service.virtual_ips
    };
    for address in addresses {
        let data = match (question.query.query_type(), address) {
            (RecordType::A, IpAddr::V4(ip)) => RData::A(A(*ip)),
            (RecordType::AAAA, IpAddr::V6(ip)) => RData::AAAA(AAAA(*ip)),
            _ => continue,
        };
        message.add_answer(Record::from_rdata(owner.clone(), TTL_SECONDS, data));
    }
}

/// As bytes; what is too long for the client's datagram says so and holds no records, and the
/// client comes again by TCP (RFC 7766 section 5).
pub(super) fn encode(
    question: &Question,
    message: Message,
    transport: Transport,
) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    let most = match transport {
        Transport::Udp => question.message.max_payload().min(UDP_PAYLOAD),
        Transport::Tcp => u16::MAX,
    };
    if bytes.len() <= usize::from(most) {
        return Some(bytes);
    }
    let mut short = message;
    short.answers.clear();
    short.metadata.truncation = true;
    short.to_vec().ok()
}
