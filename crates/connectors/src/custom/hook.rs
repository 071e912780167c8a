//! The web hook: one POST by the vendor's contract.

use std::time::Duration;

use volvelle_domain::connector::{Call, Failure, FailureClass, IssueOutcome};

use super::{LONGEST, config, payload, unreadable};

pub(super) fn client() -> Result<reqwest::Client, Failure> {
    // A redirect would send the payload to somebody else.
    let http = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .build();
    http.map_err(|_| config("no HTTPS client can be made", "install the package ca-certificates"))
}

/// The address, if a request may be posted there.
pub(super) fn check(url: &str) -> Result<reqwest::Url, Failure> {
    let wrong = || config("url must be https://… or http://…, or exec:/absolute/path", "set url");
    let url = reqwest::Url::parse(url).map_err(|_| wrong())?;
    if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() { Ok(url) } else { Err(wrong()) }
}

/// Whether somebody accepts connections there.
pub(super) async fn listens(url: &reqwest::Url, timeout: Duration) -> Result<(), Failure> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    match tokio::time::timeout(timeout, tokio::net::TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(unreachable(format!("{host}:{port} accepts no connection"))),
        Err(_) => {
            Err(Failure::new(FailureClass::Timeout, format!("{host}:{port} does not answer"), "check the network"))
        }
    }
}

fn unreachable(message: String) -> Failure {
    Failure::new(FailureClass::Unreachable, message, "check that the hook runs, and url")
}

/// Posts the request and takes the next payload.
pub(super) async fn post(http: &reqwest::Client, url: reqwest::Url, call: &Call<'_>, body: &[u8]) -> IssueOutcome {
    let request = http.post(url).header("content-type", "application/json").header("AkeylessCreds", call.proof);
    let request = request.timeout(call.timeout).body(body.to_vec());
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => {
            return IssueOutcome::NotReached(unreachable("the hook cannot be reached".to_owned()));
        }
        Err(error) if error.is_timeout() => {
            let message = format!("the hook gave no answer within {} s", call.timeout.as_secs());
            let hint = "raise timeout-sec, or make the hook quicker";
            return IssueOutcome::Ambiguous(Failure::new(FailureClass::Timeout, message, hint));
        }
        Err(_) => return IssueOutcome::Ambiguous(broken()),
    };
    let status = response.status();
    let mut answer = zeroize::Zeroizing::new(Vec::new());
    loop {
        match response.chunk().await {
            Ok(Some(piece)) if answer.len() + piece.len() <= LONGEST => answer.extend_from_slice(&piece),
            Ok(Some(_)) => {
                let failure = Failure::new(FailureClass::Protocol, "the hook's answer is longer than 1 MiB", "");
                return IssueOutcome::Ambiguous(failure);
            }
            Ok(None) => break,
            Err(_) => return IssueOutcome::Ambiguous(broken()),
        }
    }
    if status.is_success() {
        return payload(&answer).map_or_else(|| IssueOutcome::Ambiguous(unreadable("the hook")), IssueOutcome::Issued);
    }
    // By the contract any other status means that it has changed nothing. What else it wrote may hold anything.
    let class = if matches!(status.as_u16(), 401 | 403) { FailureClass::Auth } else { FailureClass::Protocol };
    let message = format!("the hook answers with status {}", status.as_u16());
    IssueOutcome::Rejected(Failure::new(class, message, "look into the hook's own log"))
}

fn broken() -> Failure {
    unreachable("the connection to the hook broke before its answer was complete".to_owned())
}
