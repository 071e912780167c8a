//! AES with ciphertext stealing and Kerberos' derivation of keys (RFC 3961, RFC 3962).

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use zeroize::Zeroizing;

const BLOCK: usize = 16;

/// A key of 128 or 256 bits.
pub(super) struct Key(Zeroizing<Vec<u8>>);

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `DK(key, constant)`.
    pub(super) fn derived(&self, constant: &[u8]) -> Self {
        let mut block: [u8; BLOCK] = fold(constant);
        let mut out = Zeroizing::new(Vec::with_capacity(self.0.len() + BLOCK));
        while out.len() < self.0.len() {
            self.encrypt_block(&mut block);
            out.extend_from_slice(&block);
        }
        out.truncate(self.0.len());
        Self(out)
    }

    fn encrypt_block(&self, block: &mut [u8; BLOCK]) {
        let block: &mut Array<u8, _> = block.into();
        if let Ok(cipher) = Aes256::new_from_slice(&self.0) {
            cipher.encrypt_block(block);
        } else if let Ok(cipher) = Aes128::new_from_slice(&self.0) {
            cipher.encrypt_block(block);
        }
    }

    fn decrypt_block(&self, block: &mut [u8; BLOCK]) {
        let block: &mut Array<u8, _> = block.into();
        if let Ok(cipher) = Aes256::new_from_slice(&self.0) {
            cipher.decrypt_block(block);
        } else if let Ok(cipher) = Aes128::new_from_slice(&self.0) {
            cipher.decrypt_block(block);
        }
    }
}

/// The n-fold operation of RFC 3961 to one block.
fn fold(input: &[u8]) -> [u8; BLOCK] {
    if input.is_empty() {
        return [0; BLOCK];
    }
    let bits = input.len() * 8;
    let copies = BLOCK / greatest_common_divisor(BLOCK, input.len());
    let mut sum = [0_u8; BLOCK];
    let mut long = Vec::with_capacity(copies * input.len());
    for copy in 0..copies {
        // Each copy is the one before it, turned right by thirteen bits.
        let turn = 13 * copy % bits;
        for byte in 0..input.len() {
            let bit = (byte * 8 + bits - turn) % bits;
            let (high, low) = (input[bit / 8], input[(bit / 8 + 1) % input.len()]);
            let pair = u16::from_be_bytes([high, low]) << (bit % 8);
            long.push(pair.to_be_bytes()[0]);
        }
    }
    for chunk in long.chunks_exact(BLOCK) {
        add(&mut sum, chunk);
    }
    sum
}

/// Addition of big-endian numbers whose carry comes back at the low end.
fn add(sum: &mut [u8; BLOCK], other: &[u8]) {
    let mut carry = 0_u16;
    for (mine, theirs) in sum.iter_mut().zip(other).rev() {
        carry += u16::from(*mine) + u16::from(*theirs);
        [_, *mine] = carry.to_be_bytes();
        carry >>= 8;
    }
    for mine in sum.iter_mut().rev() {
        if carry == 0 {
            break;
        }
        carry += u16::from(*mine);
        [_, *mine] = carry.to_be_bytes();
        carry >>= 8;
    }
}

const fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn mix(block: &mut [u8; BLOCK], with: &[u8]) {
    for (mine, theirs) in block.iter_mut().zip(with) {
        *mine ^= theirs;
    }
}

/// CBC with ciphertext stealing and an initial vector of zeros; `plain` is longer than a block.
pub(super) fn encrypt(key: &Key, plain: &[u8]) -> Vec<u8> {
    let mut blocks: Vec<[u8; BLOCK]> = Vec::with_capacity(plain.len() / BLOCK + 1);
    let mut before = [0_u8; BLOCK];
    for chunk in plain.chunks(BLOCK) {
        mix(&mut before, chunk);
        key.encrypt_block(&mut before);
        blocks.push(before);
    }
    let count = blocks.len();
    if count > 1 {
        blocks.swap(count - 1, count - 2);
    }
    let mut out = blocks.concat();
    out.truncate(plain.len());
    out
}

/// The opposite of [`encrypt`].
pub(super) fn decrypt(key: &Key, text: &[u8]) -> Option<Vec<u8>> {
    let tail = match text.len() % BLOCK {
        0 => BLOCK,
        rest => rest,
    };
    let head = text.len().checked_sub(BLOCK + tail)?;
    let (mut out, mut before) = (Vec::with_capacity(text.len()), [0_u8; BLOCK]);
    for chunk in text[..head].chunks_exact(BLOCK) {
        let mut block: [u8; BLOCK] = chunk.try_into().ok()?;
        key.decrypt_block(&mut block);
        mix(&mut block, &before);
        out.extend_from_slice(&block);
        before = chunk.try_into().ok()?;
    }
    let mut last: [u8; BLOCK] = text[head..head + BLOCK].try_into().ok()?;
    key.decrypt_block(&mut last);
    let stolen = &text[head + BLOCK..];
    let mut second = last;
    second[..tail].copy_from_slice(stolen);
    mix(&mut last, stolen);
    key.decrypt_block(&mut second);
    mix(&mut second, &before);
    out.extend_from_slice(&second);
    out.extend_from_slice(&last[..tail]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_is_that_of_rfc_3961() {
        let hex = |bytes: [u8; 16]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(fold(b"kerberos")), "6b65726265726f737b9b5b2b93132b93");
    }

    #[test]
    fn stealing_is_that_of_rfc_3962() {
        let key = Key::new(b"chicken teriyaki");
        let text = b"I would like the General Gau's Chicken, please, and wonton soup.";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&encrypt(&key, &text[..17])), "c6353568f2bf8cb4d8a580362da7ff7f97");
        let whole = "97687268d6ecccc0c07b25e25ecfe5849dad8bbb96c4cdc03bc103e1a194bbd839312523a78662d5be7fcbcc98ebf5a8";
        assert_eq!(hex(&encrypt(&key, &text[..48])), whole);
        assert_eq!(decrypt(&key, &encrypt(&key, &text[..48])).as_deref(), Some(&text[..48]));
    }
}
