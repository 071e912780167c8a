//! Burying deleted versions when a gateway says so, and learning from other holders what was buried while this one was away.
//!
//! What must stay true: what a gateway may bury is bounded by its policy and a budget, and stands in the log before it is done; a mark
//! told by other holders counts only if as many of them tell it as are needed for an answer, so that fewer can destroy nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use volvelle_fragments::Input;
use volvelle_fragments::place::PROBE;

use super::{Holder, PATIENCE};
use crate::channel::{Channel, Turn};
use crate::eval::{Answer, LARGEST_BATCH};
use crate::log::{Entry, Line};
use crate::roster::Member;
use crate::tls;
use crate::tombstones::{Mark, Sum, mark};
use crate::wire::{Kind, Request, Response};

/// Marks told in one answer.
const PAGE: usize = 1000;
/// Most answers that one holder is asked for in a row: a hundred million marks.
const PAGES: usize = 100_000;
/// When the others are asked after the start, and then as long as not all of them answered.
const SOON: Duration = Duration::from_secs(10);
/// When they are asked otherwise.
const LATER: Duration = Duration::from_secs(600);

/// What the others said they have, and what this one had, when everything they agree on was taken over.
type Compared = (Sum, BTreeMap<u8, Sum>);

impl Holder {
    /// Buries the versions of these inputs. Whoever asks again gets the same answer.
    pub(super) fn bury(&self, gateway: usize, realm: &str, inputs: &[String]) -> Result<Response> {
        ensure!((1..=LARGEST_BATCH).contains(&inputs.len()), "a burial has 1 to {LARGEST_BATCH} inputs");
        let guard = self.guards.get(gateway).context("the gateway is not in the roster")?;
        let (mut marks, mut lines) = (Vec::new(), Vec::new());
        let mut statuses = Vec::with_capacity(inputs.len());
        for x in inputs {
            let parsed = hex::decode(x).ok().and_then(|x| Input::parse(&x).ok());
            let input = parsed.filter(|input| hex::encode(input.place.realm) == realm && input.place.purpose != PROBE);
            let Some(input) = input else {
                statuses.push(Answer::Bad.word().to_owned());
                lines.push(Line::unread());
                continue;
            };
            let mark = mark(&input);
            let known = self.tombstones.contains(&mark)?;
            let refused = if known { None } else { guard.refuses_burial(&input) };
            let status = refused.map_or("buried", Answer::word);
            statuses.push(status.to_owned());
            if !known {
                lines.push(Line::of(input.place, status));
            }
            if refused.is_none() {
                marks.push(mark);
            }
        }
        if !lines.is_empty() {
            let gateway = self.roster.gateways.get(gateway).context("the gateway is not in the roster")?;
            self.log.append(Entry::of_burial(gateway, realm, lines))?;
        }
        self.tombstones.add(&marks)?;
        Ok(Response::Buried(statuses))
    }

    pub(super) fn tombstones_after(&self, after: Option<&str>) -> Result<Response> {
        let after = after.map(parse_mark).transpose()?;
        let Sum { count, digest } = self.tombstones.sum();
        let marks = self.tombstones.page(after.as_ref(), PAGE)?.iter().map(hex::encode).collect();
        Ok(Response::Tombstones { marks, count, digest: hex::encode(digest) })
    }

    /// Takes over what enough of the others have. Whether all of them were asked.
    async fn catch_up(&self, compared: &mut Option<Compared>) -> Result<bool> {
        let others: Vec<&Member> = self.roster.holders.iter().filter(|h| h.index != self.config.index).collect();
        let needed = usize::from(self.roster.threshold).min(others.len());
        let mut sources = Vec::new();
        for other in &others {
            match Source::begin(self, other).await {
                Ok(source) => sources.push(source),
                Err(error) => tracing::debug!(holder = other.index, error = format!("{error:#}"), "no tombstones told"),
            }
        }
        let (own, all) = (self.tombstones.sum(), sources.len() == others.len());
        let told: BTreeMap<u8, Sum> = sources.iter().map(|source| (source.index, source.sum)).collect();
        let news = told.values().any(|sum| *sum != own) && compared.as_ref() != Some(&(own, told.clone()));
        if sources.len() < needed || !news {
            return Ok(all);
        }
        let (mut taken, mut agreed) = (0, Vec::new());
        while let Some(least) = least(&mut sources).await? {
            let mut tell = 0;
            for source in &mut sources {
                if source.marks.front() == Some(&least) {
                    source.marks.pop_front();
                    tell += 1;
                }
            }
            if tell >= needed && !self.tombstones.contains(&least)? {
                agreed.push(least);
            }
            if agreed.len() >= PAGE {
                taken += self.tombstones.add(&std::mem::take(&mut agreed))?;
            }
        }
        taken += self.tombstones.add(&agreed)?;
        if taken > 0 {
            tracing::info!(taken, "tombstones were taken over from the other holders");
        }
        *compared = Some((self.tombstones.sum(), told));
        Ok(all)
    }
}

