//! A bare byte relay: what any proxy in user space costs at the least, before it reads a byte of
//! what it carries. One thread, one task a connection, both ways through a buffer each.

use std::io;
use std::net::SocketAddr;

use clap::Args;
use socket2::SockRef;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

/// Buffer of one direction of a connection.
const BUFFER: usize = 64 * 1024;

/// Options of `relay`.
#[derive(Args)]
pub struct Options {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// Where to connect for each connection [default: where it was going before nftables
    /// redirected it].
    #[arg(long)]
    to: Option<SocketAddr>,
}

/// Relays until killed.
pub async fn run(options: Options) -> io::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        let to = options.to;
        tokio::spawn(async move {
            if let Err(error) = relay(socket, to).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

async fn relay(mut downstream: TcpStream, to: Option<SocketAddr>) -> io::Result<()> {
    let to = match to {
        Some(to) => to,
        None => original_destination(&downstream)?,
    };
    let mut upstream = TcpStream::connect(to).await?;
    downstream.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut downstream, &mut upstream, BUFFER, BUFFER).await?;
    Ok(())
}

fn original_destination(socket: &TcpStream) -> io::Result<SocketAddr> {
    let address = match socket.local_addr()? {
        SocketAddr::V4(_) => SockRef::from(socket).original_dst_v4()?,
        SocketAddr::V6(_) => SockRef::from(socket).original_dst_v6()?,
    };
    let address = address.as_socket();
    address.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}
