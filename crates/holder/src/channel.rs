//! Reading and writing frames on one connection at the same time, in one task.
//!
//! What must stay true: dropping the future of [`Channel::turn`] loses nothing, so it may stand in a `select!`; both buffers are
//! bounded; both are wiped.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroizing;

use crate::wire::{self, Frame, Kind};

/// While more than this waits to be written, nothing is added.
const ENOUGH_WAITING: usize = 256 * 1024;
/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// What a turn does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    ReadAndWrite,
    /// For as long as nothing more can be taken in.
    Write,
}

/// A connection with its buffers.
pub(crate) struct Channel<S> {
    stream: S,
    chunk: Zeroizing<Vec<u8>>,
    inbound: Zeroizing<Vec<u8>>,
    /// How much of `inbound` was parsed already.
    parsed: usize,
    outbound: Zeroizing<Vec<u8>>,
    written: usize,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            chunk: Zeroizing::new(vec![0; CHUNK]),
            inbound: Zeroizing::default(),
            parsed: 0,
            outbound: Zeroizing::default(),
            written: 0,
            unflushed: false,
        }
    }

    /// Queues a frame; it is written by the next turns.
    pub(crate) fn send(&mut self, kind: Kind, call: u32, body: &[u8]) -> anyhow::Result<()> {
        wire::append(&mut self.outbound, kind, call, body)
    }

    /// Whether another frame should be queued now.
    pub(crate) fn has_room(&self) -> bool {
        self.outbound.len() - self.written < ENOUGH_WAITING
    }

    /// Whether something waits to be written.
    pub(crate) fn is_writing(&self) -> bool {
        self.written < self.outbound.len() || self.unflushed
    }

    /// Whether something waits to be written, or a frame is here in part.
    pub(crate) fn is_midway(&self) -> bool {
        self.is_writing() || self.parsed < self.inbound.len()
    }

    /// The next frame that was read.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        match wire::parse(&self.inbound[self.parsed..])? {
            Some((frame, length)) => {
                self.parsed += length;
                Ok(Some(frame))
            }
            None => {
                self.inbound.drain(..self.parsed);
                self.parsed = 0;
                Ok(None)
            }
        }
    }

    /// Writes what waits. When reading too it ends as soon as something was read, else when all is written.
    ///
    /// # Errors
    /// The connection is closed or broken.
    pub(crate) async fn turn(&mut self, turn: Turn) -> io::Result<()> {
        poll_fn(|context| match turn {
            Turn::ReadAndWrite => self.poll_turn(context),
            Turn::Write if self.is_writing() => self.poll_write(context),
            Turn::Write => Poll::Pending,
        })
        .await
    }

    /// As [`Self::turn`] with reading.
    pub(crate) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_write(context) {
            return Poll::Ready(Err(error));
        }
        let mut buffer = ReadBuf::new(&mut self.chunk);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.inbound.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    /// Writes what waits; ends when all is written.
    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.outbound.len() {
            let rest = &self.outbound[self.written..];
            let n = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.unflushed = true;
        }
        self.outbound.clear();
        self.written = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
