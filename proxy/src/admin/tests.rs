use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use super::*;

fn hooks(drained: Arc<AtomicBool>, reasons: Vec<String>) -> Hooks {
    Hooks {
        ready: Box::new(move || match reasons.is_empty() {
            true => Ok(()),
            false => Err(reasons.clone()),
        }),
        metrics: Box::new(|| "weft_build_info 1\n".to_owned()),
        configuration: Box::new(|| "{}".to_owned()),
        drain: Box::new(move || drained.store(true, Ordering::Relaxed)),
        log: Box::new(|filter| match filter {
            "debug" => Ok(()),
            _ => Err("unknown level".to_owned()),
        }),
    }
}

async fn ask(router: &Router, line: &str, body: &str) -> (u16, String) {
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(axum::body::Body::from(body.to_owned()))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn routes() {
    let drained = Arc::new(AtomicBool::new(false));
    let router = router(hooks(drained.clone(), Vec::new()));
    let check = async |line: &str, body: &str, status: u16, text: &str| {
        let answer = ask(&router, line, body).await;
        assert_eq!(answer.0, status, "{line}: {}", answer.1);
        assert!(answer.1.contains(text), "{line}: {}", answer.1);
    };
    check("GET /live", "", 200, "live").await;
    check("GET /ready", "", 200, "ready").await;
    check("GET /metrics", "", 200, "weft_build_info").await;
    check("GET /config", "", 200, "{}").await;
    check("PUT /log", "debug\n", 200, "changed").await;
    check(
        "PUT /log",
        "loud",
        400,
        "`loud` is no log filter: unknown level",
    )
    .await;
    check("PUT /log", &"x".repeat(BODY_BYTES_MAX + 1), 413, "").await;
    check("GET /drain", "", 405, "takes POST").await;
    check("GET /other", "", 404, "/metrics").await;
    assert!(!drained.load(Ordering::Relaxed));
    check("POST /drain", "", 202, "draining").await;
    assert!(drained.load(Ordering::Relaxed));
}

#[tokio::test]
async fn reasons_of_unreadiness_are_named_over_a_real_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reasons = vec!["no certificate yet".to_owned(), "draining".to_owned()];
    let server = tokio::spawn(serve(listener, hooks(Arc::default(), reasons)));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("not ready: no certificate yet; draining\n"));
    server.abort();
}
