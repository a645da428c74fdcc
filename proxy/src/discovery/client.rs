//! The stream to the control plane: hello, subscriptions, pushes and their acknowledgements.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft_proto::v1alpha1::discovery_client::DiscoveryClient;
use weft_proto::v1alpha1::{self as wire, control_message, proxy_message};

use super::handle::Farewell;
use super::publish::Change;
use super::{Handle, names};
use crate::bootstrap::Settings;
use crate::identity::{GRPC_BYTES_MAX, Identity, connect};

/// The wait before each connection but the first is drawn from here, so that the proxies of a mesh
/// don't all come at once.
const RECONNECT_WAIT: std::ops::Range<f64> = 0.1..1.0;
/// How long the control plane may take to accept the hello.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the control plane may leave unread what is sent to it. A stream on which it takes longer
/// is given up for a new one.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait to be written.
const OUTGOING_MAX: usize = 16;
/// Names in one Subscribe, which keeps it far below the size of a gRPC message.
const NAMES_MAX: usize = 1000;
/// Distinct failures remembered so that each is logged once; then they are logged anew.
const LOGGED_MAX: usize = 64;

/// Stays attached for as long as it runs.
pub(super) async fn run(handle: &Handle, identity: &Identity, settings: &Settings) {
    let mut logged = HashSet::new();
    loop {
        wait_for_identity(identity).await;
        let ended = attach(handle, identity, settings, &mut logged).await;
        handle.set_connected(false);
        handle.set_farewell(Farewell::Leaving);
        let reason = ended.unwrap_or_else(|reason| reason);
        if logged.len() >= LOGGED_MAX {
            logged.clear();
        }
        if logged.insert(reason.clone()) {
            tracing::warn!(
                reason,
                "not connected to the control plane; going on with what is known"
            );
        }
        handle.set_error(Some(reason));
        let wait = rand::rng().random_range(RECONNECT_WAIT);
        tokio::time::sleep(Duration::from_secs_f64(wait)).await;
    }
}

async fn wait_for_identity(identity: &Identity) {
    let mut changed = identity.changed();
    while !identity.ready() {
        // The identity outlives this wait, so it cannot fail.
        let _ = changed.changed().await;
    }
}

/// One stream from its hello to its end. Both results are the reason why it ended.
async fn attach(
    handle: &Handle,
    identity: &Identity,
    settings: &Settings,
    logged: &mut HashSet<String>,
) -> Result<String, String> {
    let channel = connect(identity, &settings.control_plane).await?;
    let mut client = DiscoveryClient::new(channel).max_decoding_message_size(GRPC_BYTES_MAX);
    let (outgoing, receiver) = mpsc::channel(OUTGOING_MAX);
    let (known, asked) = handle.begin();
    let mut ports = handle.ports().up();
    let ports_up = ports
        .borrow_and_update()
        .iter()
        .copied()
        .map(u32::from)
        .collect();
    let stream = Outgoing { outgoing };
    let hello = hello(identity, settings, known, ports_up);
    stream.send(proxy_message::Message::Hello(hello)).await?;
    let attached = timeout(ATTACH_TIMEOUT, client.attach(ReceiverStream::new(receiver))).await;
    let incoming = attached
        .map_err(|_| "the control plane gave no answer to the hello in time".to_owned())?
        .map_err(|status| describe(&status))?
        .into_inner();
    stream.subscribe(asked).await?;
    handle.set_connected(true);
    handle.set_error(None);
    logged.clear();
    tracing::info!(
        control_plane = settings.control_plane,
        "connected to the control plane"
    );
    serve(handle, identity, &stream, incoming, ports).await
}

async fn serve(
    handle: &Handle,
    identity: &Identity,
    stream: &Outgoing,
    mut incoming: Streaming<wire::ControlMessage>,
    mut ports: watch::Receiver<BTreeSet<u16>>,
) -> Result<String, String> {
    let mut farewell = handle.farewell();
    farewell.mark_changed();
    loop {
        tokio::select! {
            message = incoming.message() => match message {
                Ok(Some(message)) => receive(handle, identity, stream, message).await?,
                Ok(None) => return Ok("the control plane closed the stream".to_owned()),
                Err(status) => return Err(describe(&status)),
            },
            changes = handle.next_changes() => stream.subscribe(changes).await?,
            // The senders live in the handle, so neither wait can fail.
            _ = ports.changed() => {
                let up = ports.borrow_and_update().iter().copied().map(u32::from).collect();
                stream.send(proxy_message::Message::Ports(wire::PortReport { up })).await?;
            }
            _ = farewell.changed() => {
                if *farewell.borrow_and_update() == Farewell::Leaving {
                    stream.send(proxy_message::Message::Goodbye(wire::Goodbye {})).await?;
                    handle.set_farewell(Farewell::Said);
                }
            }
        }
    }
}

