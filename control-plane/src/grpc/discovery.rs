//! `Discovery`: the stream that a proxy opens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::spiffe::SpiffeId;
use weft_proto::v1alpha1 as wire;
use weft_proto::v1alpha1::discovery_server::Discovery;
use weft_proto::v1alpha1::proxy_message::Message;

use super::{Peer, Renewals, decode, encode};
use crate::subscription::{AttachRefused, Ended, Session, Subscriptions};

/// How long a proxy may take to say hello. One that takes longer is disconnected.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a proxy may leave what is sent to it unread. One that does so longer is disconnected.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages that wait to be written to one proxy. One push at most is in flight; the rest are
/// questions.
const OUTGOING_MAX: usize = 4;
/// How often it is looked whether a proxy's identity is still trusted.
const TRUST_TICK: Duration = Duration::from_secs(1);

/// Serves `Discovery`.
pub struct DiscoveryService {
    pub subscriptions: Subscriptions,
    pub renewals: Arc<Renewals>,
    /// Becomes true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

/// One stream.
struct Stream {
    session: Session,
    instance: Arc<str>,
    incoming: Streaming<wire::ProxyMessage>,
    outgoing: mpsc::Sender<Result<wire::ControlMessage, Status>>,
    spiffe_id: SpiffeId,
    certificate_not_after: SystemTime,
    renewals: Arc<Renewals>,
    stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Discovery for DiscoveryService {
    type AttachStream = ReceiverStream<Result<wire::ControlMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::ProxyMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let Peer::Authenticated {
            remote,
            spiffe_id,
            certificate_not_after,
        } = Peer::of(&request)?
        else {
            return Err(Status::unauthenticated(
                "discovery needs mTLS: get a certificate from Identity first",
            ));
        };
        let mut incoming = request.into_inner();
        let hello = receive_hello(&mut incoming).await?;
        let hello = decode::hello(hello, spiffe_id.clone(), certificate_not_after);
        let hello = hello.map_err(|invalid| match invalid.field {
            "namespace" | "service account" => Status::permission_denied(invalid.to_string()),
            _ => Status::invalid_argument(invalid.to_string()),
        })?;
        let (instance, name) = (hello.workload.instance.clone(), hello.workload.name.clone());
        let session = self.subscriptions.attach(hello).map_err(|refused| {
            tracing::warn!(%remote, %spiffe_id, reason = %refused, "refused a proxy");
            match refused {
                AttachRefused::TooManyProxies | AttachRefused::Subscribe(_) => {
                    Status::resource_exhausted(refused.to_string())
                }
                AttachRefused::InstanceTaken { .. } => {
                    Status::permission_denied(refused.to_string())
                }
                AttachRefused::Workload(_) => Status::invalid_argument(refused.to_string()),
            }
        })?;
        tracing::info!(%remote, %spiffe_id, workload = %name, %instance, "proxy connected");
        let (outgoing, receiver) = mpsc::channel(OUTGOING_MAX);
        let stream = Stream {
            session,
            instance,
            incoming,
            outgoing,
            spiffe_id,
            certificate_not_after,
            renewals: self.renewals.clone(),
            stopping: self.stopping.clone(),
        };
        tokio::spawn(stream.run());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn receive_hello(
    incoming: &mut Streaming<wire::ProxyMessage>,
) -> Result<wire::Hello, Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
    let first = first
        .map_err(|_| Status::deadline_exceeded(format!("no hello within {HELLO_TIMEOUT:?}")))??;
    match first.and_then(|first| first.message) {
        Some(Message::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument(
            "the first message must be a hello",
        )),
    }
}

impl Stream {
    fn asker(&self) -> decode::Asker {
        decode::Asker {
            instance: self.instance.clone(),
            namespace: self.spiffe_id.namespace().into(),
        }
    }

