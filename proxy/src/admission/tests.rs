//! Rate limits and the gate, table by table; [`super::overload`] has the application.

use futures_util::FutureExt;
use http::{HeaderName, Method, Version};
use weft_proto::spiffe::SpiffeId;

use super::*;
use crate::model::{
    Caller, FieldValue, Fields, PathMatch, RateLimit, RateLimitKey, RequestHead, RequestSelector,
    RouteMatch, Text,
};

const USER: HeaderName = HeaderName::from_static("user");

fn head(path: &str, user: Option<&'static str>) -> RequestHead {
    let mut headers = Fields::new();
    if let Some(user) = user {
        headers.set(USER, FieldValue::from_static(user));
    }
    RequestHead {
        method: Method::GET,
        scheme: None,
        authority: None,
        path: Text::try_from(path).unwrap(),
        version: Version::HTTP_11,
        upgrade: None,
        headers,
    }
}

fn asked<'r>(head: &'r RequestHead, caller: Option<&'r SpiffeId>) -> Asked<'r> {
    Asked {
        head,
        caller,
        route: Some("HTTPRoute/shop/orders"),
    }
}

fn caller(namespace: &str, account: Option<&str>) -> Caller {
    Caller {
        namespace: namespace.to_owned(),
        service_account: account.map(str::to_owned),
    }
}

#[test]
fn selectors() {
    let web = SpiffeId::new("weft.local", "shop", "web").unwrap();
    let (known, unknown) = (head("/pay/1", None), head("/", None));
    let check = |selector: RequestSelector, expect: [bool; 3]| {
        let seen = [
            asked(&known, Some(&web)).is_selected(&selector),
            asked(&known, None).is_selected(&selector),
            asked(&unknown, Some(&web)).is_selected(&selector),
        ];
        assert_eq!(seen, expect, "{selector:?}");
    };
    let default = RequestSelector::default;
    check(default(), [true; 3]);
    let by = |callers: Vec<Caller>| RequestSelector {
        callers,
        ..default()
    };
    check(by(vec![caller("shop", None)]), [true, false, true]);
    check(by(vec![caller("shop", Some("web"))]), [true, false, true]);
    check(by(vec![caller("shop", Some("api"))]), [false; 3]);
    check(by(vec![caller("bank", Some("web"))]), [false; 3]);
    check(
        by(vec![caller("bank", None), caller("shop", None)]),
        [true, false, true],
    );
    let on = |route: &str| RequestSelector {
        routes: vec![route.to_owned()],
        ..default()
    };
    check(on("HTTPRoute/shop/orders"), [true; 3]);
    check(on("HTTPRoute/shop/other"), [false; 3]);
    let matches = RouteMatch {
        path: Some(PathMatch::Prefix("/pay".to_owned())),
        ..RouteMatch::default()
    };
    let selector = RequestSelector {
        callers: vec![caller("shop", None)],
        matches: Some(matches),
        ..default()
    };
    check(selector, [true, false, false]);
}

fn limit(key: &[RateLimitKey], requests: u32, burst: u32) -> RateLimit {
    RateLimit {
        name: "a".to_owned(),
        selector: RequestSelector::default(),
        key: key.to_vec(),
        requests,
        interval: Duration::from_secs(1),
        burst,
    }
}

/// How many of 1,000 requests are let in, of which one comes each millisecond.
fn let_in(limit: RateLimit, workers: usize) -> usize {
    let policy = InboundPolicy {
        rate_limits: vec![limit],
        ..InboundPolicy::default()
    };
    let start = Instant::now();
    let port = Admission::new(workers).port(80, &policy, start).unwrap();
    let (a, b) = (head("/", Some("a")), head("/", Some("b")));
    let requests = (0..1000).filter(|number| {
        let now = start + Duration::from_millis(*number);
        let head = if number % 2 == 0 { &a } else { &b };
        port.take_tokens(&policy, &asked(head, None), now).is_ok()
    });
    requests.count()
}

