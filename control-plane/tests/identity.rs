//! Certificates: who gets one, and what is said to who doesn't.

mod harness;

use std::time::Duration;

use harness::{Control, PATIENCE, Svid, csr, hello};
use rcgen::KeyPair;
use tonic::Code;
use weft_proto::svid;
use weft_proto::v1alpha1 as wire;
use weft_proto::v1alpha1::admin_client::AdminClient;
use weft_proto::v1alpha1::discovery_client::DiscoveryClient;

const ORDERS: &str = "spiffe://weft.local/ns/shop/sa/orders";
const STOCK: &str = "spiffe://weft.local/ns/shop/sa/stock";

async fn refused(
    control: &Control,
    svid: Option<&Svid>,
    uri: &str,
    token: &str,
    expect: (Code, &str),
) {
    let key = KeyPair::generate().unwrap();
    let status = control
        .issue(svid, &csr(&key, uri), token)
        .await
        .unwrap_err();
    assert_eq!(status.code(), expect.0, "{status:?}");
    assert!(
        status.message().contains(expect.1),
        "{status:?}, expected {}",
        expect.1
    );
}

#[tokio::test]
async fn a_token_gives_a_certificate_and_the_trust_bundle() {
    let control = Control::start().await;
    let svid = control.join("shop", "orders").await;
    assert_eq!(svid::spiffe_id(&svid.chain[0]).unwrap().to_string(), ORDERS);
    let key = KeyPair::generate().unwrap();
    let renewed = control
        .issue(Some(&svid), &csr(&key, ORDERS), "")
        .await
        .unwrap();
    let bundle = renewed.trust_bundle.clone().unwrap();
    assert_eq!(
        (bundle.trust_domain.as_str(), bundle.roots.len()),
        ("weft.local", 1)
    );
    let renewed = Svid::new(key, &renewed);
    control
        .attach(&renewed, hello("orders", "i-1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn refusals_say_why() {
    let control = Control::start().await;
    let token = control.token("shop", "orders", 60, 1).await;
    let unknown = format!("weft-token-{}", "0".repeat(64));
    let unauthenticated = Code::Unauthenticated;
    refused(
        &control,
        None,
        ORDERS,
        "nonsense",
        (unauthenticated, "is malformed"),
    )
    .await;
    refused(
        &control,
        None,
        ORDERS,
        &unknown,
        (unauthenticated, "is unknown"),
    )
    .await;
    refused(
        &control,
        None,
        ORDERS,
        "",
        (unauthenticated, "needs a join token"),
    )
    .await;
    let other = (
        Code::PermissionDenied,
        "is for service account shop/orders and does not allow spiffe://weft.local/ns/shop/sa/stock",
    );
    refused(&control, None, STOCK, &token, other).await;
    let foreign = "spiffe://evil.example/ns/shop/sa/orders";
    let domain = (Code::InvalidArgument, "signs for trust domain weft.local");
    refused(&control, None, foreign, &token, domain).await;
    // None of these used the token up.
    let key = KeyPair::generate().unwrap();
    let issued = control
        .issue(None, &csr(&key, ORDERS), &token)
        .await
        .unwrap();
    refused(
        &control,
        None,
        ORDERS,
        &token,
        (unauthenticated, "used up: it allowed 1 uses"),
    )
    .await;
    let svid = Svid::new(key, &issued);
    let renewal = (Code::PermissionDenied, "can renew its own certificate");
    refused(&control, Some(&svid), STOCK, "", renewal).await;
}

#[tokio::test]
async fn a_token_expires() {
    let control = Control::start().await;
    let token = control.token("shop", "orders", 1, 0).await;
    let key = KeyPair::generate().unwrap();
    let expired = async {
        loop {
            match control.issue(None, &csr(&key, ORDERS), &token).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, expired).await.unwrap();
    assert!(status.message().contains("expired"), "{status:?}");
}

#[tokio::test]
async fn a_token_is_used_as_often_as_it_says_and_no_more() {
    let control = Control::start().await;
    let token = control.token("shop", "orders", 60, 3).await;
    let key = KeyPair::generate().unwrap();
    let request = csr(&key, ORDERS);
    let tries = (0..10).map(|_| control.issue(None, &request, &token));
    let results = futures_util::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
}

#[tokio::test]
async fn a_certificate_of_another_root_fails_the_handshake() {
    let [ours, theirs] = [Control::start().await, Control::start().await];
    let stranger = theirs.join("shop", "orders").await;
    let status = ours
        .attach(&stranger, hello("orders", "i-1"))
        .await
        .err()
        .unwrap();
    assert_ne!(status.code(), Code::Ok);
    assert!(!status.message().contains("hello"), "{status:?}");
    let proxies = ours
        .admin()
        .await
        .proxies(wire::ProxiesRequest {})
        .await
        .unwrap();
    assert_eq!(proxies.into_inner().proxies, []);
}

#[tokio::test]
async fn discovery_needs_the_identity_that_the_hello_names() {
    let control = Control::start().await;
    let svid = control.join("shop", "orders").await;
    let check = async |hello: wire::Hello, expect: &str| {
        let status = control.attach(&svid, hello).await.err().expect("refused");
        assert!(
            status.message().contains(expect),
            "{status:?}, expected {expect}"
        );
    };
    let mut other = hello("orders", "i-1");
    other.namespace = "bank".to_owned();
    check(
        other,
        "the proxy's namespace is \"bank\", but its certificate says \"shop\"",
    )
    .await;
    let mut other = hello("orders", "i-1");
    other.service_account = "stock".to_owned();
    check(
        other,
        "service account is \"stock\", but its certificate says \"orders\"",
    )
    .await;
    let mut other = hello("orders", "i-1");
    other.address = "nowhere".to_owned();
    check(other, "\"nowhere\" is not an IP address").await;
    let mut other = hello("orders", "i-1");
    other.ports_up = vec![70000];
    check(other, "70000 is not a port").await;
    check(hello("orders", ""), "instance must have 1 to").await;

    let channel = control.channel(None).await.unwrap();
    let stream = tokio_stream::iter([]);
    let status = DiscoveryClient::new(channel)
        .attach(stream)
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[tokio::test]
async fn only_an_operator_operates_from_afar() {
    let control = Control::start().await;
    let orders = control.join("shop", "orders").await;
    let operator = control.join("weft-system", "operator").await;
    let proxies = async |svid: Option<&Svid>| {
        let channel = control.channel(svid).await.unwrap();
        AdminClient::new(channel)
            .proxies(wire::ProxiesRequest {})
            .await
    };
    let code = |result: Result<_, tonic::Status>| result.map(drop).map_err(|status| status.code());
    assert_eq!(code(proxies(None).await), Err(Code::Unauthenticated));
    assert_eq!(
        code(proxies(Some(&orders)).await),
        Err(Code::PermissionDenied)
    );
    assert_eq!(code(proxies(Some(&operator)).await), Ok(()));
}