/// The least mark that any of the sources tells next.
async fn least(sources: &mut [Source]) -> Result<Option<Mark>> {
    let mut least: Option<Mark> = None;
    for source in sources {
        source.fill().await?;
        if let Some(next) = source.marks.front() {
            least = Some(least.map_or(*next, |least| least.min(*next)));
        }
    }
    Ok(least)
}

/// Compares with the others for ever: soon after the start and while one of them is away, then now and then.
pub(super) async fn follow(holder: &Arc<Holder>) {
    let (mut pause, mut compared) = (Duration::from_secs(1), None);
    loop {
        tokio::time::sleep(pause).await;
        pause = match holder.catch_up(&mut compared).await {
            Ok(true) => LATER,
            Ok(false) => LATER.min(SOON.max(pause * 2)),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "tombstones cannot be taken over from the other holders");
                LATER.min(SOON.max(pause * 2))
            }
        };
    }
}

/// Another holder that tells its marks, page by page, in order.
struct Source {
    index: u8,
    channel: Channel<TlsStream<TcpStream>>,
    sum: Sum,
    marks: VecDeque<Mark>,
    last: Option<Mark>,
    pages: usize,
    ended: bool,
}

impl Source {
    async fn begin(holder: &Holder, member: &Member) -> Result<Self> {
        let connector = TlsConnector::from(tls::client(&holder.config.identity, member.pin.clone())?);
        let connect = async {
            let stream = TcpStream::connect(&member.address).await?;
            anyhow::Ok(connector.connect("holder".try_into()?, stream).await?)
        };
        let stream = tokio::time::timeout(PATIENCE, connect).await.context("no connection in time")??;
        let (channel, sum, marks) = (Channel::new(stream), Sum::default(), VecDeque::new());
        let mut source = Self { index: member.index, channel, sum, marks, last: None, pages: 0, ended: false };
        source.fill().await?;
        Ok(source)
    }

    /// Sees to it that the next mark is there, if there is one.
    async fn fill(&mut self) -> Result<()> {
        if self.ended || !self.marks.is_empty() {
            return Ok(());
        }
        let page = tokio::time::timeout(PATIENCE, self.ask()).await.context("no answer in time")??;
        let Response::Tombstones { marks, count, digest } = page else { bail!("an answer to another question") };
        if self.pages == 0 {
            self.sum = Sum { count, digest: parse_mark(&digest)? };
        }
        self.pages += 1;
        self.ended = marks.len() < PAGE || self.pages >= PAGES;
        for text in &marks {
            let mark = parse_mark(text)?;
            ensure!(self.last.is_none_or(|last| last < mark), "holder {} tells marks out of order", self.index);
            self.last = Some(mark);
            self.marks.push_back(mark);
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<Response> {
        let request = Request::Tombstones { after: self.last.map(hex::encode) };
        self.channel.send(Kind::Request, 1, &serde_json::to_vec(&request)?)?;
        loop {
            self.channel.turn(Turn::ReadAndWrite).await?;
            let Some(frame) = self.channel.next()? else { continue };
            match frame.kind {
                Kind::Response => return Ok(serde_json::from_slice(&frame.body)?),
                Kind::Refused => bail!(String::from_utf8_lossy(&frame.body).into_owned()),
                _ => bail!("an unexpected answer"),
            }
        }
    }
}

fn parse_mark(text: &str) -> Result<Mark> {
    hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).context("a tombstone is 32 bytes")
}
