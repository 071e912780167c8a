//! Which evaluations are explained. Nothing here reads or asks anything.
//!
//! An evaluation is explained by an audit entry that names its request, was written about that time, and - if it is the reading of one
//! value - is about that path and by the client whom the gateway named to the holder. Several holders are asked for one request, some
//! only because others were slow, and one request may open many things: none of that is unexplained.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::{Value, json};
use volvelle_gateway::holder_log::{Entry, Line};

/// Milliseconds between the beginning and the end of a request, at most.
pub const LONGEST_REQUEST: i64 = 300_000;
/// Digits of a request's name; what follows counts its evaluations.
const NAME: usize = 16;
/// The purpose of records that prove to a web hook who calls it; anybody may have one checked.
const PROOF: u8 = 3;
/// What the gateway calls itself.
const OWN: &str = "volvelle";

/// An entry of the audit log.
#[derive(Clone, Debug)]
pub struct Said {
    /// Milliseconds since 1970.
    pub at: i64,
    seq: i64,
    actor: String,
    action: String,
    object: String,
    outcome: String,
    request: String,
}

impl Said {
    /// Reads what `audit-list` gives.
    pub fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        Some(Self {
            at: text("at").parse::<Timestamp>().ok()?.as_millisecond(),
            seq: entry["seq"].as_i64()?,
            actor: text("actor"),
            action: text("action"),
            object: text("object"),
            outcome: text("outcome"),
            request: text("request"),
        })
    }

    fn is_read(&self) -> bool {
        matches!(self.action.as_str(), "get_rotated_secret_value" | "get_secret_value")
    }

    fn is_deletion(&self) -> bool {
        matches!(self.action.as_str(), "delete_item" | "delete_target") && self.outcome == "ok"
    }
}

/// What a holder's log says of one message.
#[derive(Clone, Debug)]
pub struct Asked {
    seq: u64,
    at: i64,
    gateway: String,
    principal: String,
    operation: String,
    request: String,
}

impl Asked {
    /// Of an entry of the log.
    pub fn of(entry: &Entry) -> Self {
        Self {
            seq: entry.seq,
            at: i64::try_from(entry.at).unwrap_or(i64::MAX),
            gateway: entry.gateway.clone(),
            principal: entry.principal.clone(),
            operation: entry.operation.clone(),
            request: entry.request.clone(),
        }
    }
}

/// The times that are reckoned with, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How far clocks may differ.
    pub skew: i64,
    /// How long derived keys are kept.
    pub cache: i64,
    /// What lies before is not looked at.
    pub from: i64,
}

/// Compares, one message after the other.
pub struct Judge {
    said: Vec<Said>,
    /// Places in `said`, by the name of the request.
    by_request: HashMap<String, Vec<usize>>,
    /// Times of evaluations, by path.
    evaluated: HashMap<String, Vec<i64>>,
    times: Times,
    log: String,
    at_beginning: bool,
    /// The newest message of any log, and from when on all of them tell.
    covered: (i64, i64),
    unexplained: HashMap<(String, String, u32), Value>,
    burials: HashMap<(String, String, u32), Value>,
    /// When something was first deleted at a path.
    deleted: HashMap<String, i64>,
    counts: BTreeMap<&'static str, u64>,
}

impl Judge {
    /// Over the entries of the gateway, oldest first. If nobody said from when on, what lies before the first entry that names its
    /// request is not looked at: it is of a version that did not yet name them.
    pub fn new(said: Vec<Said>, mut times: Times, is_given: bool) -> Self {
        let mut by_request: HashMap<String, Vec<usize>> = HashMap::new();
        for (n, entry) in said.iter().enumerate().filter(|(_, entry)| !entry.request.is_empty()) {
            by_request.entry(entry.request.clone()).or_default().push(n);
        }
        let mut deleted = HashMap::new();
        for entry in said.iter().filter(|entry| entry.is_deletion()) {
            deleted.entry(entry.object.clone()).or_insert(entry.at);
        }
        let first = said.iter().find(|entry| !entry.request.is_empty()).map(|entry| entry.at - times.skew);
        if !is_given {
            times.from = times.from.max(first.unwrap_or(i64::MIN));
        }
        let counts = ["evaluations", "explained", "burials", "proofs", "other_accounts", "before"];
        Self {
            said,
            by_request,
            evaluated: HashMap::new(),
            times,
            log: String::new(),
            at_beginning: false,
            covered: (i64::MIN, i64::MIN),
            unexplained: HashMap::new(),
            burials: HashMap::new(),
            deleted,
            counts: counts.into_iter().map(|name| (name, 0)).collect(),
        }
    }

