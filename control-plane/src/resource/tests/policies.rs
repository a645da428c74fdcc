//! Policies of our own: what is refused, and what is given back.

use super::*;

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_policies_of_traffic() {
    let policy = |spec: &str| format!("apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: a}}], {spec}}}\n");
    let balancing = |spec: &str| policy(&format!("loadBalancing: {{{spec}}}"));
    let outliers = |spec: &str| policy(&format!("outlierDetection: {{{spec}}}"));
    let breaker = |spec: &str| policy(&format!("circuitBreaker: {{{spec}}}"));
    refused(&policy(""), 1, "spec", 4, "says nothing");
    refused(&policy("retries: {}, circuitBreaker: {}"), 1, "spec.retries", 4, "unknown field");
    refused(&balancing("hashKey: {type: Path}"), 1, "spec.loadBalancing.hashKey", 4, "means nothing");
    refused(&balancing("locality: Near"), 1, "spec.loadBalancing.locality", 4, "none of OwnZoneFirst, AnyZone");
    refused(&balancing("panicPercent: 101"), 1, "spec.loadBalancing.panicPercent", 4, "not within 0 to 100");
    let check = |spec: &str| policy(&format!("healthCheck: {{{spec}}}"));
    refused(&check("interval: 1s"), 1, "spec.healthCheck.type", 4, "is required");
    refused(&check("type: Ping"), 1, "spec.healthCheck.type", 4, "none of HTTP, GRPC, TCP");
    refused(&check("type: TCP, http: {path: /}"), 1, "spec.healthCheck.type", 4, "only the part named");
    refused(&check("type: HTTP, http: {path: health}"), 1, "spec.healthCheck.http.path", 4, "must begin with '/'");
    refused(&check("type: HTTP, http: {path: '/a b'}"), 1, "spec.healthCheck.http.path", 4, "visible");
    refused(&check("type: HTTP, http: {expectedStatuses: [100]}"), 1, "spec.healthCheck.http.expectedStatuses[0]", 4, "not within 200 to 599");
    refused(&check("type: GRPC, grpc: {service: 'a b'}"), 1, "spec.healthCheck.grpc.service", 4, "a b");
    refused(&check("type: TCP, timeout: 1ms"), 1, "spec.healthCheck.timeout", 4, "not within 100ms");
    refused(&check("type: TCP, healthyThreshold: 0"), 1, "spec.healthCheck.healthyThreshold", 4, "not within 1 to 100");
    refused(&policy("hedging: {percentile: 100}"), 1, "spec.hedging.percentile", 4, "not within 50 to 99");
    refused(&policy("hedging: {minDelay: 0s}"), 1, "spec.hedging.minDelay", 4, "not within 1ms");
    refused(&balancing("algorithm: Random"), 1, "spec.loadBalancing.algorithm", 4, "none of LeastRequest");
    refused(&balancing("algorithm: ConsistentHash"), 1, "spec.loadBalancing.algorithm", 4, "needs hashKey");
    refused(&balancing("algorithm: RoundRobin, hashKey: {type: Path}"), 1, "spec.loadBalancing.hashKey", 4, "means nothing");
    refused(&balancing("algorithm: ConsistentHash, hashKey: {type: User}"), 1, "spec.loadBalancing.hashKey.type", 4, "none of Header, Cookie, Source, Path");
    refused(&balancing("algorithm: ConsistentHash, hashKey: {type: Header}"), 1, "spec.loadBalancing.hashKey.name", 4, "is required");
    refused(&balancing("algorithm: ConsistentHash, hashKey: {type: Header, name: 'a b'}"), 1, "spec.loadBalancing.hashKey.name", 4, "a b");
    refused(&balancing("algorithm: ConsistentHash, hashKey: {type: Cookie, name: 'a;b'}"), 1, "spec.loadBalancing.hashKey.name", 4, "no cookie");
    refused(&balancing("algorithm: ConsistentHash, hashKey: {type: Path, name: x}"), 1, "spec.loadBalancing.hashKey.name", 4, "unknown field");
    refused(&balancing("algorithm: PeakEWMA, slowStart: 30"), 1, "spec.loadBalancing.slowStart", 4, "must be a string");
    refused(&outliers("interval: 1ms"), 1, "spec.outlierDetection.interval", 4, "not within 100ms to 24h");
    refused(&outliers("ejectionTime: 25h"), 1, "spec.outlierDetection.ejectionTime", 4, "not within");
    refused(&outliers("maxEjectedPercent: 101"), 1, "spec.outlierDetection.maxEjectedPercent", 4, "not within 0 to 100");
    refused(&outliers("latencyFactor: 0.5"), 1, "spec.outlierDetection", 4, "must be above 1");
    refused(&outliers("latencyFactor: -1"), 1, "spec.outlierDetection.latencyFactor", 4, "not within");
    refused(&outliers("successRateDeviations: many"), 1, "spec.outlierDetection.successRateDeviations", 4, "must be a number");
    refused(&breaker("maxRequests: 0"), 1, "spec.circuitBreaker.maxRequests", 4, "not within 1 to");
    refused(&breaker("queueTimeout: soon"), 1, "spec.circuitBreaker.queueTimeout", 4, "no duration");
    let budget = |spec: &str| policy(&format!("retryConstraint: {{{spec}}}")).replace("weft.dev", "gateway.networking.x-k8s.io").replace("TrafficPolicy", "XBackendTrafficPolicy");
    refused(&budget("budget: {percent: 101}"), 1, "spec.retryConstraint.budget.percent", 4, "not within 0 to 100");
    refused(&budget("budget: {interval: 2h}"), 1, "spec.retryConstraint.budget.interval", 4, "not within 100ms to 1h");
    refused(&budget("minRetryRate: {count: -1}"), 1, "spec.retryConstraint.minRetryRate.count", 4, "not within");
    refused(&budget("budgets: {}"), 1, "spec.retryConstraint.budgets", 4, "unknown field");
    let session = |spec: &str| budget("").replace("retryConstraint: {}", &format!("sessionPersistence: {{{spec}}}"));
    refused(&session("type: Cookies"), 1, "spec.sessionPersistence.type", 4, "none of Cookie, Header");
    refused(&session("sessionName: 'a b'"), 1, "spec.sessionPersistence.sessionName", 4, "");
    refused(&session("cookieConfig: {lifetimeType: Permanent}"), 1, "spec.sessionPersistence", 4, "needs absoluteTimeout");
    refused(&session("forever: true"), 1, "spec.sessionPersistence.forever", 4, "unknown field");
}

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_fault_injections() {
    let policy = |spec: &str| format!("apiVersion: weft.dev/v1alpha1\nkind: FaultInjectionPolicy\nmetadata: {{name: p}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: a}}], {spec}}}\n");
    let fault = |spec: &str| policy(&format!("faults: [{{{spec}}}]"));
    refused(&policy(""), 1, "spec.faults", 4, "is required");
    refused(&policy("faults: []"), 1, "spec.faults", 4, "at least one");
    refused(&fault(""), 1, "spec.faults[0]", 4, "does nothing");
    refused(&fault("delay: {percent: 101, duration: 1s}"), 1, "spec.faults[0].delay.percent", 4, "not within 0 to 100");
    refused(&fault("delay: {percent: 5}"), 1, "spec.faults[0].delay.duration", 4, "is required");
    refused(&fault("delay: {duration: 2h}"), 1, "spec.faults[0].delay.duration", 4, "not within 1ms to 1h");
    refused(&fault("abort: {percent: 5}"), 1, "spec.faults[0].abort", 4, "needs httpStatus or grpcStatus");
    refused(&fault("abort: {httpStatus: 500, grpcStatus: 3}"), 1, "spec.faults[0].abort", 4, "and not both");
    refused(&fault("abort: {httpStatus: 100}"), 1, "spec.faults[0].abort.httpStatus", 4, "not within 200 to 599");
    refused(&fault("abort: {grpcStatus: 0}"), 1, "spec.faults[0].abort.grpcStatus", 4, "not within 1 to 16");
    let of = |target: &str| fault("abort: {httpStatus: 500}").replace("{group: '', kind: Service, name: a}", target);
    refused(&of("{group: gateway.networking.k8s.io, kind: TCPRoute, name: a}"), 1, "spec.targetRefs[0]", 4, "HTTPRoute or a GRPCRoute");
    let route = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}";
    refused(&of(&format!("{route}, {route}")), 1, "spec.targetRefs[1]", 4, "named twice");
    refused(&fault("abort: {httpStatus: 500}, match: {path: {value: x}}"), 1, "spec.faults[0].match.path.value", 4, "must begin");
}

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_inbound_policies() {
    let policy = |spec: &str| format!("apiVersion: weft.dev/v1alpha1\nkind: InboundPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: a}}], {spec}}}\n");
    refused(&policy(""), 1, "spec", 4, "says nothing");
    refused(&policy("concurrency: {mode: Observe}").replace("group: '', kind: Service", "group: gateway.networking.k8s.io, kind: HTTPRoute"), 1, "spec.targetRefs[0]", 4, "must be a Service");
    refused(&policy("concurrency: {}"), 1, "spec.concurrency.mode", 4, "is required");
    refused(&policy("concurrency: {mode: Maybe}"), 1, "spec.concurrency.mode", 4, "none of Observe, Enforce");
    refused(&policy("concurrency: {mode: Enforce, min: 0}"), 1, "spec.concurrency.min", 4, "not within 1");
    refused(&policy("concurrency: {mode: Enforce, min: 9, max: 8}"), 1, "spec.concurrency", 4, "min 9 is above max 8");
    let priority = |spec: &str| policy(&format!("priorities: [{{{spec}}}]"));
    refused(&priority("priority: Top"), 1, "spec.priorities[0].priority", 4, "none of Low, Normal, High");
    refused(&priority("priority: High, callers: [{}]"), 1, "spec.priorities[0].callers[0].namespace", 4, "is required");
    refused(&priority("priority: High, routes: [{kind: TCPRoute, name: a}]"), 1, "spec.priorities[0].routes[0].kind", 4, "none of HTTPRoute, GRPCRoute");
    refused(&priority("priority: High, match: {paths: /}"), 1, "spec.priorities[0].match.paths", 4, "unknown field");
    let limit = |spec: &str| policy(&format!("rateLimits: [{{{spec}}}]"));
    refused(&limit("requests: 1, interval: 1s"), 1, "spec.rateLimits[0].name", 4, "is required");
    refused(&limit("name: a, interval: 1s"), 1, "spec.rateLimits[0].requests", 4, "is required");
    refused(&limit("name: a, requests: 1"), 1, "spec.rateLimits[0].interval", 4, "is required");
    refused(&limit("name: a, requests: 0, interval: 1s"), 1, "spec.rateLimits[0].requests", 4, "not within 1");
    refused(&limit("name: a, requests: 1, interval: 0s"), 1, "spec.rateLimits[0].interval", 4, "not within 1ms");
    refused(&limit("name: a, requests: 1, interval: 1s, key: [{type: User}]"), 1, "spec.rateLimits[0].key[0].type", 4, "none of Caller, Route, Header");
    refused(&limit("name: a, requests: 1, interval: 1s, key: [{type: Header}]"), 1, "spec.rateLimits[0].key[0].type", 4, "needs the header's name");
    refused(&limit("name: a, requests: 1, interval: 1s, key: [{type: Caller, name: x}]"), 1, "spec.rateLimits[0].key[0].name", 4, "means nothing");
    refused(&policy("rateLimits: [{name: a, requests: 1, interval: 1s}, {name: a, requests: 2, interval: 1s}]"), 1, "spec", 4, "the same name");
    let global = |spec: &str| policy(&format!("globalRateLimit: {{{spec}}}"));
    refused(&global("domain: d, descriptors: []"), 1, "spec.globalRateLimit.backendRef", 4, "is required");
    refused(&global("backendRef: {name: limits, port: 8081}, domain: d, descriptors: []"), 1, "spec.globalRateLimit.descriptors", 4, "at least one");
    let described = |spec: &str| global(&format!("backendRef: {{name: limits, port: 8081}}, domain: d, descriptors: [{{entries: [{{{spec}}}]}}]"));
    refused(&described("key: a"), 1, "spec.globalRateLimit.descriptors[0].entries[0]", 4, "needs value or valueFrom");
    refused(&described("key: a, value: ''"), 1, "spec.globalRateLimit.descriptors[0].entries[0].value", 4, "must have 1 to 256 bytes");
    refused(&described("key: a, valueFrom: {type: X}"), 1, "spec.globalRateLimit.descriptors[0].entries[0].valueFrom.type", 4, "none of");
}

