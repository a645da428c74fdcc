//! Sending a request: to one endpoint after the other, until one answers or another attempt isn't safe, isn't
//! asked for, or isn't in the budget.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, Version};
use rand::Rng;

use super::destination::Destination;
use super::hedge::{Way, hedge_after};
use super::http::{OutboundRequests, Trail};
use super::session::{self, Session};
use super::target::{Routed, Target};
use crate::balance::{Admission, Admitted, Answered, Picked, Wanted, key_hash};
use crate::endpoint::Opened;
use crate::http::{
    Deadline, Failure, NO_RETRY, Outcome, Pushback, Request, Terms, Unanswered, exchange,
    exchange_upgrade, is_idempotent, pushback, status_for_rules, within,
};
use crate::model::{
    Balancing, Cluster, Endpoint, Fault, FieldValue, HashKey, Hop, Protocol, RequestHead,
    ResponseHead, Retry, Text, grpc_timeout,
};

/// Further attempts that are made without being asked for, each only where the application provably saw
/// nothing of the request, or where a connection that had been idle turned out to be closed.
const SAFE_RETRIES_MAX: u32 = 2;
/// A pause before an attempt is never longer than this many times the first.
const BACKOFF_GROWTH_MAX: u32 = 10;
/// How often a gRPC call was sent before (gRFC A6).
const GRPC_PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// What holds for all attempts at a request, and what came of them so far.
pub(super) struct Course {
    /// When the time for the whole request is over.
    pub(super) whole: Option<Deadline>,
    /// The request's place in the cluster.
    _admitted: Option<Admitted>,
    /// The request's session, and its endpoint where that is still there.
    pub(super) session: Option<(Session, Option<Arc<str>>)>,
    /// Says where the request goes, where the cluster goes by that.
    key: Option<u64>,
    /// Endpoints that failed.
    tried: Vec<Arc<str>>,
    /// Chosen already for the attempt that comes next.
    pub(super) chosen: Option<Picked>,
}

impl OutboundRequests {
    /// Sends the request until an endpoint answers for good. Its course is there where it has set out already.
    pub(super) async fn attempt(
        &self,
        request: &mut Request<'_>,
        trail: &mut Trail,
        course: Option<Course>,
    ) -> Result<Outcome, Failure> {
        let set_out = match course {
            Some(course) => Ok(course),
            None => self.set_out(&request.head, trail).await,
        };
        let ended = match set_out {
            Ok(mut course) => self.attempt_all(request, trail, &mut course).await,
            Err(failed) => Err(failed),
        };
        self.remember_spent(trail, &ended);
        ended
    }

    /// A failure that others have tried again is remembered, for the answer of our workload.
    pub(super) fn remember_spent(&self, trail: &Trail, ended: &Result<Outcome, Failure>) {
        let routed = trail.target.as_ref();
        let routed = routed.and_then(|target| target.routed.as_ref());
        let was_tried = trail.attempts > 0 || routed.and_then(Routed::retry).is_some();
        let spent = match ended {
            Ok(outcome) => outcome.is_failure() && (was_tried || outcome.is_final),
            Err(Failure::Unanswered(_)) => was_tried,
            Err(_) => false,
        };
        if spent {
            self.outbound
                .spent
                .insert(trail.context.trace_id, Instant::now());
        }
    }

    /// Finds out what holds for all attempts, and waits for room in the cluster.
    pub(super) async fn set_out(
        &self,
        head: &RequestHead,
        trail: &mut Trail,
    ) -> Result<Course, Failure> {
        let whole = self.deadline(head, trail);
        let target = trail.target.as_ref();
        if target.is_some_and(|target| target.faults().next().is_some()) {
            let injected = self.inject(head, trail, whole);
            Box::pin(injected).await?;
        }
        let cluster = trail.cluster();
        let admitted = match cluster {
            Some(cluster) => Some(self.admit(cluster, trail.began, whole).await?),
            None => None,
        };
        let key = cluster.and_then(|cluster| self.hash_key(cluster, head));
        Ok(Course {
            whole,
            session: self.session(head, trail, cluster),
            key,
            tried: Vec::new(),
            chosen: None,
            _admitted: admitted,
        })
    }

