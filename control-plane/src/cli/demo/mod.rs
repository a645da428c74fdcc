//! `weft demo`: the whole mesh on one machine, as real processes without root. This file is the
//! story; each chapter fails when what it shows is not so.

mod collector;
mod mesh;
mod process;
mod screen;
mod trace;
mod traffic;

use std::cell::{Cell, RefCell};
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use self::collector::Collector;
use self::mesh::{Mesh, NAMESPACE, ROLES};
use self::screen::Screen;
use self::trace::Span;
use self::traffic::{Customers, Tally, TraceContext};
use super::{Failure, Outcome, output};

const SHOP: &str = include_str!("../../../../deploy/demo/shop.yaml");
const CANARY: &str = include_str!("../../../../deploy/demo/canary.yaml");

/// Requests before the canary, and after an instance has gone.
const REQUESTS_BEFORE: u32 = 300;

/// Requests over the canary. Chance alone moves the split of 2,000 by 3 points less than once in
/// 100,000 runs.
const REQUESTS_AFTER: u32 = 2000;

/// How far the split that is seen may be from the one that was asked for.
const SPLIT_TOLERANCE: f64 = 0.03;

/// The instance that goes away, and how many requests it answers under load before.
const STOPPED: &str = "orders-v1-b";
const BUSY_REQUESTS: u32 = 100;

/// How long the load goes on after the instance is gone.
const LOAD_AFTER_STOP: Duration = Duration::from_secs(2);

/// Spans of the traced request: two sides of web → orders and of orders → pricing.
const SPANS: usize = 4;

#[derive(Args)]
pub(super) struct Arguments {
    /// Leave everything running, and print what to try [default: off]
    #[arg(long, env = "WEFT_KEEP")]
    keep: bool,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut stop = Box::pin(async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    });
    let screen = Screen::new();
    let mut mesh = Mesh::new()?;
    let outcome = tokio::select! {
        outcome = Box::pin(tell(screen, &mut mesh)) => outcome,
        () = &mut stop => {
            mesh.stop().await?;
            return Err(Failure::failed("interrupted"));
        }
    };
    let collector = match outcome {
        Ok(collector) => collector,
        Err(failure) => {
            let tails = mesh.tails();
            output::complain(&format!("\nThe last lines of every process:\n{tails}"));
            // What went wrong first is what is told.
            let _ = mesh.stop().await;
            return Err(failure);
        }
    };
    if arguments.keep {
        invite(screen, &mesh)?;
        stop.await;
    }
    let stopped = mesh.stop().await;
    drop(collector);
    stopped
}

/// The story, chapter by chapter. Gives the collector, for it to go on with the sidecars.
async fn tell(screen: Screen, mesh: &mut Mesh) -> Outcome<Option<Collector>> {
    let started = Instant::now();
    let collector = start(screen, mesh).await?;
    discover(screen, mesh).await?;
    let customers = customers(mesh)?;
    call(screen, mesh, &customers).await?;
    let split = canary(screen, mesh, &customers).await?;
    let stopped = stop_one(screen, mesh, &customers).await?;
    let traced = trace_one(screen, mesh, &customers, collector.as_ref()).await?;
    let ends = identities(screen, mesh, &traced).await?;
    screen.chapter(&format!(
        "Summary, after {:.1}s",
        started.elapsed().as_secs_f64()
    ))?;
    screen.good(&format!("split seen: {split}"))?;
    screen.good(&format!("one instance stopped under load: {stopped}"))?;
    screen.good(&format!("trace {}", traced.trace_id))?;
    screen.good(&format!("mutual TLS: {ends}"))?;
    Ok(collector)
}

/// Starts every process; gives the collector, unless the user has one already.
async fn start(screen: Screen, mesh: &mut Mesh) -> Outcome<Option<Collector>> {
    screen.chapter("A control plane, and five workloads with a sidecar each, as your own user")?;
    mesh.start_control_plane().await?;
    screen.say(&format!(
        "weft serve, data in {}",
        mesh.data_dir().display()
    ))?;
    write(mesh, "shop.yaml", SHOP)?;
    run_verb(screen, mesh, &["apply", "-f", "shop.yaml"]).await?;
    let own =
        std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").is_ok_and(|endpoint| !endpoint.is_empty());
    let collector = if own {
        None
    } else {
        Some(Collector::start(mesh.collector_address()).await?)
    };
    let endpoint = collector
        .as_ref()
        .map(|_| format!("http://{}", mesh.collector_address()));
    for (index, role) in ROLES.into_iter().enumerate() {
        mesh.start_workload(index, role, endpoint.clone()).await?;
        let workload = mesh.workload(role.name)?;
        let (address, application) = (workload.outbound_address(), workload.application_address());
        screen.say(&format!(
            "{:<12} application {application}, its sidecar {address}",
            role.name
        ))?;
    }
    Ok(collector)
}

/// Shows that the control plane knows everybody, and everybody what they need.
async fn discover(screen: Screen, mesh: &mut Mesh) -> Outcome {
    screen.chapter("Discovery: sidecars joined with a token each, and are in sync")?;
    mesh.wait_until_synced().await?;
    run_verb(screen, mesh, &["get", "workloads", "-n", NAMESPACE]).await?;
    run_verb(screen, mesh, &["get", "services", "-n", NAMESPACE]).await
}

