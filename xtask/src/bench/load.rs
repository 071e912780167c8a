//! A small load generator: requests that were written beforehand, on connections that stay open.
//!
//! It does as little as possible per request, and all of it in one thread, since it shares the processors with the gateway it measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Largest head of an answer that is looked at.
const LARGEST_HEAD: usize = 16 * 1024;

/// How the load is given.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// When it ends, if the requests do not end before.
    pub lasts: Duration,
    /// Whether the requests begin again when all were sent.
    pub again: bool,
}

/// What came of it.
pub struct Outcome {
    /// Requests answered with success.
    pub answered: usize,
    /// Requests answered otherwise.
    pub refused: usize,
    /// From the first request to the last answer.
    pub took: Duration,
    /// How long each answer took, in microseconds, sorted.
    pub latencies: Vec<u32>,
}

impl Outcome {
    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    /// The latency that this share of the answers did not exceed, in milliseconds.
    pub fn latency_ms(&self, share: f64) -> f64 {
        let place = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(place.min(self.latencies.len().saturating_sub(1))).map_or(0.0, |us| f64::from(*us) / 1000.0)
    }
}

/// One request, ready to be sent.
pub fn request(operation: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "POST /{operation} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Sends `requests` to `address`, which is `host:port`.
pub async fn send(address: &str, requests: &Arc<Vec<Vec<u8>>>, load: Load) -> Result<Outcome> {
    let (address, requests) = (address.to_owned(), Arc::clone(requests));
    let alone = move || -> Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(send_all(&address, &requests, load))
    };
    tokio::task::spawn_blocking(alone).await.context("the load generator's thread ended")?
}

async fn send_all(address: &str, requests: &Arc<Vec<Vec<u8>>>, load: Load) -> Result<Outcome> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        connections.push(Connection::open(address).await?);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(drive(connection, Arc::clone(requests), Arc::clone(&next), began, load));
    }
    let mut outcome = Outcome { answered: 0, refused: 0, took: Duration::ZERO, latencies: Vec::new() };
    while let Some(part) = tasks.join_next().await {
        let (latencies, refused) = part.context("a connection's task ended")??;
        outcome.answered += latencies.len();
        outcome.refused += refused;
        outcome.latencies.extend(latencies);
    }
    outcome.took = began.elapsed();
    outcome.latencies.sort_unstable();
    Ok(outcome)
}

async fn drive(
    mut connection: Connection,
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
    began: Instant,
    load: Load,
) -> Result<(Vec<u32>, usize)> {
    let (mut latencies, mut refused) = (Vec::new(), 0);
    let mut sent = Instant::now();
    while sent.duration_since(began) < load.lasts {
        let place = next.fetch_add(1, Ordering::Relaxed);
        if place >= requests.len() && !load.again {
            break;
        }
        let status = connection.ask(&requests[place % requests.len()]).await?;
        let answered = Instant::now();
        if status == 200 {
            latencies.push(u32::try_from((answered - sent).as_micros()).unwrap_or(u32::MAX));
        } else {
            refused += 1;
        }
        sent = answered;
    }
    Ok((latencies, refused))
}

/// One connection that stays open.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting to the gateway")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// The last answer, head and body.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Sends a request, reads the whole answer and gives its status.
    pub async fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the gateway closed the connection");
            }
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let (status, length) = head(&self.buffer[..end])?;
                while self.buffer.len() < end + 4 + length {
                    ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the gateway closed the connection");
                }
                return Ok(status);
            }
            ensure!(self.buffer.len() < LARGEST_HEAD, "the head of an answer does not end");
        }
    }
}

/// Status and length of the body.
fn head(bytes: &[u8]) -> Result<(u16, usize)> {
    let text = std::str::from_utf8(bytes).context("the head of an answer is no text")?;
    let status = text.get(9..12).and_then(|word| word.parse().ok()).context("an answer without status")?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    Ok((status, length.context("an answer without length")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_answer_is_understood() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12";
        assert_eq!(head(text).expect("a head"), (200, 12));
        assert!(head(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
