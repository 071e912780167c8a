//! Names of items, targets, roles and auth methods: paths with a leading slash.

use std::fmt;

/// A path such as `/prod/db/root`: starts with one slash, has no empty segment, at most 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemPath(String);

/// Why a text is no path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// Nothing but slashes.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than 512 bytes.
    #[error("a name must not be longer than 512 bytes")]
    TooLong,
    /// Holds a control character, which no path may.
    #[error("a name must not contain control characters")]
    Control,
    /// Holds `*`, which rule paths give a meaning.
    #[error("a name must not contain '*'")]
    Wildcard,
}

impl ItemPath {
    /// Longest path in bytes.
    pub const MAX: usize = 512;

    /// Accepts `a/b`, `/a/b` and `/a//b/`, and writes all of them `/a/b`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        if text.contains('*') {
            return Err(PathError::Wildcard);
        }
        let mut path = String::with_capacity(text.len() + 1);
        for segment in text.split('/').filter(|segment| !segment.is_empty()) {
            path.push('/');
            path.push_str(segment);
        }
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        if path.len() > Self::MAX {
            return Err(PathError::TooLong);
        }
        Ok(Self(path))
    }

    /// Whether `text` is written as [`Self::parse`] would write it. A text with other letters than ASCII may be one and yet not
    /// be found to be.
    #[must_use]
    pub fn is_plain(text: &str) -> bool {
        let mut before = b'x';
        let plain = text.len() <= Self::MAX
            && text.bytes().enumerate().all(|(n, byte)| {
                let fits = if n == 0 { byte == b'/' } else { !(byte == b'/' && before == b'/') };
                before = byte;
                fits && byte != b'*' && matches!(byte, b' '..=b'~')
            });
        plain && text.len() > 1 && before != b'/'
    }

    /// The path with its leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_is_the_same_path() {
        for text in ["a/b", "/a/b", "//a//b/"] {
            assert_eq!(ItemPath::parse(text).expect("valid").as_str(), "/a/b");
        }
    }

    #[test]
    fn bad_paths_are_named() {
        assert_eq!(ItemPath::parse("//"), Err(PathError::Empty));
        assert_eq!(ItemPath::parse("/a\n"), Err(PathError::Control));
        assert_eq!(ItemPath::parse("/a/*"), Err(PathError::Wildcard));
        assert_eq!(ItemPath::parse(&"x".repeat(600)), Err(PathError::TooLong));
    }
}