    /// What follows is of this log.
    pub fn begin_log(&mut self, name: &str) {
        name.clone_into(&mut self.log);
        self.at_beginning = true;
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Takes a message in; `own` tells whether it is of the account that is looked at.
    pub fn ask(&mut self, own: bool, inputs: &[Line], asked: &Asked) {
        self.covered.0 = self.covered.0.max(asked.at);
        // What stood before the first entry of a log that is not whole may explain what follows.
        if std::mem::take(&mut self.at_beginning) && asked.seq > 1 {
            self.covered.1 = self.covered.1.max(asked.at + self.times.cache + self.times.skew);
        }
        if asked.operation == "probe" {
            return;
        }
        for line in inputs {
            if !own {
                self.count("other_accounts");
                continue;
            }
            let path = line.path.split('\n').next().unwrap_or_default();
            if line.status == "evaluated" && asked.operation != "bury" {
                self.evaluated.entry(path.to_owned()).or_default().push(asked.at);
            }
            if asked.at < self.times.from {
                self.count("before");
            } else if asked.operation == "bury" {
                self.bury(line, path, asked);
            } else if line.purpose == PROOF {
                self.count("proofs");
            } else {
                self.evaluate(line, path, asked);
            }
        }
    }

    fn evaluate(&mut self, line: &Line, path: &str, asked: &Asked) {
        self.count("evaluations");
        let Some(why) = self.objection(path, asked) else {
            return self.count("explained");
        };
        // The same request at another holder has the same name.
        let key = (asked.request.clone(), line.item.clone(), line.version);
        let row = self.unexplained.entry(key).or_insert_with(|| {
            json!({"at": time(asked.at), "gateway": asked.gateway, "principal": asked.principal,
                "operation": asked.operation, "path": path, "item": line.item, "version": line.version,
                "status": line.status, "request": asked.request, "why": why, "logs": []})
        });
        note_log(row, &self.log);
    }

    /// Why nothing explains it, if nothing does.
    fn objection(&self, path: &str, asked: &Asked) -> Option<&'static str> {
        let name = asked.request.get(..NAME).unwrap_or_default();
        let Some(places) = self.by_request.get(name) else {
            return Some("the gateway knows no such request");
        };
        let entries: Vec<&Said> = places.iter().map(|n| &self.said[*n]).collect();
        let (first, last) = (entries.iter().map(|e| e.at).min()?, entries.iter().map(|e| e.at).max()?);
        let window = self.times.skew + LONGEST_REQUEST;
        if !(first - window..=last + window).contains(&asked.at) {
            return Some("the request was at another time");
        }
        let by = |entry: &&&Said| asked.principal == OWN || asked.principal == entry.actor;
        let Some(_) = entries.iter().find(by) else {
            return Some("the request was somebody else's");
        };
        let about = |entry: &&Said| !entry.is_read() || entry.object.is_empty() || entry.object == path;
        if entries.iter().filter(by).any(about) { None } else { Some("the request was about another path") }
    }

    /// A burial is explained by a deletion before it, however long ago: a holder may have been away.
    fn bury(&mut self, line: &Line, path: &str, asked: &Asked) {
        self.count("burials");
        let explained = self.deleted.get(path).is_some_and(|at| *at <= asked.at + self.times.skew);
        if !explained && line.status == "buried" {
            let key = (path.to_owned(), line.item.clone(), line.version);
            let row = self.burials.entry(key).or_insert_with(|| {
                json!({"at": time(asked.at), "gateway": asked.gateway, "path": path, "item": line.item,
                    "version": line.version, "why": "the gateway knows no such deletion", "logs": []})
            });
            note_log(row, &self.log);
        }
    }

    /// What came of it.
    pub fn verdict(mut self) -> Value {
        for times in self.evaluated.values_mut() {
            times.sort_unstable();
        }
        let (mut reads, mut without) = (0_u64, Vec::new());
        let span = self.times.from.max(self.covered.1)..=self.covered.0;
        for entry in
            self.said.iter().filter(|entry| entry.is_read() && entry.outcome == "ok" && span.contains(&entry.at))
        {
            reads += 1;
            let earliest = entry.at - self.times.cache - self.times.skew;
            let latest = entry.at + LONGEST_REQUEST + self.times.skew;
            let near = |times: &Vec<i64>| {
                times.get(times.partition_point(|at| *at < earliest)).is_some_and(|at| *at <= latest)
            };
            if !entry.object.is_empty() && !self.evaluated.get(&entry.object).is_some_and(near) {
                without
                    .push(json!({"seq": entry.seq, "at": time(entry.at), "actor": entry.actor, "object": entry.object,
                    "why": "no log has an evaluation of it, and it is too late for the cache"}));
            }
        }
        let mut answer = json!({"since": time(self.times.from), "reads": reads, "reads_without_evaluation": without,
            "unexplained": in_order(self.unexplained), "unexplained_burials": in_order(self.burials)});
        for (name, count) in self.counts {
            answer[name] = json!(count);
        }
        answer
    }
}

/// Another log has it too.
fn note_log(row: &mut Value, log: &str) {
    if let Some(logs) = row["logs"].as_array_mut().filter(|logs| !logs.iter().any(|known| known == log)) {
        logs.push(json!(log));
    }
}

