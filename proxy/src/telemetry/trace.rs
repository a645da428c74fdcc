//! The trace that a request belongs to: W3C Trace Context (level 1) and B3 in both its forms.

use http::header::HeaderName;

use super::sampler::Sampler;
use crate::model::{FieldValue, Fields, Kinds, any_octet};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// A longer `tracestate` is not passed on (Trace Context 3.3.1.5 asks for 512 bytes at least).
const TRACESTATE_BYTES_MAX: usize = 4096;

/// Our own span in its trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    pub trace_id: [u8; 16],
    /// Of the span that this proxy makes for the request.
    pub span_id: [u8; 8],
    /// Of the caller's span; none where the trace starts here.
    pub parent_span_id: Option<[u8; 8]>,
    pub sampled: bool,
    pub tracestate: Option<FieldValue>,
}

/// What a request's headers said of its trace.
#[derive(Debug, PartialEq)]
enum Parent {
    /// The caller's span.
    Span {
        trace_id: [u8; 16],
        span_id: [u8; 8],
        sampled: Option<bool>,
    },
    /// B3 alone may send a decision without a trace.
    Decision(bool),
}

impl Context {
    /// Goes on with the trace that the headers name, or starts one.
    pub(super) fn begin(headers: &Fields, sampler: Sampler) -> Context {
        let span_id = random_span_id();
        let w3c = match headers.may_have(Kinds::TRACE) {
            true => parse_traceparent(headers),
            false => None,
        };
        let tracestate = w3c.as_ref().and_then(|_| read_tracestate(headers));
        match w3c.or_else(|| parse_b3(headers)) {
            Some(Parent::Span {
                trace_id,
                span_id: parent,
                sampled,
            }) => Context {
                trace_id,
                span_id,
                parent_span_id: Some(parent),
                sampled: sampler.sample(trace_id, sampled),
                tracestate,
            },
            other => {
                let trace_id = random_trace_id();
                let decision = match other {
                    Some(Parent::Decision(sampled)) => Some(sampled),
                    _ => None,
                };
                Context {
                    trace_id,
                    span_id,
                    parent_span_id: None,
                    sampled: sampler.sample(trace_id, decision),
                    tracestate: None,
                }
            }
        }
    }

    /// The context for the record of what is over. Its tracestate is moved, and nothing is copied but numbers.
    pub fn take(&mut self) -> Self {
        Self {
            tracestate: self.tracestate.take(),
            ..*self
        }
    }

    /// Makes our span the parent of the next one. B3 headers are kept in step where the request
    /// came with them, and never added.
    pub fn inject(&self, headers: &mut Fields) {
        let flags = u8::from(self.sampled);
        let joins = headers.may_have(Kinds::TRACE);
        if let Ok(value) = FieldValue::passing(&self.traceparent()) {
            match joins {
                true => headers.set(TRACEPARENT, value),
                false => headers.append_known(TRACEPARENT, Kinds::TRACE, value),
            }
        }
        match &self.tracestate {
            Some(state) => headers.set(TRACESTATE, state.clone()),
            None if joins => drop(headers.remove(&TRACESTATE)),
            None => {}
        }
        if !headers.may_have(Kinds::B3) {
            return;
        }
        let (single, multiple) = (
            headers.contains(&B3),
            headers.contains(&B3_TRACE_ID) || headers.contains(&B3_SAMPLED),
        );
        let (trace_id, span_id) = (self.trace_id_hex(), hex(&self.span_id));
        if single {
            insert(headers, B3, &format!("{trace_id}-{span_id}-{flags}"));
        }
        if multiple {
            insert(headers, B3_TRACE_ID, &trace_id);
            insert(headers, B3_SPAN_ID, &span_id);
            insert(headers, B3_SAMPLED, &flags.to_string());
            match self.parent_span_id {
                Some(parent) => insert(headers, B3_PARENT_SPAN_ID, &hex(&parent)),
                None => drop(headers.remove(&B3_PARENT_SPAN_ID)),
            }
        }
    }

    /// Trace Context 3.2, version 00.
    fn traceparent(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&mut text[3..35], &self.trace_id);
        put_hex(&mut text[36..52], &self.span_id);
        put_hex(&mut text[53..55], &[u8::from(self.sampled)]);
        text
    }

    /// The trace's id as logs and headers write it.
    pub fn trace_id_hex(&self) -> String {
        hex(&self.trace_id)
    }
}

fn insert(headers: &mut Fields, name: HeaderName, value: &str) {
    if let Ok(value) = FieldValue::from_text(value) {
        headers.set(name, value);
    }
}

