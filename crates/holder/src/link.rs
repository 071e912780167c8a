//! The gateway's connection to one holder: one task has it, many callers have requests under way on it at once. A caller that
//! finds it idle writes and reads by itself, which spares a read the way over another task and its thread; requests that come
//! together are left to the task, which sends them together.
//!
//! What must stay true: no caller ever waits for the connection's lock, and the task waits for nobody who waits; whoever looked
//! at the connection last is woken by it, so a caller that leaves while others wait wakes the task; a caller never
//! waits longer than its patience; a request on a connection that turns out to be dead is
//! repeated once on a fresh one (everything asked of a holder may be repeated); the queue and the requests under way are bounded;
//! after a failure the next attempt to connect waits a little, longer each time.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpStream;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::channel::Channel;
use crate::lock;
use crate::roster::Member;
use crate::wire::{Frame, Kind, Request, Response};

/// Requests that wait for a connection, at most.
const QUEUE: usize = 1024;
/// Requests under way on a connection, at most.
const UNDER_WAY: usize = 1024;
/// Longest for connection and handshake.
const CONNECTING: Duration = Duration::from_secs(2);
/// First and longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));
/// How often requests under way are looked through for overdue ones.
const SWEEP: Duration = Duration::from_millis(500);

/// Why a holder did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It answered that it will not.
    Refused(String),
    /// It answered that no client is believed to ask for it.
    Unauthorized(String),
    /// It cannot be reached, or answers nothing that makes sense.
    Unreachable(String),
    /// Nothing came in time.
    Late,
    /// This side has too much under way.
    Busy,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(why) | Self::Unauthorized(why) | Self::Unreachable(why) => f.write_str(why),
            Self::Late => f.write_str("no answer in time"),
            Self::Busy => f.write_str("too many requests are under way"),
        }
    }
}

struct Call {
    kind: Kind,
    body: Arc<Vec<u8>>,
    deadline: Instant,
    reply: oneshot::Sender<Answered>,
}

/// A frame, or why there is none.
type Answered = Result<Frame, String>;

/// Where a holder is and how it is known, and the connection to it if there is one.
struct Target {
    member: Member,
    connector: TlsConnector,
    live: Mutex<Option<Arc<Live>>>,
}

/// A connection, for the task that reads from it and for callers that find it idle.
struct Live {
    traffic: Mutex<Traffic>,
    /// The task is to look at it.
    attention: Notify,
}

struct Traffic {
    channel: Channel<TlsStream<TcpStream>>,
    under_way: UnderWay,
    /// When something came last.
    heard: Instant,
    /// It is broken, or nobody has it any more.
    over: bool,
}

/// The link to one holder. Its task starts with the first request and ends with the link.
pub(crate) struct Link {
    target: Arc<Target>,
    calls: Mutex<Option<mpsc::Sender<Call>>>,
}

impl Link {
    pub(crate) fn new(member: Member, connector: TlsConnector) -> Self {
        Self { target: Arc::new(Target { member, connector, live: Mutex::default() }), calls: Mutex::default() }
    }

    /// Asks something seldom.
    pub(crate) async fn ask(&self, request: &Request, patience: Duration) -> Result<Response, Failure> {
        let broken = |error: serde_json::Error| Failure::Unreachable(error.to_string());
        let body = Arc::new(serde_json::to_vec(request).map_err(broken)?);
        let frame = self.call(Kind::Request, body, patience).await?;
        if frame.kind != Kind::Response {
            return Err(Failure::Unreachable("an answer to another question".into()));
        }
        serde_json::from_slice(&frame.body).map_err(broken)
    }

    /// Sends a message and waits for its answer.
    pub(crate) async fn call(&self, kind: Kind, body: Arc<Vec<u8>>, patience: Duration) -> Result<Frame, Failure> {
        timeout(patience, self.call_patiently(kind, body, patience)).await.unwrap_or(Err(Failure::Late))
    }

