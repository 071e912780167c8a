//! Frames and messages: a length of four bytes, then JSON. Bounded, strict, one answer per request.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest frame in bytes: 256 inputs of 1 KiB in hexadecimal fit.
const LONGEST: usize = 1024 * 1024;
/// Most inputs of one request.
pub(crate) const LARGEST_BATCH: usize = 256;

/// What is asked of a holder.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Request {
    /// Evaluate these inputs (gateways only).
    Eval { inputs: Vec<String>, want_proof: bool },
    /// What is known of a key (gateways only).
    KeyInfo { realm: String, key_id: u32 },
    /// Begin a generation; answers this holder's public package (gateways only, as coordinators).
    Round1 { realm: String, key_id: u32, session: String },
    /// Everybody's public packages; sends the secret packages to the other holders.
    Round2 { session: String, packages: BTreeMap<u8, String> },
    /// A secret package from another holder (holders only).
    Share { session: String, package: String },
    /// Compute and store the fragment; answers a signature of the transcript.
    Round3 { session: String },
    /// All signatures: from now on the key is used.
    Activate { realm: String, key_id: u32, transcript: String, signatures: BTreeMap<u8, String> },
}

/// What a holder answers.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Response {
    Answers { partials: Vec<String>, proof: Option<String> },
    Key(Option<KeyInfo>),
    Package(String),
    Signed { transcript: String, signature: String },
    Done,
    Refused(String),
}

/// A key as every holder tells it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyInfo {
    pub(crate) active: bool,
    pub(crate) transcript: String,
    pub(crate) publics: BTreeMap<u8, String>,
    pub(crate) signatures: BTreeMap<u8, String>,
}

impl KeyInfo {
    /// The bytes each holder signs: the transcript of the generation and the public shares that came of it.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        let publics = serde_json::to_vec(&self.publics).unwrap_or_default();
        [b"FDK-ack-v1", self.transcript.as_bytes(), publics.as_slice()].concat()
    }
}

pub(crate) async fn send<T: Serialize>(stream: &mut (impl AsyncWrite + Unpin), message: &T) -> Result<()> {
    let body = zeroize::Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(body.len()).context("the message is too long")?;
    let mut frame = zeroize::Zeroizing::new(Vec::with_capacity(body.len() + 4));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await?;
    stream.flush().await?;
    Ok(())
}

/// The next message; `None` if the peer closed the connection between two.
pub(crate) async fn receive<T: for<'a> Deserialize<'a>>(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<T>> {
    let mut length = [0; 4];
    if stream.read_exact(&mut length).await.is_err() {
        return Ok(None);
    }
    let length = usize::try_from(u32::from_be_bytes(length))?;
    if length > LONGEST {
        bail!("a frame of {length} bytes is too long");
    }
    let mut body = zeroize::Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}
