//! Just enough XML for the answers of AWS's query APIs, which have no attributes that matter and no mixed content.

/// The text of the first element of this name.
pub(super) fn text(xml: &str, name: &str) -> Option<String> {
    inner(xml, name).map(|(inside, _)| unescape(inside))
}

/// What is inside each element of this name; elements of one name are not nested in these answers.
pub(super) fn all<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (mut found, mut rest) = (Vec::new(), xml);
    while let Some((inside, after)) = inner(rest, name) {
        found.push(inside);
        rest = after;
    }
    found
}

fn inner<'a>(xml: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut from = 0;
    loop {
        let at = from + xml.get(from..)?.find(&open)?;
        let after = xml.get(at + open.len()..)?;
        // `<Arn` must not find `<ArnList>`.
        if !after.starts_with(['>', ' ', '/', '\n', '\r', '\t']) {
            from = at + open.len();
            continue;
        }
        let end = after.find('>')?;
        let body = after.get(end + 1..)?;
        if after.get(..end)?.ends_with('/') {
            return Some(("", body));
        }
        let stop = body.find(&close)?;
        return Some((body.get(..stop)?, body.get(stop + close.len()..)?));
    }
}

fn unescape(text: &str) -> String {
    let plain = text.trim().replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    plain.replace("&#39;", "'").replace("&#34;", "\"").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_their_whole_name() {
        let xml = "<R xmlns=\"x\"><ArnList><Arn>a&amp;&lt;b</Arn></ArnList><Empty/><m><K>1</K></m><m><K>2</K></m></R>";
        assert_eq!(text(xml, "Arn").as_deref(), Some("a&<b"));
        assert_eq!(text(xml, "Empty").as_deref(), Some(""));
        assert_eq!(text(xml, "Missing"), None);
        assert_eq!(all(xml, "m").into_iter().map(|m| text(m, "K").expect("one")).collect::<Vec<_>>(), ["1", "2"]);
        for broken in ["<Arn", "<Arn>", "<Arn>x</Ar", "</Arn>", "<Arn attr", ""] {
            assert_eq!(text(broken, "Arn"), None, "{broken}");
        }
    }
}