#[test]
fn naming_ports_lifts_no_limit() {
    let (admission, now) = (Admission::new(1), Instant::now());
    let (usual, policy) = (
        InboundPolicy::default(),
        InboundPolicy {
            name: "InboundPolicy/shop/orders".to_owned(),
            rate_limits: vec![limit(&[], 1, 2)],
            ..InboundPolicy::default()
        },
    );
    let others = (20_000..30_000).filter(|number| admission.port(*number, &usual, now).is_some());
    assert_eq!(others.count(), PORTS_MAX);
    let head = head("/", None);
    let taken = (0..8).filter(|_| {
        let port = admission.port(80, &policy, now).unwrap();
        port.take_tokens(&policy, &asked(&head, None), now).is_ok()
    });
    assert_eq!(taken.count(), 2);
}

#[test]
fn buckets_fill_evenly() {
    let user = [RateLimitKey::Header(USER)];
    // The burst, and what comes within the second but its end.
    assert_eq!(let_in(limit(&[], 100, 1), 1), 100);
    assert_eq!(let_in(limit(&[], 100, 50), 1), 149);
    assert_eq!(let_in(limit(&user, 100, 50), 1), 2 * 149);
    // Each of two workers has half of it.
    assert_eq!(let_in(limit(&[], 100, 50), 2), 74);
    // Nobody has this key, so nobody is limited.
    let nobody = [RateLimitKey::Header(HeaderName::from_static("x"))];
    assert_eq!(let_in(limit(&nobody, 1, 1), 1), 1000);
    assert_eq!(let_in(limit(&[RateLimitKey::Caller], 1, 1), 1), 1000);
    assert_eq!(let_in(limit(&[RateLimitKey::Route], 1, 1), 1), 1);
}

#[test]
fn a_refusal_says_when_there_is_a_token() {
    let (limit, now) = (limit(&[], 2, 1), Instant::now());
    let mut buckets = Buckets::new(now);
    assert_eq!(buckets.take(7, &limit, 1, now), Ok(()));
    let wait = Duration::from_millis(500);
    assert_eq!(buckets.take(7, &limit, 1, now), Err(wait));
    assert_eq!(buckets.take(7, &limit, 1, now + wait), Ok(()));
}

#[test]
fn keys_beyond_the_limit_share_a_bucket_until_others_are_full_again() {
    let (limit, now) = (limit(&[], 1, 1), Instant::now());
    let mut buckets = Buckets::new(now);
    for key in 0..bucket::KEYS_MAX as u64 {
        assert_eq!(buckets.take(key, &limit, 1, now), Ok(()));
    }
    assert_eq!(buckets.take(u64::MAX, &limit, 1, now), Ok(()));
    assert!(buckets.take(u64::MAX - 1, &limit, 1, now).is_err());
    let later = now + Duration::from_secs(2);
    for key in 0..bucket::KEYS_MAX as u64 {
        assert_eq!(buckets.take(u64::MAX - key, &limit, 1, later), Ok(()));
    }
}

fn enforced(most: u32, pending: u32) -> InboundPolicy {
    InboundPolicy {
        concurrency: Concurrency {
            enforced: true,
            min: most,
            max: most,
            pending_max: pending,
            ..Concurrency::default()
        },
        priorities: [("/high", Priority::High), ("/low", Priority::Low)]
            .map(|(path, priority)| {
                let matches = RouteMatch {
                    path: Some(PathMatch::Exact(path.to_owned())),
                    ..RouteMatch::default()
                };
                let selector = RequestSelector {
                    matches: Some(matches),
                    ..RequestSelector::default()
                };
                (selector, priority)
            })
            .to_vec(),
        ..InboundPolicy::default()
    }
}

struct Gated {
    port: Rc<Port>,
    policy: InboundPolicy,
}

impl Gated {
    fn new(policy: InboundPolicy) -> Self {
        let port = Admission::new(1).port(80, &policy, Instant::now()).unwrap();
        Self { port, policy }
    }

    fn enter(&self, path: &str) -> Entry {
        let head = head(path, None);
        self.port
            .enter(&self.policy, &asked(&head, None), Instant::now())
    }

