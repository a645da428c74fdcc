//! Making a TCP connection.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::http::Unanswered;
use crate::listener::set_options;
use crate::model::Fault;

/// Connects within `limit`. Whatever goes wrong, no byte of a request was sent.
pub(super) async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, Unanswered> {
    let connected = match timeout(limit, TcpStream::connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(ErrorKind::TimedOut.into()),
    };
    match connected {
        Ok(stream) => {
            set_options(&stream);
            Ok(stream)
        }
        Err(error) => {
            debug!(%address, %error, "cannot connect");
            Err(Unanswered::unprocessed(Fault::ConnectFailed))
        }
    }
}
