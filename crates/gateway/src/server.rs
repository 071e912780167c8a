//! The accept loop and the front of every request: limits, routes, bodies, errors. It knows no operation;
//! those are behind [`Operations`].

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::console::{self, Presented, Sessions};
use crate::error::ApiError;
use crate::params::Params;

const JSON: &str = "application/json";

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address.
    pub address: IpAddr,
    /// The same as text.
    pub shown: Arc<str>,
}

impl Peer {
    /// The peer at an address.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self { address, shown: address.to_string().into() }
    }
}

/// The name of one request, unlike any other: the process has a random prefix, and its requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u32);

impl RequestId {
    fn next() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

impl RequestId {
    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        static PREFIX: LazyLock<[u8; 4]> = LazyLock::new(|| {
            let mut bytes = [0_u8; 4];
            getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
            bytes
        });
        let ([a, b, c, d], [e, f, g, h]) = (*PREFIX, self.0.to_be_bytes());
        [a, b, c, d, e, f, g, h]
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.bytes()))
    }
}

/// Where a call comes from.
pub struct Origin {
    /// Who is at the other end of the connection.
    pub remote: Peer,
    /// `X-Forwarded-For`; to be believed only from addresses the auth method names.
    pub forwarded_for: Option<String>,
}

impl Origin {
    /// What a request's head says of it.
    #[must_use]
    pub fn of(remote: Peer, headers: &HeaderMap) -> Self {
        // Only the last one comes from the nearest gateway; those before may be the client's own.
        let forwarded = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
        Self { remote, forwarded_for: forwarded.map(str::to_owned) }
    }
}

/// One call of an operation.
pub struct Call {
    /// Its wire name, as the path had it.
    pub operation: String,
    /// The parameters, a JSON object. They may hold secrets: never log them.
    pub body: Bytes,
    /// Where it comes from.
    pub from: Origin,
    /// In the answer and in the log.
    pub request_id: RequestId,
}

/// What an operation answers: a status and a JSON text.
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The text.
    pub body: Bytes,
}

impl Answer {
    /// The answer that says `value`.
    #[must_use]
    pub fn json(status: StatusCode, value: &Value) -> Self {
        Self { status, body: serde_json::to_vec(value).unwrap_or_default().into() }
    }
}

/// What is behind the front.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// Does one operation.
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, ApiError>>;
    /// Whether the gateway is ready.
    async fn health(&self) -> Result<Value, ApiError>;
    /// The OpenAPI document.
    fn openapi(&self) -> Value;
    /// The metrics in Prometheus' text form.
    fn metrics(&self) -> String;
    /// The sessions of the console, if there is one.
    fn sessions(&self) -> Option<&Sessions> {
        None
    }
}

/// What one client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Time for the TLS handshake, and again for the head of each request.
    pub header: Duration,
    /// Time for the body to arrive.
    pub body: Duration,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Time for the whole operation.
    pub request: Duration,
    /// Time that running requests get when the gateway stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            body_bytes: 1 << 20,
            request: Duration::from_secs(300),
            drain: Duration::from_secs(3),
        }
    }
}

#[derive(Clone)]
struct Front {
    operations: Arc<dyn Operations>,
    limits: Limits,
    closing: Closing,
}

/// Tells every connection to end. Looking costs one load; the token, which has a lock, only knows whom to wake.
#[derive(Clone, Default)]
struct Closing {
    begun: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Closing {
    fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// What `work` comes to, or `None` once everything is to end. It must be awaited by one task.
    async fn unless<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        // A token of its own: connections that ask a common one wait for each other.
        let token = self.token.child_token();
        let mut cancelled = pin!(token.cancelled());
        let mut enrolled = false;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if enrolled && !self.begun.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            enrolled = true;
            cancelled.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}

/// Serves until `shutdown`, then lets running requests finish for [`Limits::drain`].
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    operations: Arc<dyn Operations>,
    shutdown: CancellationToken,
) {
    let front = Front { operations, limits, closing: Closing::default() };
    let slots = Arc::new(Semaphore::new(limits.connections));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(slot), Ok((stream, peer))) => {
                let (front, tls) = (front.clone(), tls.clone());
                tasks.spawn(async move {
                    connection(stream, peer, tls, front).await;
                    drop(slot);
                });
            }
            (Err(_), _) => break,
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    front.closing.begin();
    tasks.close();
    if timeout(limits.drain, tasks.wait()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, front: Front) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    match tls {
        None => drive(stream, peer, front).await,
        Some(acceptor) => match timeout(front.limits.header, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => drive(stream, peer, front).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        },
    }
}