fn customers(mesh: &Mesh) -> Outcome<Customers> {
    Ok(Customers::new(mesh.workload("web")?.application_address()))
}

/// Plain traffic, spread over every instance of orders.
async fn call(screen: Screen, mesh: &mut Mesh, customers: &Customers) -> Outcome {
    screen.chapter("Traffic: customers → web → orders (HTTP) → pricing (gRPC)")?;
    let started = Instant::now();
    while let Err(reason) = customers.one(&TraceContext::sampled()).await {
        mesh.check_alive()?;
        mesh.pause(started, &format!("the shop answers ({reason})"))
            .await?;
    }
    let tally = customers.request(REQUESTS_BEFORE).await;
    show(screen, &tally)?;
    none_failed(&tally)?;
    if tally.by_instance.len() != 3 {
        return Err(Failure::failed("not every instance of orders was called"));
    }
    screen.good("every instance of orders took its part")
}

/// Sends a tenth of the requests to version 2, by a document, and counts.
async fn canary(screen: Screen, mesh: &Mesh, customers: &Customers) -> Outcome<String> {
    screen.chapter("A canary: one request in ten goes to orders v2")?;
    write(mesh, "canary.yaml", CANARY)?;
    for line in CANARY.lines().skip_while(|line| !line.starts_with("spec:")) {
        screen.say(&format!("  {line}"))?;
    }
    run_verb(screen, mesh, &["apply", "--wait", "-f", "canary.yaml"]).await?;
    run_verb(screen, mesh, &["get", "httproutes", "-n", NAMESPACE]).await?;
    let tally = customers.request(REQUESTS_AFTER).await;
    show(screen, &tally)?;
    none_failed(&tally)?;
    let (first, second) = (tally.share("orders-v1"), tally.share("orders-v2"));
    let split = format!(
        "{:.1} % / {:.1} % of {} requests, asked for 90/10",
        first * 100.0,
        second * 100.0,
        tally.requests
    );
    if (second - 0.1).abs() > SPLIT_TOLERANCE {
        return Err(Failure::Failed(format!("the split is {split}")));
    }
    screen.good(&split)?;
    Ok(split)
}

/// Stops an instance as an orchestrator does, its sidecar first, while customers go on.
async fn stop_one(screen: Screen, mesh: &mut Mesh, customers: &Customers) -> Outcome<String> {
    screen.chapter("An instance of orders goes away under load")?;
    let seen = Rc::default();
    let going_on = Rc::new(Cell::new(true));
    let more = going_on.clone();
    let load = customers.request_while(move || more.get(), &seen);
    let stopping = async {
        let outcome = stop_under_load(screen, mesh, &seen).await;
        going_on.set(false);
        outcome
    };
    let (tally, outcome) = tokio::join!(load, stopping);
    outcome?;
    show(screen, &tally)?;
    none_failed(&tally)?;
    let after = customers.request(REQUESTS_BEFORE).await;
    none_failed(&after)?;
    if after.by_instance.contains_key(STOPPED) {
        return Err(Failure::failed("the instance that is gone still answers"));
    }
    let said = format!("0 failed of {} requests", tally.requests);
    screen.good(&said)?;
    Ok(said)
}

/// Waits until the instance is busy, stops it, and lets the load go on.
async fn stop_under_load(screen: Screen, mesh: &mut Mesh, seen: &RefCell<Tally>) -> Outcome {
    let started = Instant::now();
    while seen
        .borrow()
        .by_instance
        .get(STOPPED)
        .is_none_or(|count| *count < BUSY_REQUESTS)
    {
        mesh.pause(
            started,
            &format!("{STOPPED} has answered {BUSY_REQUESTS} requests"),
        )
        .await?;
    }
    let workload = mesh.workload_mut(STOPPED)?;
    let stopped = [
        (&mut workload.sidecar, "its sidecar drains and ends"),
        (&mut workload.application, "then the application does"),
    ];
    for (process, what) in stopped {
        let pid = process.pid().map(|pid| pid.to_string()).unwrap_or_default();
        process.stop().await?;
        screen.command(&format!("kill -TERM {pid}"), &format!("{STOPPED}: {what}"))?;
    }
    mesh.forget(STOPPED);
    tokio::time::sleep(LOAD_AFTER_STOP).await;
    Ok(())
}

/// A request that was followed.
struct Traced {
    trace_id: String,
    spans: Vec<Span>,
}

