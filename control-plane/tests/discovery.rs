//! What proxies are pushed, and when.

mod harness;

use std::time::Duration;

use harness::{Control, Proxy, SHOP, endpoint_ids, hello};
use prost::Message;
use tokio::time::Instant;
use tonic::Code;
use weft_proto::v1alpha1 as wire;
use weft_proto::v1alpha1::ResourceType::{Address, Cluster, Inbound, Route, Service, TrustBundle};
use weft_proto::v1alpha1::control_message::Message as FromControl;
use weft_proto::v1alpha1::proxy_message::Message as ToControl;

const ORDERS: &str = "shop/orders:80";

async fn wait(control: &Control, revision: u64, milliseconds: u64) -> wire::WaitResponse {
    let request = wire::WaitRequest {
        revision,
        timeout_milliseconds: milliseconds,
    };
    control
        .admin()
        .await
        .wait(request)
        .await
        .unwrap()
        .into_inner()
}

async fn proxies(control: &Control) -> Vec<wire::Proxy> {
    let request = wire::ProxiesRequest {};
    control
        .admin()
        .await
        .proxies(request)
        .await
        .unwrap()
        .into_inner()
        .proxies
}

#[tokio::test]
async fn a_proxy_gets_what_it_asks_for() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let mut proxy = control.proxy("web", "i-web").await;
    proxy
        .subscribe(&[
            (Service, "shop/orders"),
            (Route, ORDERS),
            (Inbound, "self"),
            (TrustBundle, "weft.local"),
            (Service, "shop/nothing"),
            (Cluster, "not a name"),
        ])
        .await;
    let push = proxy.push().await;
    let find = |kind: wire::ResourceType, name: &str| {
        let found = push.resources.iter();
        let mut found = found.filter(|r| r.r#type == i32::from(kind) && r.name == name);
        found
            .next()
            .unwrap_or_else(|| panic!("{kind:?} {name}"))
            .clone()
    };
    let service = wire::Service::decode(find(Service, "shop/orders").body).unwrap();
    assert_eq!(service.virtual_ips.len(), 2);
    assert_eq!(service.ports[0].protocol(), wire::Protocol::Http1);
    let route = wire::Route::decode(find(Route, ORDERS).body).unwrap();
    assert_eq!(
        (route.rules.len(), route.default_cluster.as_str()),
        (0, ORDERS)
    );
    assert_eq!(find(Inbound, "self").version.len(), 16);
    let bundle = wire::TrustBundle::decode(find(TrustBundle, "weft.local").body).unwrap();
    assert_eq!(bundle.roots.len(), 1);
    for (kind, name) in [(Service, "shop/nothing"), (Cluster, "not a name")] {
        let absent = find(kind, name);
        assert_eq!((absent.version.as_str(), absent.body.len()), ("", 0));
    }
    proxy.acknowledge(&push, Vec::new()).await;
    let virtual_ip = format!("{}:80", service.virtual_ips[0]);
    proxy.subscribe(&[(Address, &virtual_ip)]).await;
    let address = proxy.until(Address, &virtual_ip, |_| true).await;
    let address = wire::Address::decode(address.body).unwrap();
    let owner = wire::address::Owner::Service("shop/orders".to_owned());
    assert_eq!(address.owner, Some(owner));
}

#[tokio::test]
async fn endpoints_follow_ports_goodbyes_and_streams() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let mut caller = control.proxy("web", "i-web").await;
    caller
        .subscribe(&[(Cluster, ORDERS), (Address, "127.0.0.1:8080")])
        .await;
    let orders = control.proxy("orders", "i-1").await;
    orders.report(&[8080]).await;
    let cluster = caller.until_endpoints(ORDERS, &["i-1:8080"]).await;
    let endpoint = &cluster.endpoints[0];
    let sidecar = endpoint.sidecar.as_ref().unwrap();
    assert_eq!(sidecar.spiffe_id, "spiffe://weft.local/ns/shop/sa/orders");
    assert_eq!(
        (sidecar.instance.as_str(), sidecar.inbound_port),
        ("i-1", 4143)
    );
    assert_eq!(
        (endpoint.workload.as_str(), endpoint.port),
        ("orders", 8080)
    );
    caller
        .until(Address, "127.0.0.1:8080", |found| !found.version.is_empty())
        .await;

    orders.report(&[]).await;
    caller.until_endpoints(ORDERS, &[]).await;
    caller
        .until(Address, "127.0.0.1:8080", |found| found.version.is_empty())
        .await;
    orders.report(&[8080]).await;
    caller.until_endpoints(ORDERS, &["i-1:8080"]).await;

    let second = control.proxy("orders", "i-2").await;
    second.report(&[8080]).await;
    caller
        .until_endpoints(ORDERS, &["i-1:8080", "i-2:8080"])
        .await;
    orders.send(ToControl::Goodbye(wire::Goodbye {})).await;
    caller.until_endpoints(ORDERS, &["i-2:8080"]).await;
    drop(second);
    caller.until_endpoints(ORDERS, &[]).await;
}