    /// As [`Self::call`], for callers that watch the time themselves and drop the future when `patience` is over.
    pub(crate) async fn call_patiently(
        &self,
        kind: Kind,
        body: Arc<Vec<u8>>,
        patience: Duration,
    ) -> Result<Frame, Failure> {
        let deadline = Instant::now() + patience;
        for _ in 0..2 {
            let (reply, answer) = oneshot::channel();
            let call = Call { kind, body: Arc::clone(&body), deadline, reply };
            let answer = match self.target.send_at_once(call) {
                Ok(reading) => reading.answer(answer).await,
                Err(call) => {
                    self.sender().try_send(call).map_err(|_| Failure::Busy)?;
                    answer.await
                }
            };
            match answer {
                Ok(Ok(frame)) if frame.kind == Kind::Refused => {
                    return Err(Failure::Refused(String::from_utf8_lossy(&frame.body).into_owned()));
                }
                Ok(Ok(frame)) if frame.kind == Kind::Unauthorized => {
                    return Err(Failure::Unauthorized(String::from_utf8_lossy(&frame.body).into_owned()));
                }
                Ok(Ok(frame)) => return Ok(frame),
                Ok(Err(why)) => return Err(Failure::Unreachable(why)),
                // The connection ended under the request.
                Err(_) => {}
            }
        }
        Err(Failure::Unreachable("the connection was lost".into()))
    }

    /// The way to the task, which is started if there is none: the first time, or after its runtime ended.
    fn sender(&self) -> mpsc::Sender<Call> {
        let mut calls = lock(&self.calls);
        match &*calls {
            Some(sender) if !sender.is_closed() => sender.clone(),
            _ => {
                let (sender, receiver) = mpsc::channel(QUEUE);
                tokio::spawn(run(Arc::clone(&self.target), receiver));
                *calls = Some(sender.clone());
                sender
            }
        }
    }
}

/// Connects when something is asked, and again when the connection is gone.
async fn run(target: Arc<Target>, mut calls: mpsc::Receiver<Call>) {
    let mut pause = PAUSES.0;
    let mut not_before = Instant::now();
    while let Some(first) = calls.recv().await {
        if first.reply.is_closed() {
            continue;
        }
        tokio::time::sleep_until(not_before).await;
        let why = match timeout(CONNECTING, target.connect()).await {
            Ok(Ok(stream)) => {
                pause = PAUSES.0;
                serve(&target, stream, first, &mut calls).await;
                not_before = Instant::now() + pause;
                continue;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it cannot be connected in time".to_owned(),
        };
        not_before = Instant::now() + pause;
        pause = PAUSES.1.min(pause * 2);
        first.reply.send(Err(why.clone())).ok();
        while let Ok(call) = calls.try_recv() {
            call.reply.send(Err(why.clone())).ok();
        }
    }
}

impl Target {
    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.member.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect("holder".try_into()?, stream).await?)
    }

    /// Writes a request to a connection on which nothing else is under way; gives it back where that cannot be done now.
    fn send_at_once(&self, call: Call) -> Result<Reading, Call> {
        let Some(live) = lock(&self.live).clone() else { return Err(call) };
        let Ok(mut traffic) = live.traffic.try_lock() else { return Err(call) };
        if traffic.over || traffic.channel.is_writing() || !traffic.under_way.waiting.is_empty() {
            return Err(call);
        }
        traffic.send(call);
        // What does not go out at once is the task's, and so is whatever is wrong with the connection.
        if !matches!(traffic.channel.poll_write(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))) {
            live.attention.notify_one();
        }
        let call = traffic.under_way.last;
        drop(traffic);
        Ok(Reading { live, call })
    }
}

/// A caller that reads from the connection by itself until its answer is there, from whoever it comes.
struct Reading {
    live: Arc<Live>,
    call: u32,
}

impl Reading {
    async fn answer(self, mut answer: oneshot::Receiver<Answered>) -> Result<Answered, RecvError> {
        poll_fn(|context| match self.look(context) {
            Some((frame, waiting)) => {
                // Nobody is to be woken for it.
                answer.close();
                drop(waiting);
                Poll::Ready(Ok(Ok(frame)))
            }
            None => Pin::new(&mut answer).poll(context),
        })
        .await
    }

    /// Takes what came. Others' answers are handed to them; what is wrong with the connection is the task's to say.
    fn look(&self, context: &mut Context<'_>) -> Option<(Frame, Waiting)> {
        if let Ok(mut traffic) = self.live.traffic.try_lock() {
            loop {
                if traffic.over {
                    break;
                }
                match traffic.read(context, Some(self.call)) {
                    Poll::Pending => return None,
                    Poll::Ready(Ok(None)) => {}
                    Poll::Ready(Ok(own)) => return own,
                    Poll::Ready(Err(_)) => traffic.over = true,
                }
            }
        }
        self.live.attention.notify_one();
        None
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let alone =
            self.live.traffic.try_lock().is_ok_and(|traffic| traffic.under_way.waiting.is_empty() && !traffic.over);
        if !alone {
            self.live.attention.notify_one();
        }
    }
}

