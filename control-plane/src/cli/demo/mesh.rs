//! The processes of the demo: control plane, sidecars and the shop's applications, each workload on
//! a loopback address of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::process::Process;
use crate::cli::{Failure, Outcome};

// Ports that a workload's sidecar takes on the workload's address.
const OUTBOUND: u16 = 4140;
const INBOUND: u16 = 4143;
const ADMIN: u16 = 4191;
// Ports of the control plane and of the collector.
const CONTROL_PLANE: u16 = 4180;
const CONTROL_PLANE_ADMIN: u16 = 4181;
const COLLECTOR: u16 = 4317;

/// Networks of loopback addresses that are tried before it is said that none is free.
const NETWORKS_TRIED_MAX: u32 = 50;

/// A condition that does not hold by then has failed.
const CONDITION_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const CONDITION_INTERVAL: Duration = Duration::from_millis(50);

pub(super) const NAMESPACE: &str = "shop";

/// What runs in the shop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    pub name: &'static str,
    /// The hidden subcommand's name for it, and its service account.
    pub app: &'static str,
    pub version: &'static str,
    /// The name of its port, and the port: one each, because all run on one machine.
    port: (&'static str, u16),
}

pub(super) const ROLES: [Role; 5] = [
    Role {
        name: "web",
        app: "web",
        version: "v1",
        port: ("http", 9001),
    },
    Role {
        name: "orders-v1-a",
        app: "orders",
        version: "v1",
        port: ("http", 9002),
    },
    Role {
        name: "orders-v1-b",
        app: "orders",
        version: "v1",
        port: ("http", 9003),
    },
    Role {
        name: "orders-v2",
        app: "orders",
        version: "v2",
        port: ("http", 9004),
    },
    Role {
        name: "pricing",
        app: "pricing",
        version: "v1",
        port: ("grpc", 9005),
    },
];

/// An application and its sidecar.
pub(super) struct Workload {
    pub role: Role,
    pub address: IpAddr,
    pub sidecar: Process,
    pub application: Process,
}

impl Workload {
    pub fn application_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.role.port.1)
    }

    pub fn outbound_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, OUTBOUND)
    }

    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, ADMIN)
    }
}

/// Everything that runs.
pub(super) struct Mesh {
    // Stopped in this order: applications and sidecars, then the control plane, then the directory.
    workloads: Vec<Workload>,
    control_plane: Option<Process>,
    network: Network,
    weft: PathBuf,
    proxy: PathBuf,
    directory: TempDir,
}

/// 127.A.B.0/24
#[derive(Clone, Copy, Debug)]
struct Network(u8, u8);

impl Network {
    fn host(self, host: u8) -> IpAddr {
        Ipv4Addr::new(127, self.0, self.1, host).into()
    }

    /// One in which every port that the demo takes is free.
    fn free() -> Outcome<Self> {
        let free = |address| TcpListener::bind(address).is_ok();
        for _ in 0..NETWORKS_TRIED_MAX {
            let network = Self(rand::random_range(1..=254), rand::random_range(0..=254));
            let ports = [CONTROL_PLANE, CONTROL_PLANE_ADMIN, COLLECTOR];
            let own = ports.map(|port| SocketAddr::new(network.host(1), port));
            let workloads = ROLES.iter().enumerate().flat_map(|(index, role)| {
                let ports = [OUTBOUND, INBOUND, ADMIN, role.port.1];
                ports.map(|port| SocketAddr::new(network.workload(index), port))
            });
            if own.into_iter().chain(workloads).all(free) {
                return Ok(network);
            }
        }
        Err(Failure::failed(
            "no network of loopback addresses is free: is something listening on 0.0.0.0 with ports 4140 to 4191 or 9001 to 9005?",
        ))
    }

    fn workload(self, index: usize) -> IpAddr {
        self.host(11 + u8::try_from(index).unwrap_or_default())
    }
}

impl Mesh {
    pub fn new() -> Outcome<Self> {
        let weft = std::env::current_exe().map_err(Failure::failed)?;
        let proxy = weft.with_file_name("weft-proxy");
        if !proxy.is_file() {
            let place = proxy.display();
            return Err(Failure::Failed(format!(
                "{place} is missing: build it with `cargo build --release -p weft-proxy`, or put it beside weft"
            )));
        }
        Ok(Self {
            workloads: Vec::new(),
            control_plane: None,
            network: Network::free()?,
            weft,
            proxy,
            directory: TempDir::with_prefix("weft-demo-").map_err(Failure::failed)?,
        })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory().join("control-plane")
    }

    pub fn collector_address(&self) -> SocketAddr {
        SocketAddr::new(self.network.host(1), COLLECTOR)
    }