#[tokio::test]
async fn a_named_port_is_the_workloads_own() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let svid = control.join("shop", "stock").await;
    let mut stock = hello("stock", "i-1");
    stock.named_ports.insert("web".to_owned(), 9001);
    stock.ports_up = vec![9001];
    let mut stock = control.attach(&svid, stock).await.unwrap();
    stock.subscribe(&[(Inbound, "self")]).await;
    let has_ports = |found: &wire::Resource| {
        wire::Inbound::decode(found.body.clone()).is_ok_and(|inbound| !inbound.ports.is_empty())
    };
    let inbound = stock.until(Inbound, "self", has_ports).await;
    let inbound = wire::Inbound::decode(inbound.body).unwrap();
    assert_eq!((inbound.ports.len(), inbound.ports[0].port), (1, 9001));
    assert_eq!(inbound.ports[0].services, ["shop/stock"]);
    stock.subscribe(&[(Cluster, "shop/stock:80")]).await;
    stock.until_endpoints("shop/stock:80", &["i-1:9001"]).await;
}

#[tokio::test]
async fn what_a_proxy_holds_already_is_not_sent_again() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let svid = control.join("shop", "web").await;
    let mut proxy = control.attach(&svid, hello("web", "i-web")).await.unwrap();
    let names = [
        (Service, "shop/orders"),
        (Service, "shop/stock"),
        (Route, ORDERS),
        (Service, "shop/none"),
    ];
    proxy.subscribe(&names).await;
    for (kind, name) in names {
        proxy.until(kind, name, |_| true).await;
    }
    let mut again = hello("web", "i-web");
    again.known = proxy.known();
    drop(proxy);
    control
        .apply(
            &SHOP
                .replace("name: stock,", "labels: {a: b}, name: stock,")
                .replace("port: 80, targetPort: web", "port: 81, targetPort: web"),
        )
        .await;
    let mut proxy = control.attach(&svid, again).await.unwrap();
    let push = proxy.push().await;
    let pushed: Vec<&str> = push.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(pushed, ["shop/stock"]);
    proxy.acknowledge(&push, Vec::new()).await;
    // It is subscribed to what it held: what appears is pushed.
    control.apply("{apiVersion: v1, kind: Service, metadata: {name: none, namespace: shop}, spec: {ports: [{port: 80}]}}").await;
    proxy
        .until(Service, "shop/none", |found| !found.version.is_empty())
        .await;
}

#[tokio::test]
async fn versions_are_the_same_after_a_restart() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let svid = control.join("shop", "web").await;
    let mut proxy = control.attach(&svid, hello("web", "i-web")).await.unwrap();
    proxy
        .subscribe(&[(Service, "shop/orders"), (Route, ORDERS)])
        .await;
    let before = [
        proxy.until(Service, "shop/orders", |_| true).await,
        proxy.until(Route, ORDERS, |_| true).await,
    ];
    let directory = control.stop().await;
    assert_eq!(proxy.receive().await.unwrap_err().code(), Code::Unavailable);
    let control = Control::start_in(directory, Duration::from_secs(3600)).await;
    let mut proxy = control.attach(&svid, hello("web", "i-web")).await.unwrap();
    proxy
        .subscribe(&[(Service, "shop/orders"), (Route, ORDERS)])
        .await;
    let after = [
        proxy.until(Service, "shop/orders", |_| true).await,
        proxy.until(Route, ORDERS, |_| true).await,
    ];
    assert_eq!(before, after);
}

