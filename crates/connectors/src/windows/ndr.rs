//! Remote procedure calls over a pipe (DCE/RPC, NDR 32 bits): as much as the account database needs.

use volvelle_domain::connector::{Failure, FailureClass};

use super::smb::Pipe;

/// Largest fragment that is agreed on; calls here are smaller.
const FRAGMENT: u16 = 4280;
/// NDR, version 2.
const NDR: [u8; 20] =
    [0x04, 0x5d, 0x88, 0x8a, 0xeb, 0x1c, 0xc9, 0x11, 0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48, 0x60, 2, 0, 0, 0];

fn strange(what: impl std::fmt::Display) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the host's answer to a remote call cannot be used: {what}"), "")
}

/// A pipe on which an interface was agreed.
pub(super) struct Rpc {
    pub(super) pipe: Pipe,
    number: u32,
}

impl Rpc {
    /// Agrees on an interface (identifier and version, as on the wire).
    pub(super) async fn bind(mut pipe: Pipe, interface: [u8; 20]) -> Result<Self, Failure> {
        let mut body = [FRAGMENT, FRAGMENT].map(u16::to_le_bytes).concat();
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&[1, 0, 0, 0, 0, 0, 1, 0]);
        body.extend_from_slice(&interface);
        body.extend_from_slice(&NDR);
        let answer = pipe.exchange(&packet(11, 1, &body)).await?;
        // After the secondary address, padded to four bytes, come the results.
        let accepted = || -> Option<bool> {
            let length = usize::from(u16::from_le_bytes(answer.get(24..26)?.try_into().ok()?));
            let results = (26 + length).div_ceil(4) * 4;
            Some(answer.get(2) == Some(&12) && answer.get(results + 4..results + 6)? == [0, 0])
        };
        match accepted() {
            Some(true) => Ok(Self { pipe, number: 1 }),
            _ => Err(strange("it refuses the interface")),
        }
    }

    /// Calls an operation; gives the marshalled result.
    pub(super) async fn call(&mut self, operation: u16, stub: &Writer) -> Result<Reader, Failure> {
        self.number += 1;
        let mut body = u32::try_from(stub.0.len()).unwrap_or(0).to_le_bytes().to_vec();
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&operation.to_le_bytes());
        body.extend_from_slice(&stub.0);
        let answer = self.pipe.exchange(&packet(0, self.number, &body)).await?;
        match answer.get(2) {
            // The last fragment that is also the first.
            Some(2) if answer.get(3).is_some_and(|flags| flags & 3 == 3) => {
                Ok(Reader { bytes: answer.get(24..).unwrap_or_default().to_vec(), at: 0 })
            }
            Some(3) => {
                let status = answer.get(24..28).and_then(|s| s.try_into().ok()).map_or(0, u32::from_le_bytes);
                match status {
                    5 => Err(Failure::new(
                        FailureClass::Privilege,
                        "the host refuses the remote call: access denied",
                        "use an account of the host's Administrators group",
                    )),
                    other => Err(strange(format_args!("fault {other:08x}"))),
                }
            }
            _ => Err(strange("it comes in pieces")),
        }
    }
}

fn packet(kind: u8, number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = vec![5, 0, kind, 3, 0x10, 0, 0, 0];
    out.extend_from_slice(&u16::try_from(16 + body.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// Marshalled parameters.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn align(&mut self, to: usize) -> &mut Self {
        self.0.resize(self.0.len().div_ceil(to) * to, 0);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn short(&mut self, value: u16) -> &mut Self {
        self.align(2).bytes(&value.to_le_bytes())
    }

    pub(super) fn long(&mut self, value: u32) -> &mut Self {
        self.align(4).bytes(&value.to_le_bytes())
    }

    /// A pointer that is not null.
    pub(super) fn pointer(&mut self) -> &mut Self {
        let place = u32::try_from(self.0.len()).unwrap_or(0);
        self.long(0x0002_0000 | place << 2)
    }

    /// Lengths and pointer of a string; its characters follow later.
    pub(super) fn string_head(&mut self, text: &str) -> &mut Self {
        let length = u16::try_from(text.encode_utf16().count() * 2).unwrap_or(u16::MAX);
        self.align(4).short(length).short(length).pointer()
    }

    /// The characters of a string.
    pub(super) fn string_body(&mut self, text: &str) -> &mut Self {
        let units: Vec<u16> = text.encode_utf16().collect();
        let count = u32::try_from(units.len()).unwrap_or(0);
        self.long(count).long(0).long(count);
        for unit in units {
            self.short(unit);
        }
        self
    }
}

/// A marshalled result; whatever is not there is a protocol failure.
pub(super) struct Reader {
    bytes: Vec<u8>,
    at: usize,
}

impl Reader {
    pub(super) fn align(&mut self, to: usize) -> &mut Self {
        self.at = self.at.div_ceil(to) * to;
        self
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&[u8], Failure> {
        let end = self.at.checked_add(length).ok_or_else(|| strange("its length"))?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(|| strange("it is too short"))?;
        self.at = end;
        Ok(bytes)
    }

    pub(super) fn short(&mut self) -> Result<u16, Failure> {
        let bytes = self.align(2).take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn long(&mut self) -> Result<u32, Failure> {
        let bytes = self.align(4).take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// The status at the end of every result.
    pub(super) fn status(&self) -> u32 {
        let end = self.bytes.len().checked_sub(4).and_then(|at| self.bytes.get(at..));
        end.and_then(|bytes| bytes.try_into().ok()).map_or(u32::MAX, u32::from_le_bytes)
    }

    pub(super) fn handle(&mut self) -> Result<[u8; 20], Failure> {
        let bytes = self.align(4).take(20)?;
        bytes.try_into().map_err(|_| strange("no handle"))
    }

    /// The characters of a string whose head was read before.
    pub(super) fn string_body(&mut self) -> Result<String, Failure> {
        let (_, _, count) = (self.long()?, self.long()?, self.long()?);
        if count > 1024 {
            return Err(strange("a name is too long"));
        }
        let mut units = Vec::new();
        for _ in 0..count {
            units.push(self.short()?);
        }
        Ok(String::from_utf16_lossy(&units))
    }
}