#[test]
fn gives_policies_back_as_they_were_written() {
    for text in [
        "apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: '', kind: Service, name: a}]
  loadBalancing: {algorithm: LeastRequest, locality: AnyZone, panicPercent: 30}
  healthCheck: {type: HTTP, http: {path: '/well?a=b', host: a.shop, expectedStatuses: [200, 418]}, interval: 3s, timeout: 500ms, unhealthyThreshold: 2, healthyThreshold: 1}
  hedging: {percentile: 90, minDelay: 5ms}
",
        "apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: '', kind: Service, name: a}]
  healthCheck: {type: GRPC, grpc: {service: shop.Orders}}
",
        "apiVersion: weft.dev/v1alpha1
kind: FaultInjectionPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: '', kind: Service, name: a, sectionName: b}]
  faults:
  - {match: {path: {type: Exact, value: /pay}, headers: [{type: Exact, name: chaos, value: 'yes'}]}, delay: {percent: 12.5, duration: 2s}}
  - {delay: {percent: 100.0, duration: 5ms}, abort: {percent: 0.25, grpcStatus: 14}}
  - {abort: {percent: 1.0, httpStatus: 503}}
",
        "apiVersion: weft.dev/v1alpha1
kind: InboundPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: '', kind: Service, name: a, sectionName: b}]
  concurrency: {mode: Enforce, min: 4, max: 400, maxPendingRequests: 100, queueTimeout: 200ms}
  priorities:
  - {priority: High, callers: [{namespace: shop, serviceAccount: web}, {namespace: ops}]}
  - {priority: Low, routes: [{kind: GRPCRoute, namespace: shop, name: reports}], match: {path: {type: PathPrefix, value: /}, method: GET}}
  rateLimits:
  - {name: all, requests: 1000, interval: 1s, burst: 50}
  - {name: each, callers: [{namespace: shop}], key: [{type: Caller}, {type: Route}, {type: Header, name: user}], requests: 10, interval: 1m}
  globalRateLimit:
    backendRef: {name: limits, namespace: infra, port: 8081}
    domain: shop
    descriptors: [{callers: [{namespace: shop}], entries: [{key: user, valueFrom: {type: Header, name: user}}, {key: plan, value: free}]}]
    timeout: 50ms
    failureMode: Deny
",
    ] {
        gives_back(text);
    }
}