#[tokio::test]
async fn endpoints_do_not_flap_over_a_restart() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let svids = [
        control.join("shop", "web").await,
        control.join("shop", "orders").await,
    ];
    let mut caller = control
        .attach(&svids[0], hello("web", "i-web"))
        .await
        .unwrap();
    caller.subscribe(&[(Cluster, ORDERS)]).await;
    let with_port = |instance: &str| {
        let mut hello = hello("orders", instance);
        hello.ports_up = vec![8080];
        hello
    };
    let _stays = control.attach(&svids[1], with_port("i-1")).await.unwrap();
    let _leaves = control.attach(&svids[1], with_port("i-2")).await.unwrap();
    caller
        .until_endpoints(ORDERS, &["i-1:8080", "i-2:8080"])
        .await;
    let directory = control.stop().await;
    let control = Control::start_in(directory, Duration::from_secs(3600)).await;
    let started = Instant::now();
    let mut again = hello("web", "i-web");
    again.known = caller.known();
    let mut caller = control.attach(&svids[0], again).await.unwrap();
    let _stays = control.attach(&svids[1], with_port("i-1")).await.unwrap();
    let push = caller.push().await;
    assert_eq!(endpoint_ids(&push.resources[0]), ["i-1:8080"]);
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(1),
        "endpoints flapped after {took:?}"
    );
    assert!(
        took < Duration::from_secs(2),
        "a gone endpoint stayed for {took:?}"
    );
}

#[tokio::test]
async fn apply_waits_for_the_acknowledgement() {
    let control = Control::start().await;
    let revision = control.apply(SHOP).await;
    let mut proxy = control.proxy("web", "i-web").await;
    proxy.subscribe(&[(Route, ORDERS)]).await;
    proxy.until(Route, ORDERS, |_| true).await;
    assert_eq!(wait(&control, revision, 5000).await.waiting, []);
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: orders}]
  rules: [{backendRefs: [{name: orders, port: 80, weight: 9}, {name: stock, port: 80}]}]
";
    let revision = control.apply(route).await;
    let push = proxy.push().await;
    let lag = wait(&control, revision, 50).await;
    assert_eq!((lag.acknowledged, lag.waiting.len()), (0, 1));
    assert_eq!(lag.waiting[0].proxy, "shop/web");
    assert_eq!(lag.waiting[0].resource, "route shop/orders:80");
    let pushed = wire::Route::decode(push.resources[0].body.clone()).unwrap();
    assert_eq!(pushed.rules[0].backends.len(), 2);
    let waiting = wait(&control, revision, 5000);
    let acknowledging = proxy.acknowledge(&push, Vec::new());
    let (waited, ()) = tokio::join!(waiting, acknowledging);
    assert_eq!((waited.acknowledged, waited.waiting.len()), (1, 0));
}

#[tokio::test]
async fn a_rejected_resource_leaves_the_others_up_to_date() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let mut proxy = control.proxy("web", "i-web").await;
    proxy
        .subscribe(&[(Service, "shop/orders"), (Service, "shop/stock")])
        .await;
    let push = proxy.push().await;
    let find = |name: &str| {
        push.resources
            .iter()
            .find(|r| r.name == name)
            .unwrap()
            .clone()
    };
    let bad = find("shop/orders");
    let rejection = wire::Rejection {
        r#type: bad.r#type,
        name: bad.name.clone(),
        version: bad.version.clone(),
        field: "ports[0]".to_owned(),
        reason: "can't be".to_owned(),
        whole_wanted: false,
    };
    proxy.acknowledge(&push, vec![rejection]).await;
    let revision = control
        .apply(&SHOP.replace("port: 80, targetPort: web", "port: 81, targetPort: web"))
        .await;
    let push = proxy.push().await;
    assert_eq!(push.resources.len(), 1);
    assert_eq!(push.resources[0].name, "shop/stock");
    proxy.acknowledge(&push, Vec::new()).await;
    assert_eq!(wait(&control, revision, 5000).await.waiting, []);
    let seen = &proxies(&control).await[0];
    assert_eq!((seen.synced, seen.pending, seen.rejected.len()), (1, 0, 1));
    let rejected = &seen.rejected[0];
    assert_eq!(rejected.resource, "service shop/orders");
    assert_eq!(
        (rejected.field.as_str(), rejected.reason.as_str()),
        ("ports[0]", "can't be")
    );
    assert_eq!(rejected.version, bad.version);
    // A version that it can take clears it.
    let revision = control
        .apply(&SHOP.replace("port: 80, targetPort: 8080", "port: 82, targetPort: 8080"))
        .await;
    proxy
        .until(Service, "shop/orders", |found| found.version != bad.version)
        .await;
    wait(&control, revision, 5000).await;
    assert_eq!(proxies(&control).await[0].rejected, []);
}