async fn receive(
    handle: &Handle,
    identity: &Identity,
    stream: &Outgoing,
    message: wire::ControlMessage,
) -> Result<(), String> {
    match message.message {
        Some(control_message::Message::Push(push)) => {
            let nonce = push.nonce;
            let rejected = take(handle, identity, push);
            let acknowledge = wire::Acknowledge { nonce, rejected };
            stream
                .send(proxy_message::Message::Acknowledge(acknowledge))
                .await
        }
        Some(control_message::Message::Ask(ask)) => {
            let (json, error) = match ask.question {
                Some(wire::ask::Question::Config(_)) => (handle.dump(), String::new()),
                Some(wire::ask::Question::Explain(question)) => {
                    stream.answer_later(handle.clone(), ask.id, question);
                    return Ok(());
                }
                None => (
                    String::new(),
                    "this proxy doesn't know the question".to_owned(),
                ),
            };
            let answer = wire::Answer {
                id: ask.id,
                json,
                error,
            };
            stream.send(proxy_message::Message::Answer(answer)).await
        }
        // A message of a later version of the protocol.
        None => Ok(()),
    }
}

fn take(handle: &Handle, identity: &Identity, push: wire::Push) -> Vec<wire::Rejection> {
    let versions: Vec<(i32, String, String)> = push
        .resources
        .iter()
        .filter(|resource| resource.r#type == i32::from(wire::ResourceType::TrustBundle))
        .map(|resource| {
            (
                resource.r#type,
                resource.name.clone(),
                resource.version.clone(),
            )
        })
        .collect();
    let applied = handle.apply(push);
    let mut rejected = applied.rejected;
    let refused = applied
        .trust_bundle
        .and_then(|bundle| identity.update_bundle(bundle).err());
    if let (Some(error), Some((kind, name, version))) = (refused, versions.into_iter().next()) {
        let (field, reason) = ("roots".to_owned(), error.to_string());
        rejected.push(wire::Rejection {
            r#type: kind,
            name,
            version,
            field,
            reason,
            whole_wanted: false,
        });
    }
    for rejection in &rejected {
        if rejection.whole_wanted {
            tracing::info!(
                resource = rejection.name,
                version = rejection.version,
                field = rejection.field,
                reason = rejection.reason,
                "cannot take a change of a resource; asking for the whole"
            );
            continue;
        }
        tracing::warn!(
            resource = rejection.name,
            version = rejection.version,
            field = rejection.field,
            reason = rejection.reason,
            "rejected a resource; what was known of it stays in force"
        );
    }
    rejected
}

fn hello(
    identity: &Identity,
    settings: &Settings,
    known: Vec<wire::ResourceVersion>,
    ports_up: Vec<u32>,
) -> wire::Hello {
    let named_ports = settings
        .ports
        .iter()
        .map(|(name, port)| (name.clone(), u32::from(*port)));
    wire::Hello {
        workload: settings.workload.clone(),
        namespace: settings.namespace.clone(),
        service_account: settings.service_account.clone(),
        instance: identity.instance().to_string(),
        labels: settings.labels.clone().into_iter().collect(),
        address: settings.address.to_string(),
        inbound_port: settings.inbound_port.into(),
        named_ports: named_ports.collect(),
        zone: settings.zone.clone(),
        proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
        known,
        ports_up,
        takes_changes: true,
    }
}

fn describe(status: &tonic::Status) -> String {
    format!(
        "the control plane ended the stream: {} ({:?})",
        status.message(),
        status.code()
    )
}

/// The way to the control plane.
#[derive(Clone)]
struct Outgoing {
    outgoing: mpsc::Sender<wire::ProxyMessage>,
}

impl Outgoing {
    async fn send(&self, message: proxy_message::Message) -> Result<(), String> {
        let message = wire::ProxyMessage {
            message: Some(message),
        };
        match timeout(SEND_TIMEOUT, self.outgoing.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the control plane closed the stream".to_owned()),
            Err(_) => Err("the control plane does not read what is sent to it".to_owned()),
        }
    }

    /// Has a question answered that takes time, in which pushes go on.
    fn answer_later(&self, handle: Handle, id: u64, question: wire::ExplainQuestion) {
        let stream = self.clone();
        tokio::task::spawn_local(async move {
            let (json, error) = match handle.explain(question).await {
                Ok(json) => (json, String::new()),
                Err(error) => (String::new(), error),
            };
            let answer = wire::Answer { id, json, error };
            // A stream that is gone has taken the question with it.
            let _ = stream.send(proxy_message::Message::Answer(answer)).await;
        });
    }

    /// One message for each run of changes of one kind, which keeps their order.
    async fn subscribe(&self, changes: Vec<Change>) -> Result<(), String> {
        let same_kind = |a: &Change, b: &Change| {
            matches!(
                (a, b),
                (Change::Add(_), Change::Add(_)) | (Change::Remove(_), Change::Remove(_))
            )
        };
        for run in changes
            .chunk_by(same_kind)
            .flat_map(|run| run.chunks(NAMES_MAX))
        {
            let mut subscribe = wire::Subscribe::default();
            for change in run {
                match change {
                    Change::Add(name) => subscribe.add.push(names::to_wire(name)),
                    Change::Remove(name) => subscribe.remove.push(names::to_wire(name)),
                }
            }
            self.send(proxy_message::Message::Subscribe(subscribe))
                .await?;
        }
        Ok(())
    }
}
