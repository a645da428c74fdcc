//! One process of the demo. It never outlives the demo's own handle on it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cli::{Failure, Outcome};

/// A process that has not ended by then after SIGTERM is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Lines of a log that are shown when something went wrong.
const TAIL_LINES: usize = 8;

pub(super) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts it with its output in `DIR/NAME.log`. It is killed when the handle is dropped.
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Outcome<Self> {
        let log = dir.join(format!("{name}.log"));
        let failed =
            |error: std::io::Error| Failure::failed(format!("can't start {name}: {error}"));
        let file = File::create(&log).map_err(failed)?;
        let copy = file.try_clone().map_err(failed)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::from(file))
            .stderr(Stdio::from(copy))
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// A failure when it has ended by itself.
    pub fn check_alive(&mut self) -> Outcome {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let (name, tail) = (&self.name, self.tail());
                Err(Failure::Failed(format!(
                    "{name} ended with {status}:\n{tail}"
                )))
            }
            Err(error) => Err(Failure::Failed(format!("{}: {error}", self.name))),
        }
    }

    /// Asks it to end, by its pid, and waits until it has.
    pub async fn stop(&mut self) -> Outcome<ExitStatus> {
        let failed = |reason: &dyn std::fmt::Display| {
            Failure::Failed(format!("can't stop {}: {reason}", self.name))
        };
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).map_err(|error| failed(&error))?;
        }
        match timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(ended) => ended.map_err(|error| failed(&error)),
            Err(_) => {
                self.child.kill().await.map_err(|error| failed(&error))?;
                let tail = self.tail();
                Err(failed(&format!(
                    "not ended {}s after SIGTERM:\n{tail}",
                    STOP_TIMEOUT.as_secs()
                )))
            }
        }
    }

    /// The last lines that it wrote.
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        let name = &self.name;
        last.iter()
            .map(|line| format!("    {name} | {line}\n"))
            .collect()
    }
}