async fn drive(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr, front: Front) {
    let (header, closing) = (front.limits.header, front.closing.clone());
    let patience = Patience::new(front.limits.request);
    let line = Arc::new(Line { remote: Peer::new(peer.ip()), patience: patience.clone(), front });
    let connection = http1::Builder::new()
        .timer(patience)
        .header_read_timeout(header)
        // What has begun is brought to its end, whether or not anybody waits for it; nobody looks for more from the client meanwhile.
        .half_close(true)
        // An answer is small: head and body leave in one piece.
        .writev(false)
        .serve_connection(TokioIo::new(stream), service_fn(move |request| Line::answer(&line, request)));
    tokio::pin!(connection);
    let ended = match closing.unless(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// One connection. Its requests come one after the other.
struct Line {
    remote: Peer,
    patience: Patience,
    front: Front,
}

/// What the head of a request asks for.
enum Asked {
    /// An operation; its parameters are in the body.
    Operation { named: String, from: Origin, presented: Presented, body: Incoming },
    /// Something else: a page, or what is said of the gateway.
    Other(Request<Incoming>),
}

impl Line {
    /// The head of a request is read and freed before anything is waited for: thousands of requests may be on their way at a time.
    fn answer(
        line: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + use<> {
        let (line, request_id) = (Arc::clone(line), RequestId::next());
        let asked = line.asked(request);
        async move {
            let answered = match asked {
                Asked::Operation { named, from, presented, body } => {
                    line.operate(named, (presented, body), from, request_id).await
                }
                Asked::Other(request) => Box::pin(line.front.other(request, line.remote.clone())).await,
            };
            Ok(answered.unwrap_or_else(|error| json(error.status(), &error.body(&request_id.to_string()))))
        }
    }

    fn asked(&self, request: Request<Incoming>) -> Asked {
        let (path, headers) = (request.uri().path(), request.headers());
        let sessions = self.front.operations.sessions();
        match operation(path) {
            Some(named) if request.method() == Method::POST && !(sessions.is_some() && console::owns(path)) => {
                Asked::Operation {
                    named: named.to_owned(),
                    from: Origin::of(self.remote.clone(), headers),
                    presented: sessions.map_or(Presented::Nothing, |sessions| sessions.presented(headers)),
                    body: request.into_body(),
                }
            }
            _ => Asked::Other(request),
        }
    }

    async fn operate(
        &self,
        operation: String,
        (presented, body): (Presented, Incoming),
        from: Origin,
        request_id: RequestId,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let operations = &*self.front.operations;
        let mut body = self.front.body(body).await?;
        if let Some(sessions) = operations.sessions().filter(|_| !matches!(presented, Presented::Nothing)) {
            body = Box::pin(sessions.stand_in(body, presented)).await?;
        }
        let call = operations.call(Call { operation, body, from, request_id });
        let Answer { status, body } = self.patience.with(call).await.ok_or(ApiError::Timeout)??;
        Ok(respond(status, JSON, body))
    }
}

impl Front {
    /// Everything but operations.
    async fn other(&self, request: Request<Incoming>, remote: Peer) -> Result<Response<Full<Bytes>>, ApiError> {
        let operations = &*self.operations;
        let path = request.uri().path();
        if let Some(sessions) = operations.sessions().filter(|_| console::owns(path)) {
            return self.console(sessions, request, remote).await;
        }
        match path {
            _ if request.method() != Method::GET => Err(ApiError::UnknownCommand(String::new())),
            "/health" => Ok(json(StatusCode::OK, &operations.health().await?)),
            "/openapi.json" => Ok(console::packed(&request, json(StatusCode::OK, &operations.openapi()))),
            "/metrics" => Ok(respond(StatusCode::OK, "text/plain; version=0.0.4", operations.metrics())),
            _ => Err(ApiError::UnknownCommand(String::new())),
        }
    }

    /// What is below `/console`: assets, and the beginning and end of sessions.
    async fn console(
        &self,
        sessions: &Sessions,
        request: Request<Incoming>,
        remote: Peer,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        if request.method() == Method::GET {
            return Ok(console::asset(&request));
        }
        if request.method() != Method::POST {
            return Err(ApiError::UnknownCommand(String::new()));
        }
        let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
        let params = Params::parse(&self.body(request.into_body()).await?)?;
        let (value, cookie) = match path.as_str() {
            "/console/sign-in" => sessions.begin(&headers, &params, remote).await?,
            "/console/sign-out" => sessions.end(&headers).await?,
            _ => return Err(ApiError::UnknownCommand(String::new())),
        };
        let mut response = json(StatusCode::OK, &value);
        response.headers_mut().insert("set-cookie", cookie);
        Ok(response)
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, ApiError> {
        let mut body = pin!(Limited::new(body, self.limits.body_bytes).collect());
        // Nearly always it came with the head, and no timer is needed.
        let arrived = match body.as_mut().now_or_never() {
            Some(arrived) => arrived,
            None => Box::pin(timeout(self.limits.body, body)).await.map_err(|_| ApiError::Timeout)?,
        };
        match arrived {
            Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge),
            Err(_) => Err(ApiError::BadBody),
            Ok(body) => Ok(body.to_bytes()),
        }
    }
}

/// The timer of one connection, on which one thing is waited for at a time: the head of a request, or what its call comes to.
#[derive(Clone)]
struct Patience {
    /// Time for a call.
    lasts: Duration,
    alarm: Arc<Mutex<Alarm>>,
}

/// An end that is put off again and again. The timer below may ring early, and is then set to what holds by now: so putting off costs
/// nothing.
struct Alarm {
    due: Instant,
    timer: Pin<Box<tokio::time::Sleep>>,
}

impl Alarm {
    fn set(&mut self, due: Instant) {
        self.due = due;
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.due <= self.timer.deadline() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.due);
        }
        Poll::Pending
    }
}

impl Patience {
    fn new(lasts: Duration) -> Self {
        let due = Instant::now() + lasts;
        let timer = Box::pin(tokio::time::sleep_until(due));
        Self { lasts, alarm: Arc::new(Mutex::new(Alarm { due, timer })) }
    }

    /// What `call` comes to, or `None` if it takes too long.
    async fn with<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = pin!(call);
        self.alarm().set(Instant::now() + self.lasts);
        std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.alarm().poll(cx).map(|()| None),
        })
        .await
    }

    fn alarm(&self) -> MutexGuard<'_, Alarm> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait for the head of a request.