/// What is under way on one connection.
#[derive(Default)]
struct UnderWay {
    waiting: HashMap<u32, Waiting>,
    last: u32,
}

struct Waiting {
    sent: Instant,
    deadline: Instant,
    reply: oneshot::Sender<Answered>,
}

impl Traffic {
    fn has_room(&self) -> bool {
        self.channel.has_room() && self.under_way.waiting.len() < UNDER_WAY
    }

    fn send(&mut self, call: Call) {
        if call.reply.is_closed() {
            return;
        }
        let under_way = &mut self.under_way;
        under_way.last = under_way.last.wrapping_add(1);
        match self.channel.send(call.kind, under_way.last, &call.body) {
            Ok(()) => {
                let waiting = Waiting { sent: Instant::now(), deadline: call.deadline, reply: call.reply };
                under_way.waiting.insert(under_way.last, waiting);
            }
            Err(error) => {
                call.reply.send(Err(error.to_string())).ok();
            }
        }
    }

    /// Writes what waits and reads what came: hands frames to whoever waits for them, if somebody still does, and gives back the
    /// caller's own.
    fn read(&mut self, context: &mut Context<'_>, own: Option<u32>) -> Poll<Result<Option<(Frame, Waiting)>>> {
        ready!(self.channel.poll_turn(context))?;
        self.heard = Instant::now();
        let mut found = None;
        while let Some(frame) = self.channel.next()? {
            let Some(waiting) = self.under_way.waiting.remove(&frame.call) else { continue };
            if own == Some(frame.call) {
                found = Some((frame, waiting));
            } else {
                waiting.reply.send(Ok(frame)).ok();
            }
        }
        Poll::Ready(Ok(found))
    }
}

impl UnderWay {
    /// Forgets requests whose time is over. The connection is dead if nothing came since such a one was sent.
    fn is_dead(&mut self, heard: Instant) -> bool {
        let now = Instant::now();
        let dead = self.waiting.values().any(|w| w.deadline < now && heard < w.sent);
        self.waiting.retain(|_, w| w.deadline >= now);
        dead
    }
}

/// Gives a connection to callers for as long as somebody reads from it. Whoever waits for an answer when that ends learns that it
/// will not come.
struct Serving<'a> {
    target: &'a Target,
    live: Arc<Live>,
}

impl<'a> Serving<'a> {
    fn new(target: &'a Target, stream: TlsStream<TcpStream>) -> Self {
        let (channel, heard) = (Channel::new(stream), Instant::now());
        let traffic = Traffic { channel, under_way: UnderWay::default(), heard, over: false };
        let live = Arc::new(Live { traffic: Mutex::new(traffic), attention: Notify::new() });
        *lock(&target.live) = Some(Arc::clone(&live));
        Self { target, live }
    }

    fn traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        lock(&self.live.traffic)
    }
}

/// Until the connection ends.
async fn serve(target: &Target, stream: TlsStream<TcpStream>, first: Call, calls: &mut mpsc::Receiver<Call>) {
    let serving = Serving::new(target, stream);
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    serving.traffic().send(first);
    loop {
        let room = {
            let traffic = serving.traffic();
            if traffic.over {
                return;
            }
            traffic.has_room()
        };
        tokio::select! {
            biased;
            call = calls.recv(), if room => {
                let Some(call) = call else { return };
                let mut traffic = serving.traffic();
                traffic.send(call);
                // Whatever is there already goes with it.
                while traffic.has_room() && let Ok(call) = calls.try_recv() {
                    traffic.send(call);
                }
            }
            read = poll_fn(|context| serving.traffic().read(context, None)) => {
                if read.is_err() {
                    return;
                }
            }
            () = serving.live.attention.notified() => {}
            _ = sweep.tick() => {
                let mut traffic = serving.traffic();
                let heard = traffic.heard;
                if traffic.under_way.is_dead(heard) {
                    return;
                }
            }
        }
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let mut live = lock(&self.target.live);
        // Another task may have begun where the runtime of this one ended.
        if live.as_ref().is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
            *live = None;
        }
        drop(live);
        let mut traffic = self.traffic();
        traffic.over = true;
        traffic.under_way.waiting.clear();
    }
}
