//! TCP applications: `echo` gives back what comes, `sink` answers with the count and the hash of
//! what came, `count` with the count alone, `source` sends the pattern; `greet` speaks first.

use std::io;
use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pattern;

/// Read buffer of one connection.
const BUFFER: usize = 64 * 1024;

/// Options of `tcp`.
#[derive(Args)]
pub struct Options {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// What to do with a connection.
    #[arg(long, value_enum, default_value = "echo")]
    behaviour: Behaviour,
    /// How many bytes `source` sends.
    #[arg(long, default_value_t = 0)]
    bytes: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Behaviour {
    /// Gives back what comes; half-closes when the client did.
    Echo,
    /// Reads to the end, then answers `COUNT SHA256` and closes.
    Sink,
    /// Reads to the end, then answers `COUNT` and closes: no hash, so that the reader is no brake.
    Count,
    /// Sends the pattern, half-closes, and waits for the client's end.
    Source,
    /// Sends `220 ready` at once, then echoes.
    Greet,
}

/// Serves until killed.
pub async fn run(options: Options) -> io::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        let bytes = options.bytes;
        let behaviour = options.behaviour;
        tokio::spawn(async move {
            let outcome = match behaviour {
                Behaviour::Echo => echo(socket).await,
                Behaviour::Sink => sink(socket).await,
                Behaviour::Count => count(socket).await,
                Behaviour::Source => source(socket, bytes).await,
                Behaviour::Greet => greet(socket).await,
            };
            if let Err(error) = outcome {
                eprintln!("connection: {error}");
            }
        });
    }
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = socket.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

async fn sink(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut hash = Sha256::new();
    let mut count = 0_u64;
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        count += read as u64;
    }
    let answer = format!("{count} {:x}\n", hash.finalize());
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await
}

async fn count(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 4 * BUFFER];
    let mut count = 0_u64;
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        count += read as u64;
    }
    socket.write_all(format!("{count}\n").as_bytes()).await?;
    socket.shutdown().await
}

async fn source(mut socket: TcpStream, total: u64) -> io::Result<()> {
    let mut offset = 0;
    while offset < total {
        let piece = pattern::piece(offset, total);
        socket.write_all(&piece).await?;
        offset += piece.len() as u64;
    }
    socket.shutdown().await?;
    let mut rest = [0; 1];
    while socket.read(&mut rest).await? != 0 {}
    Ok(())
}

async fn greet(mut socket: TcpStream) -> io::Result<()> {
    socket.write_all(b"220 ready\r\n").await?;
    echo(socket).await
}