/// Trace Context 3.2: `00-TRACE-SPAN-FLAGS`, lower-case hex; a later version may append fields; ids
/// of zeros only, and the version ff, are invalid. Two headers are as good as none.
fn parse_traceparent(headers: &Fields) -> Option<Parent> {
    let name = TRACEPARENT;
    let mut values = headers.get_all(&name);
    let value = values.next()?.as_bytes().trim_ascii();
    if values.next().is_some() {
        return None;
    }
    // Where everything stands is fixed, so nothing is searched.
    let (known, more) = value.split_first_chunk::<55>()?;
    let [version]: [u8; 1] = unhex(&known[..2])?;
    let trace_id = unhex(&known[3..35])?;
    let span_id = unhex(&known[36..52])?;
    let [flags]: [u8; 1] = unhex(&known[53..])?;
    let valid = [2, 35, 52].into_iter().all(|at| known[at] == b'-')
        && (more.is_empty() || version != 0 && more[0] == b'-')
        && !any_octet(value, |octet| octet.is_ascii_uppercase())
        && version != 0xff
        && trace_id != [0; 16]
        && span_id != [0; 8];
    valid.then_some(Parent::Span {
        trace_id,
        span_id,
        sampled: Some(flags & 1 == 1),
    })
}

/// Several headers are one list (Trace Context 3.3.1).
fn read_tracestate(headers: &Fields) -> Option<FieldValue> {
    let values: Vec<&[u8]> = headers
        .get_all(&TRACESTATE)
        .map(FieldValue::as_bytes)
        .filter(|value| !value.is_empty())
        .collect();
    let joined = values.join(&b","[..]);
    if joined.is_empty() || joined.len() > TRACESTATE_BYTES_MAX {
        return None;
    }
    FieldValue::from_bytes(&joined).ok()
}

fn parse_b3(headers: &Fields) -> Option<Parent> {
    if !headers.may_have(Kinds::B3) {
        return None;
    }
    let text = |name: HeaderName| headers.get(&name).and_then(|value| value.to_str().ok());
    if let Some(single) = text(B3) {
        return parse_b3_single(single);
    }
    let sampled = match (text(B3_FLAGS), text(B3_SAMPLED)) {
        (Some("1"), _) => Some(true),
        (_, Some(word)) => b3_decision(word),
        _ => None,
    };
    let ids = text(B3_TRACE_ID).zip(text(B3_SPAN_ID));
    match ids.and_then(|(trace, span)| b3_span(trace, span, sampled)) {
        Some(parent) => Some(parent),
        None => sampled.map(Parent::Decision),
    }
}

/// `TRACE-SPAN[-SAMPLED[-PARENT]]`, or the decision alone.
fn parse_b3_single(text: &str) -> Option<Parent> {
    let mut parts = text.trim().split('-');
    let first = parts.next()?;
    match parts.next() {
        None => b3_decision(first).map(Parent::Decision),
        Some(span) => b3_span(first, span, parts.next().and_then(b3_decision)),
    }
}

fn b3_span(trace: &str, span: &str, sampled: Option<bool>) -> Option<Parent> {
    let trace_id = match trace.len() {
        16 => {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&unhex::<8>(trace.as_bytes())?);
            id
        }
        _ => unhex(trace.as_bytes())?,
    };
    let span_id = unhex(span.as_bytes())?;
    (trace_id != [0; 16] && span_id != [0; 8]).then_some(Parent::Span {
        trace_id,
        span_id,
        sampled,
    })
}

fn b3_decision(word: &str) -> Option<bool> {
    match word {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Zeros only are no id (Trace Context 3.2.2.3).
fn random_trace_id() -> [u8; 16] {
    rand::random::<u128>().max(1).to_be_bytes()
}

fn random_span_id() -> [u8; 8] {
    rand::random::<u64>().max(1).to_be_bytes()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The two digits of each byte.
static PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0xf]];
        byte += 1;
    }
    pairs
};

/// Writes two digits for each byte.
fn put_hex(text: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = PAIRS[usize::from(*byte)];
    }
}

/// Digits that are read at once.
const WORD: usize = 8;

/// The bytes that two digits each stand for, in either case.
fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    let mut places = bytes.chunks_mut(WORD / 2);
    let (words, rest) = digits.as_chunks::<WORD>();
    for (word, place) in words.iter().zip(places.by_ref()) {
        place.copy_from_slice(&unhex_word(*word)?);
    }
    if let Some(place) = places.next() {
        let mut word = [b'0'; WORD];
        word[..rest.len()].copy_from_slice(rest);
        place.copy_from_slice(&unhex_word(word)?[..place.len()]);
    }
    Some(bytes)
}

/// Works on all digits of a word side by side, an octet of an integer each.
fn unhex_word(digits: [u8; WORD]) -> Option<[u8; WORD / 2]> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_be_bytes(digits);
    // Of the octets that are digits, only letters have this bit.
    let letters = (word >> 6) & ONES;
    let values = (word & (0xf * ONES)) + 9 * letters;
    // Octets that are no digits have another value than their own, or none below 16.
    let above_9 = ((values + 0x76 * ONES) >> 7) & ONES;
    let written = values + 0x30 * ONES + 0x27 * above_9;
    if written != word | letters << 5 || values & (0xf0 * ONES) != 0 {
        return None;
    }
    let pairs = (values | values >> 4) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    let all = (quads | quads >> 16) as u32;
    Some(all.to_be_bytes())
}

#[cfg(test)]
mod tests;