    /// Chooses the next endpoint, into `trail` too. Nothing is picked where there is nothing to choose among.
    pub(super) fn choose(
        &self,
        trail: &mut Trail,
        course: &mut Course,
    ) -> Result<Option<Picked>, Failure> {
        if let Some(chosen) = course.chosen.take() {
            return Ok(Some(chosen));
        }
        let Some(target) = &trail.target else {
            return Err(unprocessed(Fault::NoEndpoint));
        };
        // One look at the clock is enough for the first attempt: this is on every request's way.
        let began = match course.tried.is_empty() {
            true => trail.began,
            false => Instant::now(),
        };
        let picked = target.cluster.as_ref().and_then(|cluster| {
            let session = course.session.as_ref();
            let wanted = Wanted {
                tried: &course.tried,
                key: course.key,
                session: session.and_then(|(_, id)| id.as_ref()),
            };
            self.pick(cluster, wanted, began)
        });
        trail.endpoint = match (&picked, &target.destination) {
            (Some(picked), _) => Some(picked.endpoint.clone()),
            (None, Destination::Endpoint(endpoint)) => Some(endpoint.clone()),
            (None, Destination::Service(_)) => return Err(unprocessed(Fault::NoEndpoint)),
            (None, Destination::Outside(_)) => None,
        };
        Ok(picked)
    }

    /// Makes one attempt after the other.
    pub(super) async fn attempt_all(
        &self,
        request: &mut Request<'_>,
        trail: &mut Trail,
        course: &mut Course,
    ) -> Result<Outcome, Failure> {
        loop {
            let mut picked = self.choose(trail, course)?;
            request.head.version = trail.version;
            let Some(target) = &trail.target else {
                return Err(unprocessed(Fault::NoEndpoint));
            };
            let (sent, hedges) = {
                let rule = next_retry(target, trail.attempts);
                let overflow = rule.map(|_| request.body.overflow());
                let again = |head: &ResponseHead| {
                    let in_time = overflow.as_ref().is_some_and(|overflow| !overflow.get());
                    in_time && rule.is_some_and(|rule| is_asked(rule, head))
                };
                let terms = Terms {
                    deadline: Deadline::first(course.whole, one_attempt(target)),
                    change: None,
                    again: rule.map(|_| &again as &dyn Fn(&ResponseHead) -> bool),
                    timed: picked.as_ref().is_some_and(Picked::is_timed),
                };
                let before = course.session.as_ref().map(|(before, _)| *before);
                let way = Way {
                    target,
                    before,
                    terms,
                };
                let (endpoint, tried) = (&mut trail.endpoint, &mut course.tried);
                self.send_once_or_twice(request, endpoint, &mut picked, tried, way)
                    .await
            };
            let repeated = self.repeat(request, trail, course, (picked, hedges), sent);
            if let ControlFlow::Break(ended) = repeated.await {
                return ended;
            }
        }
    }

    /// What follows from how an attempt ended: that it was the last, or another one, after a pause where its rule
    /// wants one. `hedges` are attempts that were made beside it.
    pub(super) async fn repeat(
        &self,
        request: &mut Request<'_>,
        trail: &mut Trail,
        course: &mut Course,
        (picked, hedges): (Option<Picked>, u32),
        sent: Result<Outcome, Failure>,
    ) -> ControlFlow<Result<Outcome, Failure>> {
        let target = trail.target.as_ref();
        let by_rule = target.is_some_and(|target| next_retry(target, trail.attempts).is_some());
        trail.attempts += hedges;
        let mut pushed_back = None;
        // What failed, where nobody asks for another attempt that would do no harm.
        let unasked = match sent {
            Ok(outcome) => {
                picked.inspect(|picked| picked.answered(seen(&outcome), Instant::now));
                return ControlFlow::Break(Ok(outcome));
            }
            Err(Failure::ClientGone) => return ControlFlow::Break(Err(Failure::ClientGone)),
            Err(Failure::Again(outcome)) => {
                let id = picked.as_ref().map(|picked| picked.endpoint.id.clone());
                course.tried.extend(id);
                pushed_back = outcome.pushback;
                picked.inspect(|picked| picked.answered(seen(&outcome), Instant::now));
                request.body.rewind();
                None
            }
            Err(Failure::Unanswered(failed)) => {
                let id = picked.as_ref().map(|picked| picked.endpoint.id.clone());
                course.tried.extend(id);
                picked.inspect(|picked| blame(picked, &failed));
                let safe = self.is_safe(&failed, request, trail, course);
                match repeatable(failed, request, safe, by_rule) {
                    Ok(unasked) => unasked,
                    Err(failed) => return ControlFlow::Break(Err(failed)),
                }
            }
        };
        let in_budget = trail.cluster().is_none_or(|cluster| {
            let balancer = &self.outbound.balancer;
            balancer.may_repeat(cluster, Instant::now())
        });
        let asked = unasked.is_none();
        if !in_budget {
            let spent = || Unanswered::unprocessed(Fault::RetryBudgetSpent);
            let failed = unasked.unwrap_or_else(spent);
            return ControlFlow::Break(Err(Failure::Unanswered(failed)));
        }
        trail.attempts += 1;
        if asked && by_rule {
            let rule = trail.target.as_ref();
            let rule = rule.and_then(|target| target.routed.as_ref()?.retry());
            let pause = rule.map(|rule| self.pause(rule, trail.attempts, pushed_back));
            if let Err(late) = sleep(pause.unwrap_or_default(), course.whole).await {
                return ControlFlow::Break(Err(late));
            }
        }
        if request.head.is_grpc() {
            let attempts = FieldValue::from(u64::from(trail.attempts));
            request.head.headers.set(GRPC_PREVIOUS_ATTEMPTS, attempts);
        }
        ControlFlow::Continue(())
    }