fn in_order(rows: HashMap<(String, String, u32), Value>) -> Vec<Value> {
    let mut rows: Vec<Value> = rows.into_values().collect();
    rows.sort_by_cached_key(|row| (row["at"].to_string(), row["path"].to_string()));
    rows
}

fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map(|at| at.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn said(at: i64, action: &str, object: &str, request: &str) -> Said {
        let (actor, outcome) = ("p-1".to_owned(), "ok".to_owned());
        Said { at, seq: at, actor, action: action.into(), object: object.into(), outcome, request: request.into() }
    }

    fn judge(said: Vec<Said>) -> Judge {
        Judge::new(said, Times { skew: 60_000, cache: 30_000, from: 0 }, false)
    }

    fn line(path: &str) -> Line {
        Line { purpose: 1, item: "01".into(), version: 1, path: path.into(), status: "evaluated".into() }
    }

    fn asked(at: i64, request: &str, principal: &str, operation: &str) -> Asked {
        let request = format!("{request}0000000000000000");
        Asked { seq: 1, at, gateway: "g".into(), principal: principal.into(), operation: operation.into(), request }
    }

    /// The reasons, after one message to each of two holders.
    fn reasons(said: Vec<Said>, path: &str, message: &Asked) -> Vec<String> {
        let mut judge = judge(said);
        for log in ["one", "two"] {
            judge.begin_log(log);
            judge.ask(true, &[line(path)], message);
        }
        let verdict = judge.verdict();
        let rows = verdict["unexplained"].as_array().expect("a list");
        assert!(rows.iter().all(|row| row["logs"] == json!(["one", "two"])), "one row for both holders");
        rows.iter().map(|row| row["why"].as_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn a_request_explains_what_it_was_about_and_nothing_else() {
        let request = "aaaaaaaaaaaaaaaa";
        let read = || vec![said(HOUR, "get_rotated_secret_value", "/a", request)];
        let open = |at, name, who| asked(at, name, who, "open");
        assert_eq!(reasons(read(), "/a", &open(HOUR + 5, request, "p-1")), [""; 0]);
        assert_eq!(
            reasons(read(), "/a\nhost", &open(HOUR - 59_000, request, "p-1")),
            [""; 0],
            "a clock that is behind"
        );
        let other = |path, message| reasons(read(), path, &message);
        assert_eq!(other("/a", open(HOUR + 5, "bbbbbbbbbbbbbbbb", "p-1")), ["the gateway knows no such request"]);
        assert_eq!(other("/a", open(2 * HOUR, request, "p-1")), ["the request was at another time"]);
        assert_eq!(other("/b", open(HOUR + 5, request, "p-1")), ["the request was about another path"]);
        assert_eq!(other("/a", open(HOUR + 5, request, "p-2")), ["the request was somebody else's"]);
        let rotation = || vec![said(HOUR, "rotate_item", "/a", request)];
        assert_eq!(reasons(rotation(), "/its/target", &open(HOUR + 5, request, "volvelle")), [""; 0]);
    }

    #[test]
    fn a_cached_read_is_explained_as_long_as_the_cache_lasts() {
        let request = "aaaaaaaaaaaaaaaa";
        let entries = [(HOUR, request), (HOUR + 20_000, ""), (2 * HOUR, "")];
        let entries = entries.map(|(at, request)| said(at, "get_secret_value", "/a", request)).to_vec();
        let mut judge = Judge::new(entries, Times { skew: 60_000, cache: 30_000, from: 0 }, true);
        judge.begin_log("one");
        judge.ask(true, &[line("/a")], &asked(HOUR + 3, request, "p-1", "open"));
        judge.ask(true, &[line("")], &asked(3 * HOUR, "", "", "probe"));
        let verdict = judge.verdict();
        assert_eq!((&verdict["reads"], &verdict["explained"]), (&json!(3), &json!(1)));
        let without = verdict["reads_without_evaluation"].as_array().expect("a list");
        assert_eq!(without.iter().map(|row| row["seq"].as_i64()).collect::<Vec<_>>(), [Some(2 * HOUR)]);
    }

    #[test]
    fn burials_need_a_deletion_and_other_accounts_are_not_judged() {
        let mut judge = judge(vec![said(HOUR, "delete_item", "/gone", "")]);
        judge.begin_log("one");
        judge.ask(true, &[Line { status: "buried".into(), ..line("/gone") }], &asked(9 * HOUR, "", "", "bury"));
        judge.ask(true, &[Line { status: "buried".into(), ..line("/kept") }], &asked(9 * HOUR, "", "", "bury"));
        judge.ask(false, &[line("/x")], &asked(9 * HOUR, "cccccccccccccccc", "p", "open"));
        let verdict = judge.verdict();
        assert_eq!(verdict["unexplained_burials"][0]["path"], json!("/kept"));
        assert_eq!(verdict["unexplained_burials"].as_array().map(Vec::len), Some(1));
        assert_eq!((&verdict["other_accounts"], &verdict["unexplained"]), (&json!(1), &json!([])));
    }
}