/// Follows one request through every sidecar.
async fn trace_one(
    screen: Screen,
    mesh: &mut Mesh,
    customers: &Customers,
    collector: Option<&Collector>,
) -> Outcome<Traced> {
    screen.chapter("One request, as its trace tells it")?;
    let traceparent = TraceContext::sampled();
    let trace_id = traceparent.trace_id.clone();
    if let Some(collector) = collector {
        collector.look_up(&trace_id);
    }
    let instance = customers.one(&traceparent).await.map_err(Failure::Failed)?;
    screen.say(&format!("trace {trace_id}, answered by {instance}"))?;
    let Some(collector) = collector else {
        screen.say("its spans went to OTEL_EXPORTER_OTLP_ENDPOINT; look it up there")?;
        return Ok(Traced {
            trace_id,
            spans: Vec::new(),
        });
    };
    let started = Instant::now();
    while collector.spans().len() < SPANS {
        mesh.check_alive()?;
        let condition = format!("{SPANS} spans of trace {trace_id} are at the collector");
        mesh.pause(started, &condition).await?;
    }
    let spans = collector.spans();
    screen.say(&trace::draw(&spans))?;
    screen.good("both sides of both hops are in it")?;
    Ok(Traced { trace_id, spans })
}

/// Shows who called whom: as both sidecars authenticated each other, where the trace is at hand.
async fn identities(screen: Screen, mesh: &Mesh, traced: &Traced) -> Outcome<String> {
    screen.chapter("Identities: TLS 1.3 with both certificates between sidecars")?;
    let proxies = mesh.weft(&["proxies"]).await?;
    screen.command("weft proxies", &proxies)?;
    let hops = trace::hops(&traced.spans);
    for hop in &hops {
        screen.say(&hop.to_string())?;
    }
    if let Some(hop) = hops.first() {
        screen.good("each end checked the other's X509-SVID before the first byte of a request")?;
        return Ok(format!("{} → {}", hop.caller, hop.called));
    }
    if !traced.spans.is_empty() {
        return Err(Failure::failed("no span names the identities of both ends"));
    }
    let proxies = mesh.weft(&["proxies", "-o", "json"]).await?;
    let proxies: Vec<Value> = serde_json::from_str(&proxies).map_err(Failure::failed)?;
    let identity = |name: &str| {
        let named = |proxy: &&Value| proxy["name"] == format!("{NAMESPACE}/{name}");
        let found = proxies
            .iter()
            .find(named)
            .and_then(|proxy| proxy["spiffeId"].as_str());
        found
            .map(str::to_owned)
            .ok_or_else(|| Failure::failed(format!("{name} is not connected")))
    };
    Ok(format!("{} → {}", identity("web")?, identity("orders-v2")?))
}

/// What there is to try while everything is left running.
fn invite(screen: Screen, mesh: &Mesh) -> Outcome {
    let web = mesh.workload("web")?;
    let sidecar = web.outbound_address();
    screen.chapter("Everything goes on running; Ctrl-C ends it. In another terminal:")?;
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let directory = program.parent().unwrap_or(&program);
    let weft = |verb: &str| format!("weft {verb} -n {NAMESPACE}");
    let commands = [
        (
            format!("export WEFT_DATA_DIR={}", mesh.data_dir().display()),
            "",
        ),
        (format!("export PATH=\"{}:$PATH\"", directory.display()), ""),
        ("weft proxies".to_owned(), "who is connected"),
        (
            format!("weft config {NAMESPACE}/web"),
            "what web's sidecar has in force",
        ),
        (
            weft("describe httproute orders-canary"),
            "the canary and its conditions",
        ),
        (
            weft("delete httproute orders-canary"),
            "every instance again",
        ),
        (
            format!("curl http://{}/", web.application_address()),
            "the shop",
        ),
        (
            format!("http_proxy=http://{sidecar} curl http://orders/orders/1"),
            "call as web does",
        ),
        (
            format!("curl http://{}/metrics", web.admin_address()),
            "what web's sidecar counts",
        ),
    ];
    for (command, what) in commands {
        let what = if what.is_empty() {
            String::new()
        } else {
            format!("  # {what}")
        };
        screen.say(&format!("{command:<64}{what}"))?;
    }
    Ok(())
}

/// Runs a verb as a user would, and shows both.
async fn run_verb(screen: Screen, mesh: &Mesh, arguments: &[&str]) -> Outcome {
    let printed = mesh.weft(arguments).await?;
    screen.command(&format!("weft {}", arguments.join(" ")), &printed)
}

fn write(mesh: &Mesh, name: &str, text: &str) -> Outcome {
    let path = mesh.directory().join(name);
    fs::write(&path, text).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

fn show(screen: Screen, tally: &Tally) -> Outcome {
    for (instance, count) in &tally.by_instance {
        let share = tally.share(instance);
        let (percent, bar) = (share * 100.0, screen.bar(share, 40));
        screen.say(&format!(
            "{instance:<12} {count:>6}  {percent:>5.1}%  {bar}"
        ))?;
    }
    let rate = f64::from(tally.requests) / tally.elapsed.as_secs_f64().max(0.001);
    screen.say(&format!(
        "{} requests, {} failed, {rate:.0} a second",
        tally.requests, tally.failed
    ))
}

fn none_failed(tally: &Tally) -> Outcome {
    if tally.failed == 0 {
        return Ok(());
    }
    let (failed, requests) = (tally.failed, tally.requests);
    let reasons = tally.failures.join("\n  ");
    Err(Failure::Failed(format!(
        "{failed} failed of {requests} requests:\n  {reasons}"
    )))
}