    /// Waits for room in the cluster.
    async fn admit(
        &self,
        cluster: &Arc<Cluster>,
        now: Instant,
        whole: Option<Deadline>,
    ) -> Result<Admitted, Failure> {
        match self.outbound.balancer.admit_request(cluster, now) {
            Admission::Admitted(admitted) => Ok(admitted),
            Admission::Refused => Err(unprocessed(Fault::CircuitOpen)),
            Admission::Waits(waiting) => {
                let queue = Deadline {
                    at: tokio::time::Instant::now() + cluster.policy.breaker.queue_timeout,
                    fault: Fault::CircuitOpen,
                };
                let waiting = async { Ok(waiting.await) };
                let admitted = within(Deadline::first(whole, Some(queue)), waiting);
                let admitted = Box::pin(admitted).await.map_err(Failure::Unanswered)?;
                let balancer = &self.outbound.balancer;
                balancer.has_waited(cluster, Instant::now());
                Ok(admitted)
            }
        }
    }

    /// When the time for the whole request is over: the route's, or what a gRPC client gives it.
    fn deadline(&self, head: &RequestHead, trail: &Trail) -> Option<Deadline> {
        let routed = trail.target.as_ref()?.routed.as_ref();
        let of_route = routed.and_then(Routed::request_timeout);
        let of_client = Some(head).filter(|head| head.is_grpc());
        let of_client = of_client.and_then(grpc_timeout::get);
        let timeout = of_route.into_iter().chain(of_client).min()?;
        after(trail.began, timeout, Fault::RequestTimeout)
    }

    /// The session of a request, and its endpoint where that is still there.
    fn session(
        &self,
        head: &RequestHead,
        trail: &Trail,
        cluster: Option<&Arc<Cluster>>,
    ) -> Option<(Session, Option<Arc<str>>)> {
        let policy = trail.target.as_ref()?.session()?;
        let session = Session::of(policy, head, session::now())?;
        let balancer = &self.outbound.balancer;
        let endpoint = cluster.and_then(|one| session.endpoint(balancer, one, trail.began));
        Some((session, endpoint))
    }

    pub(super) fn pick(
        &self,
        cluster: &Arc<Cluster>,
        wanted: Wanted<'_>,
        now: Instant,
    ) -> Option<Picked> {
        let mut random = self.outbound.random.borrow_mut();
        self.outbound
            .balancer
            .pick(cluster, wanted, now, &mut *random)
    }

    fn hash_key(&self, cluster: &Cluster, head: &RequestHead) -> Option<u64> {
        let Balancing::ConsistentHash(key) = &cluster.policy.balancing else {
            return None;
        };
        match key {
            HashKey::Header(name) => head
                .headers
                .get(name)
                .map(|value| key_hash(&value.as_bytes())),
            HashKey::Cookie(name) => cookie(head, name).map(|value| key_hash(&value)),
            HashKey::Source => Some(key_hash(&self.client.ip())),
            HashKey::Path => Some(key_hash(&head.path_only())),
        }
    }