    async fn run(mut self) {
        let ended = self.serve().await;
        let reason = ended
            .as_ref()
            .err()
            .map_or("the proxy left", Status::message);
        tracing::info!(spiffe_id = %self.spiffe_id, instance = %self.instance, reason, "proxy disconnected");
        if let Err(status) = ended {
            // The proxy may be gone, and then there is nobody to tell.
            let _ = self.outgoing.try_send(Err(status));
        }
    }

    async fn serve(&mut self) -> Result<(), Status> {
        let mut trust = tokio::time::interval(TRUST_TICK);
        let mut stopping = self.stopping.clone();
        let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                outgoing = self.session.next() => {
                    let message = encode::control_message(outgoing?);
                    self.send(message).await?;
                }
                message = self.incoming.message() => match message? {
                    Some(message) => self.receive(message)?,
                    None => return Ok(()),
                },
                () = self.outgoing.closed() => return Ok(()),
                () = &mut stopped => {
                    return Err(Status::unavailable("the control plane stops"));
                }
                _ = trust.tick() => self.check_trust()?,
            }
        }
    }

    async fn send(&self, message: wire::ControlMessage) -> Result<(), Status> {
        match tokio::time::timeout(SEND_TIMEOUT, self.outgoing.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the proxy closed its stream")),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the proxy read nothing for {SEND_TIMEOUT:?}"
            ))),
        }
    }

    fn receive(&self, message: wire::ProxyMessage) -> Result<(), Status> {
        let Some(message) = message.message else {
            // A message of a later version of the protocol.
            return Ok(());
        };
        match message {
            Message::Hello(_) => Err(Status::invalid_argument("a second hello")),
            Message::Subscribe(subscribe) => {
                let add = decode::names(&subscribe.add, &self.asker());
                let remove = decode::names(&subscribe.remove, &self.asker());
                Ok(self.session.subscribe(add, &remove)?)
            }
            Message::Acknowledge(acknowledge) => {
                let rejected = decode::rejections(acknowledge.rejected, &self.asker());
                let (unfit, refused): (Vec<_>, Vec<_>) = rejected
                    .iter()
                    .partition(|rejection| rejection.whole_wanted);
                for rejection in unfit {
                    tracing::info!(
                        spiffe_id = %self.spiffe_id, instance = %self.instance,
                        resource = %rejection.name, field = rejection.field,
                        reason = rejection.reason, "a proxy wants the whole of a resource"
                    );
                }
                for rejection in refused {
                    tracing::warn!(
                        spiffe_id = %self.spiffe_id, instance = %self.instance,
                        resource = %rejection.name, field = rejection.field,
                        reason = rejection.reason, "a proxy rejected a resource"
                    );
                }
                Ok(self.session.acknowledge(acknowledge.nonce, rejected)?)
            }
            Message::Ports(report) => {
                let up = decode::ports(&report.up)
                    .map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
                Ok(self.session.report_ports(up)?)
            }
            Message::Answer(answer) => {
                let json = answer.json;
                let result = if answer.error.is_empty() {
                    Ok(json)
                } else {
                    Err(answer.error)
                };
                self.session.answer(answer.id, result);
                Ok(())
            }
            Message::Goodbye(_) => {
                self.session.goodbye();
                Ok(())
            }
        }
    }

    fn check_trust(&self) -> Result<(), Status> {
        let until = self
            .renewals
            .trusted_until(&self.spiffe_id, self.certificate_not_after);
        if SystemTime::now() < until {
            return Ok(());
        }
        Err(Status::unauthenticated(format!(
            "the certificate of {} expired and was not renewed",
            self.spiffe_id
        )))
    }
}

impl From<Ended> for Status {
    fn from(ended: Ended) -> Self {
        let message = ended.to_string();
        match ended {
            Ended::Replaced => Status::aborted(message),
            Ended::Silent { .. } => Status::deadline_exceeded(message),
            Ended::WrongNonce { .. } | Ended::TooManyPorts(_) => Status::invalid_argument(message),
            Ended::Subscribe(_) => Status::resource_exhausted(message),
        }
    }
}