struct Waiting(Patience);

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.alarm().poll(cx)
    }
}

impl Sleep for Waiting {}

impl Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(std::time::Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.alarm().set(deadline.into());
        Box::pin(Waiting(self.clone()))
    }
}

/// The operation that a path names under any of the bases `/`, `/v2` and `/api/v2`.
fn operation(path: &str) -> Option<&str> {
    let name = ["/api/v2/", "/v2/", "/"].into_iter().find_map(|base| path.strip_prefix(base))?;
    let name = name.strip_suffix('/').unwrap_or(name);
    let ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (!name.is_empty() && name.len() <= 64 && name.bytes().all(ok)).then_some(name)
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    respond(status, JSON, serde_json::to_vec(value).unwrap_or_default())
}

fn respond(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_call_has_its_time_however_long_the_connection_lived_before() {
        let patience = Patience::new(Duration::from_millis(50));
        for _ in 0..3 {
            // The call is looked at before the timer, so that a slow machine changes nothing.
            assert_eq!(patience.with(tokio::time::sleep(Duration::from_millis(1))).await, Some(()));
            assert_eq!(patience.with(std::future::pending::<()>()).await, None);
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    }

    #[tokio::test]
    async fn an_end_that_is_put_off_is_not_met_early() {
        let patience = Patience::new(Duration::from_millis(300));
        let started = Instant::now();
        let head = patience.sleep(Duration::from_millis(20));
        // Nobody waits for the head any more: what was set for it rings during the call, and does not end it.
        drop(head);
        assert_eq!(patience.with(std::future::pending::<()>()).await, None);
        assert!(started.elapsed() >= Duration::from_millis(300));
        patience.sleep(Duration::from_millis(20)).await;
        assert!(started.elapsed() >= Duration::from_millis(320));
    }

    #[test]
    fn every_base_leads_to_the_same_operation() {
        for path in ["/auth", "/v2/auth", "/api/v2/auth", "/auth/"] {
            assert_eq!(operation(path), Some("auth"), "{path}");
        }
        for path in ["/", "/v2/", "/api/v2/", "", "/a/b", "/Auth", "/a%2f"] {
            assert_eq!(operation(path), None, "{path}");
        }
        assert_eq!(operation("/v2"), Some("v2"), "a base without slash is an unknown operation");
    }
}
