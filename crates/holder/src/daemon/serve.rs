//! One connection of a holder: who it is, and its requests, several at a time.
//!
//! What must stay true: a peer that is not in the roster is not heard; a peer that stalls is dropped; requests under way and bytes
//! waiting are bounded, after which nothing more is read.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::evaluate::Outcome;
use super::{Holder, PATIENCE, Peer};
use crate::channel::{Channel, Turn};
use crate::roster::pin;
use crate::wire::{Frame, Kind};

/// Requests of one connection under way at once; beyond this nothing is read.
const UNDER_WAY: usize = 64;
/// A connection on which nothing was asked for so long is closed; gateways ask every minute.
const IDLE: Duration = Duration::from_secs(15 * 60);

type Answered = (u32, Kind, Vec<u8>);

pub(super) async fn serve(holder: &Arc<Holder>, acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = timeout(PATIENCE, acceptor.accept(stream)).await.context("no handshake in time")??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).context("no certificate")?;
    let shown = pin(certificate);
    let peer = match holder.roster.holder_of(&shown) {
        Some(index) => Peer::Holder(index),
        None => {
            let place = holder.roster.gateways.iter().position(|pin| *pin == shown);
            Peer::Gateway(place.context("a peer that is not in the roster")?)
        }
    };
    let (done, answered) = mpsc::channel(UNDER_WAY);
    let channel = Channel::new(stream);
    Conversation { holder: Arc::clone(holder), peer, channel, done, answered, under_way: 0 }.run().await
}

struct Conversation {
    holder: Arc<Holder>,
    peer: Peer,
    channel: Channel<TlsStream<TcpStream>>,
    done: mpsc::Sender<Answered>,
    answered: mpsc::Receiver<Answered>,
    under_way: usize,
}

impl Conversation {
    async fn run(mut self) -> Result<()> {
        let mut watch = tokio::time::interval(PATIENCE);
        let (mut moved, mut heard) = (true, Instant::now());
        loop {
            let takes = self.under_way < UNDER_WAY && self.channel.has_room();
            let turn = if takes { Turn::ReadAndWrite } else { Turn::Write };
            tokio::select! {
                biased;
                Some((call, kind, body)) = self.answered.recv(), if self.under_way > 0 => {
                    self.under_way -= 1;
                    self.channel.send(kind, call, &body)?;
                    continue;
                }
                done = self.channel.turn(turn) => {
                    done?;
                    if turn == Turn::ReadAndWrite {
                        heard = Instant::now();
                        self.receive()?;
                    }
                }
                _ = watch.tick() => {
                    let stalls = self.channel.is_midway() && !moved;
                    if stalls || self.under_way == 0 && heard.elapsed() > IDLE {
                        bail!("the peer stalls");
                    }
                    moved = false;
                    continue;
                }
            }
            moved = true;
        }
    }

    /// Takes the frames that are there. A single evaluation is answered on the spot; several are shared among the processors.
    fn receive(&mut self) -> Result<()> {
        let mut current = self.channel.next()?;
        while let Some(frame) = current {
            current = self.channel.next()?;
            if frame.kind == Kind::Eval && current.is_none() && self.under_way == 0 {
                let (call, kind, body) = answer_evaluation(&self.holder, self.peer, &frame);
                self.channel.send(kind, call, &body)?;
                continue;
            }
            self.under_way += 1;
            let (holder, peer, done) = (Arc::clone(&self.holder), self.peer, self.done.clone());
            tokio::spawn(async move {
                let answer = match frame.kind {
                    Kind::Eval => answer_evaluation(&holder, peer, &frame),
                    _ => answer_request(&holder, peer, &frame).await,
                };
                done.send(answer).await.ok();
            });
        }
        Ok(())
    }
}

fn answer_evaluation(holder: &Holder, peer: Peer, frame: &Frame) -> Answered {
    let answer = match peer {
        Peer::Gateway(place) => holder.evaluate(place, &frame.body),
        Peer::Holder(_) => Err(anyhow::anyhow!("this peer may not ask that")),
    };
    match answer {
        Ok(Outcome::Stale(body)) => (frame.call, Kind::Stale, body),
        Ok(Outcome::Unauthorized(why)) => (frame.call, Kind::Unauthorized, why.into_bytes()),
        Ok(Outcome::Answers(body)) => (frame.call, Kind::Answers, body),
        Err(error) => refused(frame.call, &error),
    }
}

async fn answer_request(holder: &Holder, peer: Peer, frame: &Frame) -> Answered {
    let answer = async {
        if frame.kind != Kind::Request {
            bail!("this is no request");
        }
        let request = serde_json::from_slice(&frame.body).context("a request that is not understood")?;
        Ok(serde_json::to_vec(&holder.answer(peer, request).await?)?)
    };
    match answer.await {
        Ok(body) => (frame.call, Kind::Response, body),
        Err(error) => refused(frame.call, &error),
    }
}

fn refused(call: u32, error: &anyhow::Error) -> Answered {
    (call, Kind::Refused, format!("{error:#}").into_bytes())
}
