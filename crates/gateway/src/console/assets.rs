//! The console's files, part of the program: one page, one style sheet, modules and an icon.
//!
//! What must stay true: the page may load nothing but these files and talk to nobody but this gateway, and no text can become
//! markup or script.

use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, IF_NONE_MATCH};
use hyper::{Request, Response, StatusCode};
use sha2::{Digest, Sha256};

/// What a page of the console may do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      manifest-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../console/", $name)))),*]
    };
}

/// Every file but the page itself.
const FILES: &[(&str, &[u8])] = files![
    "app.css",
    "icon.svg",
    "main.js",
    "dom.js",
    "api.js",
    "time.js",
    "widgets.js",
    "form.js",
    "chart.js",
    "actions.js",
    "signin.js",
    "overview.js",
    "secrets.js",
    "secret.js",
    "edit.js",
    "targets.js",
    "access.js",
    "audit.js",
    "report.js",
];

const PAGE: &str = include_str!("../../console/index.html");

struct Asset {
    name: String,
    kind: &'static str,
    plain: Bytes,
    packed: Bytes,
    tag: String,
}

/// The files as they are served: the page first, then each under a path with the digest of all of them, so that they may be kept
/// for ever and are never mixed.
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let mut all = Sha256::new();
    for (name, content) in FILES {
        all.update(name);
        all.update(content);
    }
    let build = hex::encode(&all.finalize()[..6]);
    let preload: String = FILES
        .iter()
        .filter(|(name, _)| name.ends_with(".js"))
        .map(|(name, _)| format!("<link rel=\"modulepreload\" href=\"/console/{build}/{name}\">\n"))
        .collect();
    let page = PAGE.replace("<!-- modules -->", &preload).replace("{build}", &build);
    let mut assets = vec![made(String::new(), "text/html; charset=utf-8", page.into_bytes())];
    assets.extend(FILES.iter().map(|(name, content)| made(format!("{build}/{name}"), kind(name), content.to_vec())));
    assets
});

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        _ => "image/svg+xml",
    }
}

fn made(name: String, kind: &'static str, plain: Vec<u8>) -> Asset {
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&plain)[..12]));
    Asset { name, kind, packed: gzip(&plain, Compression::best()).into(), plain: plain.into(), tag }
}

fn gzip(plain: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

fn accepts_gzip(request: &Request<Incoming>) -> bool {
    let accepted = request.headers().get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').map(str::trim).any(|word| word == "gzip" || word.starts_with("gzip;q=1"))
}

/// The answer compressed, if the client likes that.
#[must_use]
pub fn packed(request: &Request<Incoming>, response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    if !accepts_gzip(request) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    // A full body is one frame that is there already.
    let plain = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::collect(body));
    let plain = plain.and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Response::from_parts(head, Full::new(gzip(&plain, Compression::fast()).into()))
}

/// The file at a path below `/console`; every path that is no file's is a place in the page.
#[must_use]
pub fn asset(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().strip_prefix("/console").unwrap_or_default().trim_matches('/');
    #[cfg(debug_assertions)]
    if let Some(fresh) = from_disk(path) {
        return answer(request, &fresh, "no-store");
    }
    let page = &ASSETS[0];
    match ASSETS.iter().find(|asset| asset.name == path) {
        Some(asset) if !path.is_empty() => answer(request, asset, "public, max-age=31536000, immutable"),
        // A file of another build is not there any more; the page would only confuse whoever asks for it.
        _ if path.rsplit('/').next().is_some_and(|last| last.ends_with(".js") || last.ends_with(".css")) => {
            let mut gone = Response::new(Full::default());
            *gone.status_mut() = StatusCode::NOT_FOUND;
            gone
        }
        _ => answer(request, page, "no-cache"),
    }
}

fn answer(request: &Request<Incoming>, asset: &Asset, cache: &'static str) -> Response<Full<Bytes>> {
    let known = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let fresh = known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == asset.tag));
    let body = match (fresh, accepts_gzip(request)) {
        (true, _) => Bytes::new(),
        (false, true) => asset.packed.clone(),
        (false, false) => asset.plain.clone(),
    };
    let mut response = Response::new(Full::new(body));
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else if accepts_gzip(request) {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    if let Ok(tag) = HeaderValue::from_str(&asset.tag) {
        headers.insert("etag", tag);
    }
    for (name, value) in [
        ("cache-control", cache),
        ("vary", "accept-encoding"),
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// While the console is being written: the file as it is in the folder that `VOLVELLE_CONSOLE_FOLDER` names, so that nothing has
/// to be built again. Not part of a release.
#[cfg(debug_assertions)]
fn from_disk(path: &str) -> Option<Asset> {
    let folder = std::path::PathBuf::from(std::env::var_os("VOLVELLE_CONSOLE_FOLDER")?);
    match path.strip_prefix("disk/") {
        Some(name) if FILES.iter().any(|(known, _)| *known == name) => {
            Some(made(String::new(), kind(name), std::fs::read(folder.join(name)).ok()?))
        }
        _ => {
            let page = std::fs::read_to_string(folder.join("index.html")).ok()?;
            let page = page.replace("<!-- modules -->", "").replace("{build}", "disk");
            Some(made(String::new(), "text/html; charset=utf-8", page.into_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_together_is_small() {
        let sum: usize = ASSETS.iter().map(|asset| asset.packed.len()).sum();
        assert!(sum <= 200_000, "{sum} bytes");
    }

    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        for inline in ["<style", " style=", "javascript:", " onclick", "http://", "https://"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
        for (name, content) in FILES.iter().filter(|(name, _)| name.ends_with(".js")) {
            let text = std::str::from_utf8(content).expect("text").replace("localStorage.setItem(\"theme\"", "");
            for banned in ["innerHTML", "outerHTML", "insertAdjacentHTML", "Storage.setItem", "document.write", "eval("]
            {
                assert!(!text.contains(banned), "{name}: {banned}");
            }
        }
    }
}
