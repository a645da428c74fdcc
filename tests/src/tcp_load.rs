//! TCP load, with the report of `load`: bytes up or down whole connections, connections of one
//! short exchange each, or connections that are opened and then held idle.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::pattern;
use crate::report::{Outcome, Report};

/// Read buffer of one connection.
const BUFFER: usize = 256 * 1024;
/// What an exchange sends and wants back.
const PING: &[u8; 16] = b"0123456789abcdef";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: idle\r\n\r\n";

/// Options of `tcp-load`.
#[derive(Args, Clone)]
pub struct Options {
    /// Where to connect.
    #[arg(long)]
    connect: SocketAddr,
    /// What to do.
    #[arg(long, value_enum)]
    kind: Kind,
    /// How many connections at a time; for `hold` and `hold-http`, how many in all.
    #[arg(long, default_value_t = 4)]
    connections: u64,
    /// How many connections in all, one after the other on each of --connections.
    #[arg(long)]
    total: Option<u64>,
    /// How many bytes each connection carries (`up`, `down`).
    #[arg(long, default_value_t = 0)]
    bytes: u64,
    /// A connection that isn't done by then has failed.
    #[arg(long, default_value = "60s")]
    timeout: humantime::Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Sends the bytes to a `tcp --behaviour count` and checks what it counted.
    Up,
    /// Reads the bytes of a `tcp --behaviour source` to the end, and counts them.
    Down,
    /// Sends 16 bytes to an echo and waits for them.
    Exchange,
    /// As `exchange`, then keeps the connections open and says so, until killed.
    Hold,
    /// As `hold`, with a GET and its answer.
    HoldHttp,
}

/// Runs the load and prints its report.
pub async fn run(options: Options) -> io::Result<()> {
    let holds = matches!(options.kind, Kind::Hold | Kind::HoldHttp);
    let total = options.total.unwrap_or(options.connections);
    let start = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    // A held connection belongs to nobody's turn; opening them is what takes turns.
    let at_a_time = options.connections.min(if holds { 64 } else { u64::MAX });
    let turns: Vec<_> = (0..at_a_time)
        .map(|_| {
            let (options, next) = (options.clone(), next.clone());
            tokio::spawn(async move {
                let (mut outcomes, mut held) = (Vec::new(), Vec::new());
                while next.fetch_add(1, Ordering::Relaxed) < total {
                    let began = Instant::now();
                    let outcome = match timeout(*options.timeout, connection(&options)).await {
                        Ok(Ok(socket)) => {
                            held.extend(holds.then_some(socket));
                            Outcome::Done
                        }
                        Ok(Err(error)) => failure("broken", error.to_string()),
                        Err(_) => failure("timeout", String::new()),
                    };
                    outcomes.push((began - start, began.elapsed(), outcome));
                }
                (outcomes, held)
            })
        })
        .collect();
    let (mut report, mut kept) = (Report::default(), Vec::new());
    for turn in turns {
        let (outcomes, held) = turn.await.map_err(io::Error::other)?;
        kept.extend(held);
        for (at, latency, outcome) in outcomes {
            report.add(at, Duration::ZERO, latency, outcome);
        }
    }
    println!("{}", report.render(start.elapsed())?);
    if holds {
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn failure(kind: &'static str, detail: String) -> Outcome {
    Outcome::Failure { kind, detail }
}

async fn connection(options: &Options) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(options.connect).await?;
    socket.set_nodelay(true)?;
    match options.kind {
        Kind::Up => up(&mut socket, options.bytes).await?,
        Kind::Down => down(&mut socket, options.bytes).await?,
        Kind::Exchange | Kind::Hold => exchange(&mut socket).await?,
        Kind::HoldHttp => get(&mut socket).await?,
    }
    Ok(socket)
}

async fn up(socket: &mut TcpStream, total: u64) -> io::Result<()> {
    let mut offset = 0;
    while offset < total {
        let piece = pattern::piece(offset, total);
        socket.write_all(&piece).await?;
        offset += piece.len() as u64;
    }
    socket.shutdown().await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    expect(answer.trim() == total.to_string(), || {
        format!("{total} bytes sent, the other end counted {answer:?}")
    })
}

async fn down(socket: &mut TcpStream, total: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut count = 0;
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        count += read as u64;
    }
    expect(count == total, || {
        format!("{count} bytes came instead of {total}")
    })
}

async fn exchange(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(PING).await?;
    let mut answer = [0; PING.len()];
    socket.read_exact(&mut answer).await?;
    expect(&answer == PING, || format!("{answer:?} came back"))
}

/// One GET; its answer has to have a length.
async fn get(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(GET).await?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = socket.read(&mut buffer).await?;
        expect(read > 0, || "closed before the answer".to_owned())?;
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        expect(head.starts_with("http/1.1 200"), || head.clone())?;
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        let mut lengths = fields.filter(|(name, _)| *name == "content-length");
        let length = lengths.next().and_then(|(_, n)| n.trim().parse().ok());
        let length: usize = length.ok_or_else(|| io::Error::other("an answer without length"))?;
        if body.len() >= length {
            return Ok(());
        }
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> io::Result<()> {
    if holds {
        Ok(())
    } else {
        Err(io::Error::other(otherwise()))
    }
}