    /// Whether another attempt can do no harm, and may do better.
    fn is_safe(
        &self,
        failed: &Unanswered,
        request: &Request<'_>,
        trail: &Trail,
        course: &Course,
    ) -> bool {
        let unseen = failed.unprocessed || (failed.stale && is_idempotent(&request.head.method));
        // Where no connection can be had, only another endpoint's may.
        let may_do_better = !failed.fault.is_unreachable()
            || trail
                .cluster()
                .is_some_and(|cluster| self.outbound.balancer.has_untried(cluster, &course.tried));
        unseen && trail.attempts < SAFE_RETRIES_MAX && failed.fault.may_pass() && may_do_better
    }

    /// The pause before an attempt: anything up to a bound that grows, so that those who failed together
    /// don't come back together. A server that says when to come back is heard.
    fn pause(&self, rule: &Retry, attempt: u32, pushed_back: Option<Pushback>) -> Duration {
        if let Some(Pushback::After(pause)) = pushed_back {
            return pause;
        }
        let growth = 1_u32 << (attempt - 1).min(16);
        let bound = rule.backoff.saturating_mul(growth.min(BACKOFF_GROWTH_MAX));
        bound.mul_f64(self.outbound.random.borrow_mut().random::<f64>())
    }

    /// One attempt at `endpoint`; and another one, where the first takes long and that is asked for. What was
    /// picked is whom it ended at then, and the number says how many attempts were added.
    async fn send_once_or_twice(
        &self,
        request: &mut Request<'_>,
        endpoint: &mut Option<Arc<Endpoint>>,
        picked: &mut Option<Picked>,
        tried: &mut Vec<Arc<str>>,
        way: Way<'_>,
    ) -> (Result<Outcome, Failure>, u32) {
        let hedge = picked.as_mut();
        let hedge = hedge.and_then(|picked| Some((hedge_after(request, picked)?, picked)));
        let Some((after, picked)) = hedge else {
            return (self.send_once(request, endpoint.as_deref(), way).await, 0);
        };
        // Boxed, as everything rare here.
        let sent = Box::pin(self.send_hedged(request, picked, tried, after, way)).await;
        *endpoint = Some(picked.endpoint.clone());
        sent
    }

    async fn send_once(
        &self,
        request: &mut Request<'_>,
        endpoint: Option<&Endpoint>,
        Way {
            target,
            before,
            terms,
        }: Way<'_>,
    ) -> Result<Outcome, Failure> {
        let opening = self.open(&mut request.head, target, endpoint, terms.deadline);
        let mut opened = opening.await?;
        let change = |head: &mut ResponseHead| target.change_response(head, endpoint, before);
        let terms = Terms {
            change: target.changes_response().then_some(&change),
            ..terms
        };
        let outcome = send(request, &mut opened, terms).await?;
        if outcome.reusable {
            self.outbound.endpoints.give_back(opened);
        }
        Ok(outcome)
    }

    /// A connection or a stream for a request.
    pub(super) async fn open(
        &self,
        head: &mut RequestHead,
        target: &Target,
        endpoint: Option<&Endpoint>,
        deadline: Option<Deadline>,
    ) -> Result<Opened, Failure> {
        let protocol = protocol_to(target, head.version);
        let endpoints = &self.outbound.endpoints;
        let opened = match (endpoint, &target.destination) {
            (Some(endpoint), _) => {
                let hop = Box::new(self.hop_to(target, endpoint, head, deadline));
                let tls = target.tls_to(endpoint);
                // Pinned where it is made, as it is large.
                let opening = pin!(endpoints.open(endpoint, tls, protocol, hop));
                within(deadline, opening).await
            }
            (None, Destination::Outside(address)) => endpoints.open_plain(*address, protocol).await,
            (None, _) => Err(Unanswered::unprocessed(Fault::NoEndpoint)),
        };
        let opened = opened.map_err(Failure::Unanswered)?;
        set_scheme(head, target, endpoint);
        Ok(opened)
    }

    /// What the sidecar of an endpoint is told of a request.
    pub(super) fn hop_to(
        &self,
        target: &Target,
        endpoint: &Endpoint,
        head: &RequestHead,
        deadline: Option<Deadline>,
    ) -> Hop {
        let protocol = protocol_to(target, head.version);
        let routed = target.routed.as_ref();
        Hop {
            version_10: head.version == Version::HTTP_10 && protocol == Protocol::Http1,
            no_host: head.authority.is_none(),
            route: routed.map(Routed::hop_name).unwrap_or_default(),
            timeout: deadline.map(Deadline::left),
            ..self.outbound.hop(endpoint, protocol)
        }
    }
}