    fn admitted(&self, path: &str) -> Pass {
        match self.enter(path) {
            Entry::Admitted(pass) => pass,
            other => panic!("{other:?}"),
        }
    }

    fn waiting(&self, path: &str) -> Waiting {
        match self.enter(path) {
            Entry::Waits(waiting, _) => waiting,
            other => panic!("{other:?}"),
        }
    }

    fn is_idle(&self) -> bool {
        self.port.gate.borrow().in_flight() == 0
    }
}

#[test]
fn the_important_go_first() {
    let gated = Gated::new(enforced(1, 9));
    let first = gated.admitted("/low");
    let mut low = gated.waiting("/low");
    let mut normal = gated.waiting("/");
    let mut high = gated.waiting("/high");
    first.answered(false, Instant::now());
    let second = (&mut high).now_or_never().unwrap().unwrap();
    assert!((&mut normal).now_or_never().is_none());
    second.answered(true, Instant::now());
    let third = (&mut normal).now_or_never().unwrap().unwrap();
    assert!((&mut low).now_or_never().is_none());
    drop(third);
    drop((&mut low).now_or_never().unwrap());
    assert!(gated.is_idle());
}

#[test]
fn the_important_take_the_place_of_others_where_too_many_wait() {
    let gated = Gated::new(enforced(1, 2));
    let first = gated.admitted("/");
    let mut older = gated.waiting("/");
    let mut younger = gated.waiting("/");
    assert!(matches!(gated.enter("/"), Entry::Refused));
    assert!(matches!(gated.enter("/low"), Entry::Refused));
    let mut high = gated.waiting("/high");
    assert!(matches!((&mut younger).now_or_never(), Some(None)));
    // Who gave up makes room for others.
    drop(younger);
    assert!((&mut older).now_or_never().is_none());
    drop(older);
    let mut last = gated.waiting("/");
    drop(first);
    drop((&mut high).now_or_never().unwrap());
    drop((&mut last).now_or_never().unwrap());
    assert!(gated.is_idle());
}

#[test]
fn who_gives_up_loses_nobodys_place() {
    let gated = Gated::new(enforced(1, 9));
    let first = gated.admitted("/");
    let gone = gated.waiting("/");
    let called = gated.waiting("/");
    let mut last = gated.waiting("/");
    drop(gone);
    drop(first);
    // Called by now, and gone before it hears it.
    drop(called);
    drop((&mut last).now_or_never().unwrap());
    assert!(gated.is_idle());
}

#[test]
fn what_is_only_observed_is_counted() {
    let gated = Gated::new(InboundPolicy::default());
    let passes: Vec<Pass> = (0..30).map(|_| gated.admitted("/")).collect();
    assert_eq!(gated.port.gate.borrow().exceeded, 10);
    drop(passes);
    assert!(gated.is_idle());
}

#[test]
fn a_queue_that_stands_is_left_sooner() {
    let mut gate = Gate::<u8>::new(Instant::now());
    let policy = enforced(1, 9).concurrency;
    let start = Instant::now();
    let arrive = |gate: &mut Gate<u8>, seconds: f64, priority| {
        let now = start + Duration::from_secs_f64(seconds);
        gate.arrive(priority, &policy, now, || 0)
    };
    let usual = Arrival::Waits(policy.queue_timeout);
    assert_eq!(arrive(&mut gate, 0.0, Priority::Normal), Arrival::Admitted);
    assert_eq!(arrive(&mut gate, 0.0, Priority::Normal), usual);
    assert_eq!(arrive(&mut gate, 0.9, Priority::Normal), usual);
    let short = Arrival::Waits(Duration::from_millis(20));
    assert_eq!(arrive(&mut gate, 1.0, Priority::Normal), short);
    assert_eq!(arrive(&mut gate, 1.0, Priority::High), usual);
    for _ in 0..4 {
        gate.finished(None, &policy, start);
        assert!(gate.next(&policy).is_some());
    }
    assert_eq!(arrive(&mut gate, 2.0, Priority::Normal), usual);
}