/// Slices with ten thousand endpoints, of which one has another address.
fn ten_thousand_endpoints(other: &str) -> String {
    let mut text = "{apiVersion: v1, kind: Service, metadata: {name: many, namespace: shop}, \
        spec: {ports: [{port: 80}]}}\n"
        .to_owned();
    for slice in 0..10 {
        let addresses = (0..1000).map(|number| match (slice, number) {
            (4, 999) => other.to_owned(),
            _ => format!("10.{slice}.{}.{}", number / 250, number % 250),
        });
        let endpoints: Vec<String> = addresses
            .map(|ip| format!("{{addresses: [{ip}]}}"))
            .collect();
        text.push_str(&format!(
            "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, \
             metadata: {{name: many-{slice}, namespace: shop, labels: {{kubernetes.io/service-name: many}}}}, \
             addressType: IPv4, ports: [{{port: 8080}}], endpoints: [{}]}}\n",
            endpoints.join(", ")
        ));
    }
    text
}

#[tokio::test]
async fn one_of_ten_thousand_endpoints_is_pushed_alone() {
    let control = Control::start().await;
    control.apply(&ten_thousand_endpoints("192.0.2.1")).await;
    let svid = control.join("shop", "web").await;
    let mut hello = hello("web", "i-web");
    hello.takes_changes = true;
    let mut proxy = control.attach(&svid, hello.clone()).await.unwrap();
    let many = "shop/many:80";
    proxy.subscribe(&[(Cluster, many)]).await;
    let whole = proxy.until(Cluster, many, |_| true).await;
    assert_eq!(endpoint_ids(&whole).len(), 10_000);

    let revision = control.apply(&ten_thousand_endpoints("192.0.2.2")).await;
    let push = proxy.push().await;
    assert!(push.encoded_len() < 300, "{} bytes", push.encoded_len());
    let [resource] = &push.resources[..] else {
        panic!("{push:?}");
    };
    assert_eq!(
        (&resource.base_version, resource.body.len()),
        (&whole.version, 0)
    );
    let change = wire::ClusterChange::decode(resource.change.clone()).unwrap();
    assert_eq!(change.removed, ["192.0.2.1:8080"]);
    assert_eq!(change.upserted.len(), 1);
    assert_eq!(change.upserted[0].address, "192.0.2.2");

    // It can't apply that: it gets the whole, and until it has it nobody says that it is up to date.
    let rejection = wire::Rejection {
        r#type: resource.r#type,
        name: many.to_owned(),
        version: resource.version.clone(),
        field: "base_version".to_owned(),
        reason: "is not held".to_owned(),
        whole_wanted: true,
    };
    proxy.acknowledge(&push, vec![rejection]).await;
    let push = proxy.push().await;
    assert_eq!(
        (
            push.resources.len(),
            push.resources[0].base_version.as_str()
        ),
        (1, "")
    );
    assert_eq!(endpoint_ids(&push.resources[0]).len(), 10_000);
    assert_eq!(push.resources[0].version, resource.version);
    assert_eq!(wait(&control, revision, 1).await.waiting.len(), 1);
    assert_eq!(proxies(&control).await[0].rejected, []);
    proxy.acknowledge(&push, Vec::new()).await;
    assert_eq!(wait(&control, revision, 5000).await.waiting, []);

    // What it holds is the same after a restart of the control plane, and so is the next change's base.
    hello.known = proxy.known();
    let directory = control.stop().await;
    let control = Control::start_in(directory, Duration::from_secs(3600)).await;
    let mut proxy = control.attach(&svid, hello).await.unwrap();
    control.apply(&ten_thousand_endpoints("192.0.2.3")).await;
    let push = proxy.push().await;
    assert_eq!(push.resources[0].base_version, resource.version);
    assert!(push.encoded_len() < 300, "{} bytes", push.encoded_len());
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let mut caller = control.proxy("web", "i-web").await;
    caller.subscribe(&[(Cluster, ORDERS)]).await;
    let mut older = control.proxy("orders", "i-1").await;
    older.report(&[8080]).await;
    caller.until_endpoints(ORDERS, &["i-1:8080"]).await;
    let svid = control.join("shop", "orders").await;
    let mut newer = hello("orders", "i-1");
    newer.ports_up = vec![8080];
    let newer = control.attach(&svid, newer).await.unwrap();
    assert_eq!(older.receive().await.unwrap_err().code(), Code::Aborted);
    newer.report(&[8080, 8081]).await;
    // The end of the older connection did not withdraw the workload of the newer.
    let second = control.proxy("orders", "i-2").await;
    second.report(&[8080]).await;
    let push = caller.push().await;
    assert_eq!(endpoint_ids(&push.resources[0]), ["i-1:8080", "i-2:8080"]);
    let thief = control.join("shop", "web").await;
    let status = control
        .attach(&thief, hello("web", "i-1"))
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status
            .message()
            .contains("is a workload of spiffe://weft.local/ns/shop/sa/orders")
    );
}

