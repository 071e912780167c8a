//! A web server that rotates a payload by the vendor's published contract: `POST /sync/rotate {"payload"}` is answered with the next
//! payload. It can be told to misbehave.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the hook does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// What the contract says.
    Proper,
    /// Changes nothing and answers with this status.
    Refuses(u16),
    /// Makes the change and closes the connection without an answer.
    Silent,
    /// Makes the change and answers later than anybody waits.
    Slow,
    /// Makes the change and answers with something else.
    Garbled,
}

/// What the hook knows.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The payload that is valid now.
    pub payload: String,
    /// Changes made.
    pub changes: u32,
    /// Requests, newest last: headers by lower-case name, and the body.
    pub requests: Vec<(Vec<(String, String)>, Value)>,
}

/// One hook.
pub struct Hook {
    /// Where it listens.
    pub addr: SocketAddr,
    state: Arc<Mutex<(Manners, Known)>>,
    task: tokio::task::JoinHandle<()>,
}

impl Hook {
    /// Starts one that knows this payload.
    pub async fn start(payload: &str) -> std::io::Result<Hook> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let known = Known { payload: payload.to_owned(), ..Known::default() };
        let state = Arc::new(Mutex::new((Manners::Proper, known)));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Ok(Hook { addr, state, task })
    }

    /// The rotation endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/sync/rotate", self.addr)
    }

    /// From now on behaves like this.
    pub fn set(&self, manners: Manners) {
        self.lock().0 = manners;
    }

    /// What it knows.
    pub fn known(&self) -> Known {
        self.lock().1.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Manners, Known)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<(Manners, Known)>>) -> Option<()> {
    let mut bytes = Vec::new();
    let head = loop {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.lines();
    let target = lines.next()?.to_owned();
    let split = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let headers: Vec<(String, String)> = lines.filter_map(split).collect();
    let length: usize = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    while bytes.len() < head + 4 + length {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
    }
    let body: Value = serde_json::from_slice(&bytes[head + 4..]).ok()?;
    let (manners, answer) = rotated(&state, &target, headers, body);
    match manners {
        Manners::Silent => return None,
        Manners::Slow => tokio::time::sleep(Duration::from_secs(60)).await,
        _ => {}
    }
    let status = match manners {
        Manners::Refuses(status) => status,
        _ => 200,
    };
    let text = answer.to_string();
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
    stream.write_all(format!("{head}{text}").as_bytes()).await.ok()
}

fn rotated(
    state: &Mutex<(Manners, Known)>,
    target: &str,
    headers: Vec<(String, String)>,
    body: Value,
) -> (Manners, Value) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let manners = if target.starts_with("POST /sync/rotate ") { state.0 } else { Manners::Refuses(404) };
    let known = &mut state.1;
    known.requests.push((headers, body));
    if matches!(manners, Manners::Refuses(_)) {
        return (manners, json!({"error": "no"}));
    }
    known.changes += 1;
    known.payload = format!("payload {}", known.changes);
    let answer = if manners == Manners::Garbled { json!({"other": 1}) } else { json!({"payload": known.payload}) };
    (manners, answer)
}
