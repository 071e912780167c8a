//! The little of DER that Kerberos and SPNEGO messages need; the reader never looks beyond what it was given.

/// An element with this tag around `content`.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 0x80 {
        out.push(u8::try_from(length).unwrap_or(0x7f));
    } else {
        let bytes = length.to_be_bytes();
        let used = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1)..];
        out.push(0x80 | u8::try_from(used.len()).unwrap_or(8));
        out.extend_from_slice(used);
    }
    out.extend_from_slice(content);
    out
}

/// `[n] EXPLICIT`.
pub(crate) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    element(0xa0 | number, content)
}

/// `SEQUENCE` of elements that are already encoded.
pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// `OCTET STRING`.
pub(crate) fn octets(bytes: &[u8]) -> Vec<u8> {
    element(0x04, bytes)
}

/// `INTEGER` that is not negative.
pub(crate) fn integer(value: u32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let used = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(3)..];
    let padded = if used[0] & 0x80 == 0 { used.to_vec() } else { [&[0], used].concat() };
    element(0x02, &padded)
}

/// `GeneralString`.
pub(crate) fn general_string(text: &str) -> Vec<u8> {
    element(0x1b, text.as_bytes())
}

/// `GeneralizedTime`.
pub(crate) fn time(text: &str) -> Vec<u8> {
    element(0x18, text.as_bytes())
}

/// The first element: its tag, its content, and what follows it.
pub(crate) fn read(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, first) = (*input.first()?, *input.get(1)?);
    let (length, start) = if first < 0x80 {
        (usize::from(first), 2)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let bytes = input.get(2..2 + count)?;
        (bytes.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)), 2 + count)
    };
    let end = start.checked_add(length)?;
    Some((tag, input.get(start..end)?, input.get(end..)?))
}

/// The content of the first element if it has this tag.
pub(crate) fn content(input: &[u8], tag: u8) -> Option<&[u8]> {
    read(input).filter(|(found, _, _)| *found == tag).map(|(_, content, _)| content)
}

/// The content of `[n]` among the elements of a sequence's content.
pub(crate) fn field(mut elements: &[u8], number: u8) -> Option<&[u8]> {
    // Every element takes two bytes at least, so that this ends.
    while let Some((tag, content, rest)) = read(elements) {
        if tag == 0xa0 | number {
            return Some(content);
        }
        elements = rest;
    }
    None
}

/// The elements of a sequence's content, each with its tag.
pub(crate) fn elements(mut input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = read(input)?;
        input = rest;
        Some((tag, content))
    })
}

/// A small `INTEGER`.
pub(crate) fn number(input: &[u8]) -> Option<u32> {
    let bytes = content(input, 0x02)?;
    let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
    if bytes.len() > 4 {
        return None;
    }
    Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let long = vec![7_u8; 300];
        let whole = sequence(&[explicit(1, &integer(0x80)), explicit(2, &octets(&long))]);
        let inner = content(&whole, 0x30).expect("a sequence");
        assert_eq!(field(inner, 1).and_then(number), Some(0x80));
        assert_eq!(field(inner, 2).and_then(|f| content(f, 0x04)), Some(&long[..]));
        assert_eq!(field(inner, 3), None);
        for cut in 0..whole.len() {
            assert!(content(&whole[..cut], 0x30).is_none(), "{cut}");
        }
        assert_eq!(read(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
    }
}