#[tokio::test]
async fn a_proxy_that_does_not_read_delays_nobody() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let hung = control.proxy("hung", "i-hung").await;
    hung.subscribe(&[(Service, "shop/orders"), (Cluster, ORDERS)])
        .await;
    let mut caller = control.proxy("web", "i-web").await;
    caller.subscribe(&[(Service, "shop/orders")]).await;
    for port in 8000..8050 {
        let documents = SHOP.replace(
            "port: 80, targetPort: 8080",
            &format!("port: {port}, targetPort: 8080"),
        );
        control.apply(&documents).await;
        let is_new = |found: &wire::Resource| {
            let service = wire::Service::decode(found.body.clone()).unwrap();
            service.ports[0].port == port
        };
        caller.until(Service, "shop/orders", is_new).await;
    }
    let seen = proxies(&control).await;
    let pending: Vec<_> = seen
        .iter()
        .map(|proxy| (proxy.name.as_str(), proxy.pending))
        .collect();
    assert_eq!(pending[0], ("shop/hung", 2));
}

#[tokio::test]
async fn a_question_is_answered_by_the_live_proxy() {
    let control = Control::start().await;
    let mut proxy = control.proxy("web", "i-web").await;
    let mut admin = control.admin().await;
    let ask = |proxy: &str| wire::ProxyConfigRequest {
        proxy: proxy.to_owned(),
    };
    let answering = async |proxy: &mut Proxy| match proxy.receive().await.unwrap() {
        FromControl::Ask(question) => {
            let answer = wire::Answer {
                id: question.id,
                json: "{\"version\":1}".to_owned(),
                error: String::new(),
            };
            proxy.send(ToControl::Answer(answer)).await;
        }
        FromControl::Push(push) => panic!("{push:?}"),
    };
    let (answer, ()) = tokio::join!(admin.proxy_config(ask("shop/web")), answering(&mut proxy));
    assert_eq!(answer.unwrap().into_inner().json, "{\"version\":1}");
    let status = control
        .admin()
        .await
        .proxy_config(ask("shop/none"))
        .await
        .unwrap_err();
    assert!(status.message().contains("no proxy shop/none is connected"));
}

#[tokio::test]
async fn a_wrong_message_ends_the_stream_with_the_reason() {
    let control = Control::start().await;
    let mut proxy = control.proxy("web", "i-web").await;
    let wrong = wire::Acknowledge {
        nonce: 7,
        rejected: Vec::new(),
    };
    proxy.send(ToControl::Acknowledge(wrong)).await;
    let status = proxy.receive().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("names push 7"), "{status:?}");
}

#[tokio::test]
async fn an_external_name_is_resolved_and_reached_in_plaintext() {
    let control = Control::start().await;
    control
        .apply("{apiVersion: v1, kind: Service, metadata: {name: ext, namespace: shop}, spec: {type: ExternalName, externalName: localhost}}")
        .await;
    let mut proxy = control.proxy("web", "i-web").await;
    proxy.subscribe(&[(Cluster, "shop/ext:5432")]).await;
    let found = proxy.until(Cluster, "shop/ext:5432", |_| true).await;
    let cluster = wire::Cluster::decode(found.body).unwrap();
    let endpoint = cluster.endpoints.first().expect("an address of localhost");
    assert_eq!(
        (endpoint.address.as_str(), endpoint.port),
        ("127.0.0.1", 5432)
    );
    assert_eq!(endpoint.sidecar, None);
}