/// What the application is spoken with: what the service says, or what the client spoke.
pub(super) fn protocol_to(target: &Target, spoken: Version) -> Protocol {
    let spoken = match spoken {
        Version::HTTP_2 => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let known = target.protocol.filter(|protocol| protocol.is_http());
    known.unwrap_or(spoken)
}

/// A service that wants TLS learns by the scheme whether it is spoken.
pub(super) fn set_scheme(head: &mut RequestHead, target: &Target, endpoint: Option<&Endpoint>) {
    if let (Some(endpoint), Some(cluster)) = (endpoint, &target.cluster)
        && cluster.tls.is_some()
    {
        let tls = target.tls_to(endpoint).is_some();
        let scheme = if tls { "https" } else { "http" };
        head.scheme = Some(Text::from_static(scheme));
    }
}

/// The rule that may have a request sent again after the next attempt, when so many were added already.
pub(super) fn next_retry(target: &Target, attempts: u32) -> Option<&Retry> {
    let rule = target.routed.as_ref()?.retry();
    rule.filter(|rule| attempts < rule.attempts)
}

/// Whether an answer is one that a rule has the request sent again for, and nobody did so further down.
pub(super) fn is_asked(rule: &Retry, head: &ResponseHead) -> bool {
    let asked = rule.codes.contains(&status_for_rules(head).as_u16());
    let refused = pushback(&head.headers) == Some(Pushback::Never);
    asked && !refused && !head.headers.contains(&NO_RETRY)
}

fn unprocessed(fault: Fault) -> Failure {
    Failure::Unanswered(Unanswered::unprocessed(fault))
}

/// Waits before another attempt, but no longer than the request has time.
pub(super) async fn sleep(pause: Duration, whole: Option<Deadline>) -> Result<(), Failure> {
    let slept = async {
        tokio::time::sleep(pause).await;
        Ok(())
    };
    within(whole, slept).await.map_err(Failure::Unanswered)
}

/// A request that failed without an answer may be sent again: what failed, where it is `safe` and nobody asks for
/// it, nothing where a rule does. The error is that it may not.
fn repeatable(
    failed: Unanswered,
    request: &mut Request<'_>,
    safe: bool,
    by_rule: bool,
) -> Result<Option<Unanswered>, Failure> {
    let asked = by_rule && failed.fault.may_pass();
    let possible = request.responder.is_some() && request.body.rewind();
    if !(safe || asked) || !possible {
        return Err(Failure::Unanswered(failed));
    }
    Ok(safe.then_some(failed))
}

/// What an answer says of its endpoint.
pub(super) fn seen(outcome: &Outcome) -> Answered {
    Answered {
        latency: outcome.latency,
        failed: outcome.is_failure(),
        pause: outcome.pause,
    }
}

/// What a failure without an answer says of its endpoint.
pub(super) fn blame(picked: &Picked, failed: &Unanswered) {
    let unreachable = failed.unprocessed && failed.fault.blames_endpoint();
    if unreachable || failed.connection_lost {
        picked.refused(Instant::now());
    } else if matches!(failed.fault, Fault::UpstreamReset | Fault::BackendTimeout) {
        // One that was just closing is one failure, and no row of them.
        picked.failed(Instant::now());
    }
}

/// One request to one upstream.
async fn send(
    request: &mut Request<'_>,
    opened: &mut Opened,
    terms: Terms<'_>,
) -> Result<Outcome, Failure> {
    let Request {
        head,
        body,
        responder,
    } = request;
    if head.upgrade.is_some() {
        let upgraded = exchange_upgrade(head, body, responder, &mut opened.upstream, false, terms);
        return Box::pin(upgraded).await.map(|(outcome, _)| outcome);
    }
    exchange(head, body, responder, &mut opened.upstream, terms).await
}

/// When the time for an attempt that begins now is over.
pub(super) fn one_attempt(target: &Target) -> Option<Deadline> {
    let timeout = target.routed.as_ref()?.backend_request_timeout()?;
    after(Instant::now(), timeout, Fault::BackendTimeout)
}

fn after(from: Instant, timeout: Duration, fault: Fault) -> Option<Deadline> {
    let at = tokio::time::Instant::from_std(from).checked_add(timeout)?;
    Some(Deadline { at, fault })
}

/// The value of a cookie (RFC 6265 5.4): the first of its name.
pub(super) fn cookie<'h>(head: &'h RequestHead, name: &str) -> Option<&'h str> {
    let fields = head.headers.get_all(&http::header::COOKIE);
    let pairs = fields
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}
