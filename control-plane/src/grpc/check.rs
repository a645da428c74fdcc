//! `weft check`: is everything healthy, seen from the control plane.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weft_proto::v1alpha1 as wire;

use super::Renewals;
use crate::ca::Authority;
use crate::store::Store;
use crate::subscription::{ProxyView, Subscriptions};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The root's expiry is warned of for so long.
const ROOT_WARNING: Duration = Duration::from_secs(90 * 24 * 3600);
/// A clock that is further off makes certificates look not valid yet.
const SKEW_WARNING: Duration = Duration::from_secs(2);
const SKEW_ERROR: Duration = Duration::from_secs(60);

/// What the checks look at.
pub(super) struct Subject<'a> {
    pub store: &'a Store,
    pub authority: &'a Authority,
    pub subscriptions: &'a Subscriptions,
    pub renewals: &'a Renewals,
}

/// Every finding, the healthy ones too. Blocks on the disk.
pub(super) fn findings(subject: &Subject<'_>, client_milliseconds: i64) -> Vec<wire::Finding> {
    let now = SystemTime::now();
    let mut findings = vec![
        store(subject.store),
        root(subject.authority.root_not_after(), now),
        clock(client_milliseconds, now),
    ];
    let proxies = subject.subscriptions.proxies();
    findings.push(sync(&proxies));
    for proxy in &proxies {
        findings.extend(rejections(proxy));
        let until = subject
            .renewals
            .trusted_until(&proxy.workload.spiffe_id, proxy.certificate_not_after);
        findings.extend(certificate(
            proxy,
            until,
            now,
            subject.authority.svid_lifetime(),
        ));
    }
    findings
}

fn finding(subject: impl Into<String>, level: &str, message: String) -> wire::Finding {
    wire::Finding {
        subject: subject.into(),
        level: level.to_owned(),
        message,
    }
}

fn store(store: &Store) -> wire::Finding {
    let probe = UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_millis()
        .to_string();
    let written = store
        .put_record("check", "probe", probe.as_bytes())
        .and_then(|()| store.get_record("check", "probe"));
    match written {
        Ok(Some(read)) if read == probe.as_bytes() => {
            let revision = store.snapshot().revision;
            finding("store", "ok", format!("writable, at revision {revision}"))
        }
        Ok(_) => finding(
            "store",
            "error",
            "it gives back other than was written".into(),
        ),
        Err(error) => finding("store", "error", format!("not writable: {error}")),
    }
}

fn root(not_after: SystemTime, now: SystemTime) -> wire::Finding {
    let when = humantime::format_rfc3339_seconds(not_after);
    let Ok(left) = not_after.duration_since(now) else {
        return finding(
            "root",
            "error",
            format!("the root certificate expired on {when}"),
        );
    };
    let days = left.as_secs() / DAY.as_secs();
    let level = if left < ROOT_WARNING { "warning" } else { "ok" };
    finding(
        "root",
        level,
        format!("the root certificate expires on {when}, in {days} days"),
    )
}

fn clock(client_milliseconds: i64, now: SystemTime) -> wire::Finding {
    let client =
        UNIX_EPOCH + Duration::from_millis(u64::try_from(client_milliseconds).unwrap_or(0));
    let skew = client
        .duration_since(now)
        .unwrap_or_else(|behind| behind.duration());
    let level = match skew {
        skew if skew >= SKEW_ERROR => "error",
        skew if skew >= SKEW_WARNING => "warning",
        _ => "ok",
    };
    let skew = Duration::from_millis(u64::try_from(skew.as_millis()).unwrap_or(u64::MAX));
    let skew = humantime::format_duration(skew);
    finding(
        "clock",
        level,
        format!("the CLI's and the control plane's differ by {skew}"),
    )
}

fn sync(proxies: &[ProxyView]) -> wire::Finding {
    let pending = proxies.iter().filter(|proxy| proxy.pending > 0).count();
    let rejecting = proxies
        .iter()
        .filter(|proxy| !proxy.rejected.is_empty())
        .count();
    let level = if rejecting > 0 { "error" } else { "ok" };
    let connected = proxies.len();
    finding(
        "proxies",
        level,
        format!(
            "{connected} connected, {pending} with pushes pending, {rejecting} that rejected a resource"
        ),
    )
}

fn rejections(proxy: &ProxyView) -> impl Iterator<Item = wire::Finding> {
    proxy.rejected.iter().map(|rejected| {
        finding(
            format!("proxy {}", proxy.proxy),
            "error",
            format!(
                "rejected {}: {}: {}",
                rejected.resource, rejected.field, rejected.reason
            ),
        )
    })
}

/// A proxy renews at two thirds of its certificate's life; at a sixth it is late.
fn certificate(
    proxy: &ProxyView,
    until: SystemTime,
    now: SystemTime,
    lifetime: Duration,
) -> Option<wire::Finding> {
    let left = until.duration_since(now).unwrap_or_default();
    (left < lifetime / 6).then(|| {
        let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
        finding(
            format!("proxy {}", proxy.proxy),
            "warning",
            format!("its certificate expires in {left} and was not renewed"),
        )
    })
}
