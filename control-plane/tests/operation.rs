//! What operators do: apply, get, delete, check, start and stop.

mod harness;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{Control, SHOP, hello};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use weft::app::{self, Options};
use weft_proto::v1alpha1 as wire;

fn apply_request(documents: &str, dry_run: bool) -> wire::ApplyRequest {
    wire::ApplyRequest {
        sources: vec![wire::Source {
            name: "test.yaml".to_owned(),
            content: documents.as_bytes().to_vec().into(),
        }],
        dry_run,
        namespace: "shop".to_owned(),
    }
}

async fn get(control: &Control, kind: &str, name: &str) -> Result<Vec<Value>, tonic::Status> {
    let request = wire::GetRequest {
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        all_namespaces: false,
    };
    let got = control.admin().await.get(request).await?.into_inner();
    let objects = got.objects.iter();
    Ok(objects
        .map(|json| serde_json::from_str(json).unwrap())
        .collect())
}

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: '', kind: Service, name: orders}]
  rules: [{backendRefs: [{name: later, port: 80}]}]
";

#[tokio::test]
async fn a_bad_document_keeps_the_good_ones_out() {
    let control = Control::start().await;
    let mut admin = control.admin().await;
    let bad = format!(
        "{SHOP}---\n{ROUTE}---\n{}",
        SHOP.replace("port: 80", "port: 70000")
    );
    let refused = admin
        .apply(apply_request(&bad, false))
        .await
        .unwrap()
        .into_inner();
    assert!(!refused.problems.is_empty());
    assert_eq!((refused.revision, refused.changes.len()), (0, 0));
    assert_eq!(
        get(&control, "services", "").await.unwrap(),
        Vec::<Value>::new()
    );
    let dry = admin
        .apply(apply_request(SHOP, true))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((dry.problems.len(), dry.changes.len()), (0, 2));
    assert_eq!(
        get(&control, "services", "").await.unwrap(),
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn conditions_follow_what_they_are_about() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let mut admin = control.admin().await;
    admin.apply(apply_request(ROUTE, false)).await.unwrap();
    let condition = async |index: usize| {
        let routes = get(&control, "httproutes", "r").await.unwrap();
        routes[0]["status"]["parents"][0]["conditions"][index].clone()
    };
    let accepted = condition(0).await;
    assert_eq!(
        (&accepted["type"], &accepted["status"]),
        (&"Accepted".into(), &"True".into())
    );
    assert_eq!(accepted["observedGeneration"], 1);
    assert_eq!(condition(1).await["reason"], "BackendNotFound");
    let later =
        "{apiVersion: v1, kind: Service, metadata: {name: later}, spec: {ports: [{port: 80}]}}";
    admin.apply(apply_request(later, false)).await.unwrap();
    assert_eq!(condition(1).await["status"], "True");
    let object = |kind: &str, name: &str| wire::DeleteRequest {
        what: Some(wire::delete_request::What::Object(wire::ObjectName {
            kind: kind.to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        })),
        dry_run: false,
        namespace: String::new(),
    };
    admin.delete(object("service", "orders")).await.unwrap();
    assert_eq!(condition(0).await["reason"], "NoMatchingParent");
    let gone = admin.delete(object("service", "orders")).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(
        gone.message()
            .contains("there is no Service orders in namespace shop")
    );
    assert_eq!(
        get(&control, "pods", "").await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        get(&control, "services", "x").await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn workloads_are_shown_while_they_are_connected() {
    let control = Control::start().await;
    let svid = control.join("shop", "orders").await;
    let mut announced = hello("orders", "i-1");
    announced.ports_up = vec![8080];
    let proxy = control.attach(&svid, announced).await.unwrap();
    let shown = get(&control, "workloads", "orders").await.unwrap();
    assert_eq!(shown[0]["metadata"]["labels"]["app"], "orders");
    assert_eq!(
        shown[0]["spec"]["spiffeId"],
        "spiffe://weft.local/ns/shop/sa/orders"
    );
    assert_eq!(shown[0]["status"]["portsUp"][0], 8080);
    drop(proxy);
    let gone = async {
        while !get(&control, "workloads", "").await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(harness::PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn check_finds_what_is_wrong() {
    let control = Control::start().await;
    let levels = async |now: SystemTime| {
        let now = now.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let request = wire::CheckRequest {
            now_unix_milliseconds: i64::try_from(now).unwrap(),
        };
        let findings = control
            .admin()
            .await
            .check(request)
            .await
            .unwrap()
            .into_inner()
            .findings;
        let findings = findings.into_iter();
        findings
            .map(|found| format!("{} {}", found.subject, found.level))
            .collect::<Vec<_>>()
    };
    let healthy = ["store ok", "root ok", "clock ok", "proxies ok"];
    assert_eq!(levels(SystemTime::now()).await, healthy);
    let wrong = SystemTime::now() - Duration::from_secs(120);
    assert_eq!(levels(wrong).await[2], "clock error");
}

#[tokio::test]
async fn a_start_that_cannot_be_says_why() {
    let control = Control::start().await;
    let other = tempfile::tempdir().unwrap();
    let options = |directory: &std::path::Path, listen: std::net::SocketAddr| Options {
        data_dir: directory.to_owned(),
        listen,
        admin: "127.0.0.1:0".parse().unwrap(),
        trust_domain: "weft.local".to_owned(),
        svid_lifetime: Duration::from_secs(3600),
    };
    let check = async |options: Options, expect: &str| {
        let error = app::bind(&options)
            .await
            .err()
            .expect("refused")
            .to_string();
        assert!(error.contains(expect), "{error}, expected {expect}");
    };
    let taken = format!("can't listen on {} for proxies", control.address);
    check(options(other.path(), control.address), &taken).await;
    let free = "127.0.0.1:0".parse().unwrap();
    check(
        options(control.directory.path(), free),
        "in use by another weft serve",
    )
    .await;
    let file = other.path().join("file");
    std::fs::write(&file, "").unwrap();
    check(
        options(&file.join("data"), free),
        "can't create the data directory",
    )
    .await;
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_no_hindrance() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let path = directory.path().join("weft.sock");
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let control = Control::start_in(directory, Duration::from_secs(3600)).await;
    control.apply(SHOP).await;
    control.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn probes_and_metrics_are_served() {
    let control = Control::start().await;
    let _proxy = control.proxy("web", "i-web").await;
    let fetch = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(control.admin_address)
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    };
    for path in ["/live", "/ready"] {
        assert!(fetch(path).await.starts_with("HTTP/1.1 200"), "{path}");
    }
    let metrics = fetch("/metrics").await;
    assert!(metrics.contains("weft_proxies_connected 1\n"), "{metrics}");
    assert!(
        metrics.contains("weft_certificates_issued_total 1\n"),
        "{metrics}"
    );
    assert!(fetch("/nothing").await.starts_with("HTTP/1.1 404"));
}
