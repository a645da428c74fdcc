use super::*;
use proptest::prelude::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(pairs: &[(&'static str, &str)]) -> Fields {
    let mut headers = Fields::new();
    for (name, value) in pairs {
        headers.append(name.parse().unwrap(), FieldValue::from_text(value).unwrap());
    }
    headers
}

#[test]
fn parents() {
    let check = |pairs: &[(&'static str, &str)], expect: &str| {
        let context = Context::begin(&headers(pairs), Sampler::parent_based(0.0));
        let text = match context.parent_span_id {
            Some(parent) => format!(
                "{} {} {}",
                context.trace_id_hex(),
                hex(&parent),
                context.sampled
            ),
            None => format!("new {}", context.sampled),
        };
        assert_eq!(text, expect, "{pairs:?}");
    };
    let (yes, no) = (
        format!("{TRACE} {SPAN} true"),
        format!("{TRACE} {SPAN} false"),
    );
    let w3c = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}");
    check(&[], "new false");
    check(&[("traceparent", &w3c("01"))], &yes);
    check(&[("traceparent", &w3c("00"))], &no);
    check(&[("traceparent", &w3c("03"))], &yes);
    check(&[("traceparent", &w3c("01-more"))], "new false");
    check(
        &[("traceparent", &w3c("01").replace('-', "_"))],
        "new false",
    );
    check(&[("traceparent", &w3c("01")[..54])], "new false");
    check(
        &[("traceparent", &format!("cc-{TRACE}-{SPAN}-01more"))],
        "new false",
    );
    check(
        &[("traceparent", &format!("cc-{TRACE}-{SPAN}-01-more"))],
        &yes,
    );
    check(
        &[("traceparent", &format!("ff-{TRACE}-{SPAN}-01"))],
        "new false",
    );
    check(&[("traceparent", &w3c("01").to_uppercase())], "new false");
    check(&[("traceparent", &w3c("0g"))], "new false");
    check(
        &[("traceparent", &w3c("01").replace(SPAN, "éééééééé"))],
        "new false",
    );
    check(
        &[("traceparent", &format!("00-{}-{SPAN}-01", "0".repeat(32)))],
        "new false",
    );
    check(
        &[("traceparent", &w3c("01")), ("traceparent", &w3c("01"))],
        "new false",
    );
    check(&[("b3", &format!("{TRACE}-{SPAN}-1"))], &yes);
    check(&[("b3", &format!("{TRACE}-{SPAN}-d-{SPAN}"))], &yes);
    check(&[("b3", &format!("{TRACE}-{SPAN}-0"))], &no);
    check(&[("b3", &format!("{TRACE}-{SPAN}"))], &no);
    check(&[("b3", &format!("{TRACE}-{SPAN}").to_uppercase())], &no);
    check(
        &[("b3", &format!("{TRACE}-{}-1", SPAN.replace('0', "g")))],
        "new false",
    );
    check(&[("b3", "1")], "new true");
    check(&[("b3", "0")], "new false");
    check(
        &[("b3", &format!("{SPAN}-{SPAN}-1"))],
        &format!("0000000000000000{SPAN} {SPAN} true"),
    );
    check(
        &[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", SPAN),
            ("x-b3-sampled", "1"),
        ],
        &yes,
    );
    check(
        &[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", SPAN),
            ("x-b3-flags", "1"),
        ],
        &yes,
    );
    check(&[("x-b3-sampled", "1")], "new true");
}

#[test]
fn every_octet_is_a_digit_or_not() {
    for place in 0..16 {
        for octet in 0..=u8::MAX {
            let mut digits = *b"0123456789abcDEF";
            digits[place] = octet;
            let expect = digits.iter().try_fold(0u64, |number, digit| {
                let value = char::from(*digit).to_digit(16)?;
                Some(number << 4 | u64::from(value))
            });
            let seen = unhex::<8>(&digits).map(u64::from_be_bytes);
            assert_eq!(seen, expect, "{octet} at {place}");
        }
    }
    assert_eq!(unhex(b"7f"), Some([0x7f]));
    assert_eq!(unhex(b"7g"), None::<[u8; 1]>);
    assert_eq!(unhex(b"7"), None::<[u8; 1]>);
    assert_eq!(unhex(b"7f0"), None::<[u8; 1]>);
    assert_eq!(unhex(b"0102030aff"), Some([1, 2, 3, 10, 255]));
}

#[test]
fn injection_makes_our_span_the_parent() {
    let mut sent = headers(&[
        ("traceparent", &format!("00-{TRACE}-{SPAN}-01")),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("b3", "0"),
    ]);
    let context = Context::begin(&sent, Sampler::parent_based(0.0));
    context.inject(&mut sent);
    let own = hex(&context.span_id);
    assert_ne!(own, SPAN);
    assert_eq!(
        *sent.get("traceparent").unwrap(),
        *format!("00-{TRACE}-{own}-01")
    );
    assert_eq!(sent.get("tracestate").unwrap(), "a=1,b=2");
    assert_eq!(sent.get_all("tracestate").count(), 1);
    assert_eq!(*sent.get("b3").unwrap(), *format!("{TRACE}-{own}-1"));
    assert!(!sent.contains("x-b3-traceid"));
}

#[test]
fn multi_header_b3_is_kept_in_step() {
    let mut sent = headers(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)]);
    let context = Context::begin(&sent, Sampler::parent_based(1.0));
    context.inject(&mut sent);
    assert_eq!(*sent.get("x-b3-spanid").unwrap(), *hex(&context.span_id));
    assert_eq!(sent.get("x-b3-parentspanid").unwrap(), SPAN);
    assert_eq!(sent.get("x-b3-sampled").unwrap(), "1");
    assert!(!sent.contains("b3"));
}

proptest! {
    #[test]
    fn any_header_gives_a_context(name in "traceparent|tracestate|b3|x-b3-traceid", value in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(value) = FieldValue::from_bytes(&value) {
            let mut map = Fields::new();
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            let context = Context::begin(&map, Sampler::parent_based(0.5));
            context.inject(&mut map);
            let again = Context::begin(&map, Sampler::parent_based(0.5));
            prop_assert_eq!(again.trace_id, context.trace_id);
            prop_assert_eq!(again.parent_span_id, Some(context.span_id));
        }
    }
}
