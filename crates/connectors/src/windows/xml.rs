//! As much of XML as the answers of Windows Remote Management need: elements by their local name, with attributes and text.

/// One element: what stands in its start tag, and what stands between its tags.
pub(super) struct Element<'a> {
    tag: &'a str,
    /// The content, as it is written.
    pub(super) text: &'a str,
}

impl Element<'_> {
    /// An attribute's value, as it is written.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let mut rest = self.tag;
        while let Some(at) = rest.find(name) {
            let (before, after) = (&rest[..at], &rest[at + name.len()..]);
            if before.ends_with([' ', '\t', '\n', '\r', ':'])
                && let Some(value) = after.trim_start().strip_prefix('=').map(str::trim_start)
                && let Some(quote) = value.chars().next().filter(|quote| ['"', '\''].contains(quote))
            {
                return value[1..].split(quote).next();
            }
            rest = after;
        }
        None
    }
}

/// Every element of this local name, in order; nested ones of the same name do not occur here.
pub(super) fn elements<'a>(xml: &'a str, name: &'a str) -> impl Iterator<Item = Element<'a>> {
    let mut rest = xml;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find('<')?;
            let after = &rest[start + 1..];
            let end = after.find('>')?;
            let (tag, content) = (&after[..end], &after[end + 1..]);
            rest = content;
            let full = tag.split([' ', '\t', '\r', '\n', '/']).next().unwrap_or_default();
            if full.rsplit(':').next() != Some(name) || tag.starts_with('/') {
                continue;
            }
            if tag.ends_with('/') {
                return Some(Element { tag, text: "" });
            }
            let close = content.find(&format!("</{full}>"))?;
            return Some(Element { tag, text: &content[..close] });
        }
    })
}

/// The text of the first element of this local name.
pub(super) fn text<'a>(xml: &'a str, name: &'a str) -> Option<&'a str> {
    elements(xml, name).next().map(|element| element.text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_their_local_name() {
        let xml = "<?xml version='1.0'?><s:Body><rsp:Stream Name=\"stdout\" CommandId='7'>QQ==</rsp:Stream>\
                   <rsp:Stream CommandId=\"7\" Name=\"stderr\" End=\"true\"/><rsp:CommandState State='Done'>\
                   <rsp:ExitCode>3</rsp:ExitCode></rsp:CommandState></s:Body>";
        let streams: Vec<_> =
            elements(xml, "Stream").map(|e| (e.attribute("Name").map(str::to_owned), e.text)).collect();
        assert_eq!(streams, [(Some("stdout".into()), "QQ=="), (Some("stderr".into()), "")]);
        assert_eq!(text(xml, "ExitCode"), Some("3"));
        assert_eq!(text(xml, "Missing"), None);
        assert_eq!(text("<a", "a"), None);
        assert_eq!(text("<a>unfinished", "a"), None);
    }
}