    /// A command without the user's own settings for weft, which are for another mesh.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEFT_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.directory()).kill_on_drop(true);
        command
    }

    pub async fn start_control_plane(&mut self) -> Outcome {
        let mut command = self.command(&self.weft);
        let address = |port| SocketAddr::new(self.network.host(1), port).to_string();
        command
            .args(["serve", "--listen", &address(CONTROL_PLANE)])
            .args(["--admin", &address(CONTROL_PLANE_ADMIN), "--data-dir"])
            .arg(self.data_dir());
        let process = Process::start("control-plane", self.directory(), command)?;
        self.control_plane = Some(process);
        let started = Instant::now();
        loop {
            self.check_alive()?;
            if self.weft(&["get", "services", "-A"]).await.is_ok() {
                return Ok(());
            }
            self.pause(started, "the control plane answers").await?;
        }
    }

    /// Runs `weft` as a user would; gives what it printed.
    pub async fn weft(&self, arguments: &[&str]) -> Outcome<String> {
        let mut command = self.command(&self.weft);
        command
            .args(arguments)
            .env("WEFT_DATA_DIR", self.data_dir());
        let output = command.output().await.map_err(Failure::failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let (line, said) = (arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        Err(Failure::Failed(format!(
            "`weft {line}` failed: {}",
            said.trim_end()
        )))
    }

    /// Starts an application and, with a join token, its sidecar.
    pub async fn start_workload(
        &mut self,
        index: usize,
        role: Role,
        telemetry: Option<String>,
    ) -> Outcome {
        let address = self.network.workload(index);
        let at = |port| SocketAddr::new(address, port).to_string();
        let mut command = self.command(&self.weft);
        command
            .args(["demo-service", role.app, "--instance", role.name])
            .args(["--listen", &at(role.port.1), "--sidecar", &at(OUTBOUND)]);
        let application = Process::start(role.name, self.directory(), command)?;
        let token = self
            .weft(&[
                "token",
                "create",
                "--namespace",
                NAMESPACE,
                "--service-account",
                role.app,
                "--uses",
                "1",
            ])
            .await?;
        let mut command = self.command(&self.proxy);
        command
            .env(
                "WEFT_CONTROL_PLANE",
                SocketAddr::new(self.network.host(1), CONTROL_PLANE).to_string(),
            )
            .env(
                "WEFT_TRUST_BUNDLE",
                self.data_dir().join("trust-bundle.pem"),
            )
            .env("WEFT_TOKEN", token.trim_end())
            .env("WEFT_WORKLOAD", role.name)
            .env("WEFT_NAMESPACE", NAMESPACE)
            .env("WEFT_SERVICE_ACCOUNT", role.app)
            .env(
                "WEFT_LABELS",
                format!("app={},version={}", role.app, role.version),
            )
            .env("WEFT_PORTS", format!("{}={}", role.port.0, role.port.1))
            .env("WEFT_ADDRESS", address.to_string())
            .env("WEFT_INBOUND_PORT", INBOUND.to_string())
            .env("WEFT_OUTBOUND_LISTEN", at(OUTBOUND))
            .env("WEFT_INBOUND_LISTEN", at(INBOUND))
            .env("WEFT_ADMIN_LISTEN", at(ADMIN))
            .env(
                "WEFT_DATA_DIR",
                self.directory().join(format!("{}-sidecar", role.name)),
            )
            .env("WEFT_DRAIN_TIMEOUT", "5s")
            .env("WEFT_ACCESS_LOG", "json");
        if let Some(endpoint) = telemetry {
            command
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
                .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
                .env("OTEL_BSP_SCHEDULE_DELAY", "200");
        }
        let name = format!("{}-sidecar", role.name);
        let sidecar = Process::start(&name, self.directory(), command)?;
        self.workloads.push(Workload {
            role,
            address,
            sidecar,
            application,
        });
        Ok(())
    }

    /// Waits until every sidecar has all that it asked for, and offers its application's port.
    pub async fn wait_until_synced(&mut self) -> Outcome {
        let started = Instant::now();
        loop {
            self.check_alive()?;
            let proxies = self.weft(&["proxies", "-o", "json"]).await?;
            let proxies: Vec<Value> = serde_json::from_str(&proxies).map_err(Failure::failed)?;
            let synced = |proxy: &Value| {
                let offered = proxy["portsUp"]
                    .as_array()
                    .is_some_and(|ports| !ports.is_empty());
                proxy["pending"] == 0 && proxy["rejected"] == Value::Array(Vec::new()) && offered
            };
            if proxies.len() == self.workloads.len() && proxies.iter().all(synced) {
                return Ok(());
            }
            self.pause(started, "every sidecar is connected and in sync")
                .await?;
        }
    }

    /// Waits a little for a condition that did not hold yet.
    pub async fn pause(&self, started: Instant, condition: &str) -> Outcome {
        if started.elapsed() > CONDITION_TIMEOUT {
            let seconds = CONDITION_TIMEOUT.as_secs();
            return Err(Failure::Failed(format!(
                "after {seconds}s it is still not so that {condition}"
            )));
        }
        tokio::time::sleep(CONDITION_INTERVAL).await;
        Ok(())
    }

    /// The workload of this name.
    pub fn workload(&self, name: &str) -> Outcome<&Workload> {
        let found = self
            .workloads
            .iter()
            .find(|workload| workload.role.name == name);
        found.ok_or_else(|| Failure::failed(format!("{name} was not started")))
    }

    /// The workload of this name, to do something to it.
    pub fn workload_mut(&mut self, name: &str) -> Outcome<&mut Workload> {
        let found = self
            .workloads
            .iter_mut()
            .find(|workload| workload.role.name == name);
        found.ok_or_else(|| Failure::failed(format!("{name} was not started")))
    }

    /// A workload that was stopped on purpose.
    pub fn forget(&mut self, name: &str) {
        self.workloads.retain(|workload| workload.role.name != name);
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let workloads = self.workloads.iter_mut();
        let workloads =
            workloads.flat_map(|workload| [&mut workload.sidecar, &mut workload.application]);
        workloads.chain(self.control_plane.as_mut())
    }

    /// A failure when one of the processes has ended by itself.
    pub fn check_alive(&mut self) -> Outcome {
        self.processes().try_for_each(Process::check_alive)
    }

    /// The last lines of every log.
    pub fn tails(&mut self) -> String {
        self.processes().map(|process| process.tail()).collect()
    }

    /// Ends every process, sidecars before their applications as an orchestrator does.
    pub async fn stop(mut self) -> Outcome {
        let mut outcome = Ok(());
        for process in self.processes() {
            if process.pid().is_some() {
                outcome = outcome.and(process.stop().await.map(drop));
            }
        }
        outcome
    }
}
