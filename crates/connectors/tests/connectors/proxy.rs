//! A proxy between us and a peer that cuts, delays and swallows.
//!
//! What must stay true: it knows no protocol. It counts the pieces that we send and acts on them, so that every place at which a
//! conversation can break is reached by counting up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

/// What the proxy does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Everything arrives.
    Pass,
    /// Connections end as soon as something is sent on them, and new ones at once.
    Cut,
    /// What we send arrives; what the peer answers does not, and then the connection ends.
    Deaf,
    /// Nothing arrives on either side and nothing ends.
    Hole,
    /// Everything arrives late.
    Slow,
}

/// Where a conversation breaks, by the pieces we send on all connections together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The piece of this number never arrives.
    Before(i64),
    /// It arrives, and no answer comes back.
    After(i64),
}

struct Switch {
    mode: AtomicU8,
    /// Pieces until the break; negative when none is set.
    left: AtomicI64,
    deliver: AtomicBool,
    broke: watch::Sender<bool>,
}

/// A proxy before one peer.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    switch: Arc<Switch>,
}

impl Proxy {
    /// Starts before the peer at `to`.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has one");
        let switch = Arc::new(Switch::new());
        let shared = Arc::clone(&switch);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.is(Mode::Cut) || *shared.broke.borrow() {
                    continue;
                }
                // A peer that is down ends the connection.
                let Ok(server) = TcpStream::connect(to).await else { continue };
                let (client, server) = (client.into_split(), server.into_split());
                tokio::spawn(pump(client.0, server.1, Arc::clone(&shared), Side::Ours));
                tokio::spawn(pump(server.0, client.1, Arc::clone(&shared), Side::Peers));
            }
        });
        Self { address, switch }
    }

    /// The same before a peer that is spoken with in datagrams: each is a piece, and what does not arrive is lost in silence.
    pub async fn start_for_datagrams(to: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("binds"));
        let address = socket.local_addr().expect("has one");
        let switch = Arc::new(Switch::new());
        tokio::spawn(carry(socket, to, Arc::clone(&switch)));
        Self { address, switch }
    }

    /// From now on does this.
    pub fn set(&self, mode: Mode) {
        self.switch.left.store(-1, Ordering::SeqCst);
        self.switch.broke.send_replace(false);
        self.switch.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Breaks once, everything, at a piece counted from now; nothing gets through afterwards until [`Self::set`].
    pub fn break_at(&self, place: Break) {
        self.set(Mode::Pass);
        let (number, deliver) = match place {
            Break::Before(number) => (number, false),
            Break::After(number) => (number, true),
        };
        self.switch.deliver.store(deliver, Ordering::SeqCst);
        self.switch.left.store(number, Ordering::SeqCst);
    }

    /// Whether the break asked for was reached.
    pub fn broke(&self) -> bool {
        *self.switch.broke.borrow()
    }
}

impl Switch {
    fn new() -> Self {
        Self {
            mode: AtomicU8::new(Mode::Pass as u8),
            left: AtomicI64::new(-1),
            deliver: AtomicBool::new(false),
            broke: watch::channel(false).0,
        }
    }

    /// Whether nothing gets through now.
    fn is_closed(&self) -> bool {
        *self.broke.borrow() || self.is(Mode::Cut) || self.is(Mode::Hole)
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }

    /// Whether the piece at hand is the one to break at.
    fn reached(&self) -> bool {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| (left >= 0).then(|| left - 1));
        left == Ok(0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Peers,
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, switch: Arc<Switch>, side: Side) {
    let mut bytes = vec![0; 16 * 1024];
    let mut broke = switch.broke.subscribe();
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            () = async { drop(broke.wait_for(|broke| *broke).await) } => {
                // What the peer answers is swallowed, while it still works on what it got.
                if side == Side::Peers {
                    let _ = tokio::time::timeout(LINGER, from.read(&mut bytes)).await;
                }
                return;
            }
        };
        let Ok(n @ 1..) = read else { return };
        if side == Side::Ours && switch.reached() {
            // Before it arrives: otherwise the answer could come through, and the break after everything is over.
            switch.broke.send_replace(true);
            if switch.deliver.load(Ordering::SeqCst) {
                let _ = to.write_all(&bytes[..n]).await;
                let _ = to.flush().await;
                tokio::time::sleep(LINGER).await;
            }
            return;
        }
        if switch.is(Mode::Cut) {
            return;
        }
        if switch.is(Mode::Deaf) && side == Side::Peers {
            // Long enough for the peer to do what it was told.
            tokio::time::sleep(Duration::from_secs(2)).await;
            return;
        }
        if switch.is(Mode::Hole) {
            continue;
        }
        if switch.is(Mode::Slow) {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

/// Carries datagrams to and fro, with a socket of its own for everyone who sends.
async fn carry(socket: Arc<UdpSocket>, to: SocketAddr, switch: Arc<Switch>) {
    let mut ways = std::collections::HashMap::<SocketAddr, Arc<UdpSocket>>::new();
    let mut bytes = vec![0; 16 * 1024];
    while let Ok((n, from)) = socket.recv_from(&mut bytes).await {
        if switch.is_closed() {
            continue;
        }
        let reached = switch.reached();
        if reached {
            switch.broke.send_replace(true);
        }
        if reached && !switch.deliver.load(Ordering::SeqCst) {
            continue;
        }
        let way = match ways.get(&from) {
            Some(way) => Arc::clone(way),
            None => {
                let way = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("binds"));
                way.connect(to).await.expect("connects");
                tokio::spawn(bring_back(Arc::clone(&way), Arc::clone(&socket), from, Arc::clone(&switch)));
                ways.insert(from, Arc::clone(&way));
                way
            }
        };
        if switch.is(Mode::Slow) {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let _ = way.send(&bytes[..n]).await;
    }
}

async fn bring_back(way: Arc<UdpSocket>, socket: Arc<UdpSocket>, from: SocketAddr, switch: Arc<Switch>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(n) = way.recv(&mut bytes).await {
        if !switch.is_closed() && !switch.is(Mode::Deaf) {
            let _ = socket.send_to(&bytes[..n], from).await;
        }
    }
}

/// How long the peer's side of a broken connection stays open.
const LINGER: Duration = Duration::from_millis(700);