#[tokio::test]
async fn a_second_root_is_pushed() {
    let [control, next] = [Control::start().await, Control::start().await];
    let mut proxy = control.proxy("web", "i-web").await;
    proxy.subscribe(&[(TrustBundle, "weft.local")]).await;
    proxy.until(TrustBundle, "weft.local", |_| true).await;
    let root = next.directory.path().join("ca.pem");
    let extra = control.directory.path().join("extra-roots.pem");
    std::fs::copy(root, extra).unwrap();
    let roots = |found: &wire::Resource| {
        wire::TrustBundle::decode(found.body.clone())
            .unwrap()
            .roots
            .len()
    };
    proxy
        .until(TrustBundle, "weft.local", |found| roots(found) == 2)
        .await;
    // Who has a certificate of the next root is let in already.
    let stranger = next.join("shop", "orders").await;
    control
        .attach(&stranger, hello("orders", "i-1"))
        .await
        .unwrap();
}

/// Passes bytes on until it is told to swallow them.
async fn relay(
    to: std::net::SocketAddr,
) -> (std::net::SocketAddr, tokio::sync::watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (swallow, swallowing) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
            let mut swallowing = swallowing.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = swallowing.wait_for(|swallowing| *swallowing) => {}
                }
                // Both connections stay open, and nothing passes any more.
                std::future::pending::<()>().await;
            });
        }
    });
    (address, swallow)
}

#[tokio::test]
async fn a_proxy_that_the_network_swallows_is_withdrawn() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let mut caller = control.proxy("web", "i-web").await;
    caller.subscribe(&[(Cluster, ORDERS)]).await;
    let svid = control.join("shop", "orders").await;
    let (address, swallow) = relay(control.address).await;
    let mut behind = hello("orders", "i-1");
    behind.ports_up = vec![8080];
    let _behind = control
        .attach_through(address, &svid, behind)
        .await
        .unwrap();
    caller.until_endpoints(ORDERS, &["i-1:8080"]).await;
    let started = Instant::now();
    swallow.send_replace(true);
    caller.until_endpoints(ORDERS, &[]).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(8), "withdrawn after {took:?}");
}

/// Proxies that are connected, as many again that aren't concerned among them.
const MANY: usize = 1000;

/// A route changes, and everybody concerned acknowledges; who isn't receives nothing. The median is
/// printed and not judged: machines differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_change_reaches_a_thousand_proxies_and_nobody_else() {
    let control = Control::start().await;
    control.apply(SHOP).await;
    let svid = control.join("shop", "web").await;
    let (told, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for number in 0..MANY {
        let is_concerned = number % 2 == 0;
        let route = if is_concerned {
            ORDERS
        } else {
            "shop/stock:80"
        };
        let hello = hello("web", &format!("i-{number}"));
        let mut proxy = control.attach(&svid, hello).await.unwrap();
        let told = told.clone();
        tasks.push(tokio::spawn(async move {
            proxy.subscribe(&[(Route, route)]).await;
            let first = proxy.push().await;
            proxy.acknowledge(&first, Vec::new()).await;
            told.send(is_concerned).unwrap();
            // Who isn't concerned waits for as long as the test takes.
            while let Ok(Some(message)) = proxy.incoming.message().await {
                let Some(FromControl::Push(push)) = message.message else {
                    panic!("nobody asked anything");
                };
                proxy.acknowledge(&push, Vec::new()).await;
                told.send(is_concerned).unwrap();
            }
        }));
    }
    for _ in 0..MANY {
        acknowledged.recv().await.unwrap();
    }
    let mut took = Vec::new();
    for weight in 1..=10 {
        let document = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec:\n  parentRefs: [{{group: '', kind: Service, name: orders}}]\n  rules: [{{backendRefs: [{{name: orders, port: 80, weight: {weight}}}]}}]\n"
        );
        let began = Instant::now();
        let revision = control.apply(&document).await;
        let waited = wait(&control, revision, 20_000).await;
        took.push(began.elapsed());
        assert_eq!((waited.waiting.len(), waited.rejected.len()), (0, 0));
        assert_eq!(waited.acknowledged as usize, MANY / 2);
        for _ in 0..MANY / 2 {
            assert!(
                acknowledged.recv().await.unwrap(),
                "one that isn't concerned was pushed to"
            );
        }
    }
    // Whatever else was sent has arrived by now, because a push to each of them would be answered.
    assert!(
        acknowledged.try_recv().is_err(),
        "one that isn't concerned was pushed to"
    );
    took.sort();
    println!(
        "acknowledged by {} of {MANY} proxies: median {:?} of {took:?}",
        MANY / 2,
        took[5]
    );
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}
