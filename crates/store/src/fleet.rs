//! All secrets of an account at once: found, counted, and laid out in time. Nothing here opens a value.
//!
//! What must stay true: a state is told by one expression, so that a count and a list never disagree.

use volvelle_domain::ids::{AccountId, ItemId, Micros, TargetId};
use volvelle_domain::item::ItemKind;

use crate::db::{Value, values};
use crate::{StoreError, Tx};

/// A due date so long past that something holds the rotation up.
const OVERDUE: i64 = 5 * 60;

/// How an item is doing, the most urgent fact first.
pub const STATES: &[&str] =
    &["out_of_sync", "in_doubt", "failed", "overdue", "rotating", "new", "settled", "disabled", "static"];

/// By what a list is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Name.
    #[default]
    Name,
    /// The next rotation; what has none comes last.
    Next,
    /// The last rotation, or the creation of what was never rotated.
    Last,
    /// The place in [`STATES`].
    State,
    /// The last change.
    Modified,
}

/// Which way a list runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    #[default]
    Up,
    /// Largest first.
    Down,
}

/// What is looked for; an empty field asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Part of the name, in any case.
    pub text: String,
    /// The folder, with a slash at its end.
    pub folder: String,
    /// Names after this one.
    pub after: String,
    /// One of these states.
    pub states: Vec<String>,
    /// One of these kinds of target.
    pub kinds: Vec<String>,
    /// This target.
    pub target: Option<TargetId>,
    /// This tag.
    pub tag: String,
    /// Static or rotated.
    pub item: Option<ItemKind>,
    /// Order.
    pub sort: Sort,
    /// Its direction.
    pub direction: Direction,
}

/// An item that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number.
    pub id: ItemId,
    /// Its name.
    pub name: String,
    /// One of [`STATES`].
    pub state: String,
}

/// A statement in the making: its text and its arguments.
struct Statement {
    text: String,
    arguments: Vec<Value>,
}

impl Statement {
    /// Of the account, at `now`: arguments 1 and 2.
    fn new(account: &AccountId, now: Micros) -> Self {
        let overdue = now.plus_seconds(-OVERDUE);
        Self { text: String::new(), arguments: values![account.0.as_str(), overdue.0] }
    }

    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.arguments.push(value.into());
        format!("${}", self.arguments.len())
    }

    fn one_of(&mut self, words: &[String]) -> String {
        let places: Vec<String> = words.iter().map(|word| self.bind(word.as_str())).collect();
        places.join(", ")
    }

    fn condition(&mut self, wanted: &Wanted) -> String {
        let mut all = vec!["account = $1".to_owned()];
        if !wanted.text.is_empty() {
            let place = self.bind(format!("%{}%", literal(&wanted.text.to_lowercase())));
            all.push(format!("LOWER(name) LIKE {place} ESCAPE '\\'"));
        }
        if !wanted.folder.is_empty() {
            let (from, to) = (self.bind(wanted.folder.as_str()), self.bind(format!("{}\u{10ffff}", wanted.folder)));
            all.push(format!("name >= {from} AND name < {to}"));
        }
        if !wanted.after.is_empty() {
            let place = self.bind(wanted.after.as_str());
            all.push(format!("name > {place}"));
        }
        if !wanted.states.is_empty() {
            let places = self.one_of(&wanted.states);
            all.push(format!("({}) IN ({places})", state_sql()));
        }
        if !wanted.kinds.is_empty() {
            let places: Vec<String> = wanted
                .kinds
                .iter()
                .map(|kind| {
                    let place = self.bind(format!("%\"kind\":\"{}\"%", literal(kind)));
                    format!("rotator LIKE {place} ESCAPE '\\'")
                })
                .collect();
            all.push(format!("({})", places.join(" OR ")));
        }
        if let Some(target) = wanted.target {
            let place = self.bind(target.0);
            all.push(format!("target = {place}"));
        }
        if !wanted.tag.is_empty() {
            let quoted = serde_json::Value::from(wanted.tag.as_str()).to_string();
            let place = self.bind(format!("%\"tags\":[%{}%]%", literal(&quoted)));
            all.push(format!("settings LIKE {place} ESCAPE '\\'"));
        }
        if let Some(kind) = wanted.item {
            let place = self.bind(crate::items::kind_name(kind));
            all.push(format!("kind = {place}"));
        }
        all.join(" AND ")
    }
}

/// A text in which no letter is a wildcard.
fn literal(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// The state of an item; `$2` is the moment before which a due date is overdue.
fn state_sql() -> &'static str {
    "CASE WHEN kind IN ('static', 'key') THEN 'static' WHEN enabled = 0 THEN 'disabled'
     WHEN status = 'out_of_sync' THEN 'out_of_sync' WHEN status = 'in_doubt' THEN 'in_doubt'
     WHEN id IN (SELECT item FROM rotations WHERE account = $1 AND open = 1) THEN 'rotating'
     WHEN status IN ('failed', 'partial') THEN 'failed' WHEN next_rotation_at < $2 THEN 'overdue'
     WHEN status = 'not_rotated' THEN 'new' ELSE 'settled' END"
}

fn order_sql(wanted: &Wanted) -> String {
    let way = if wanted.direction == Direction::Down { "DESC" } else { "ASC" };
    match wanted.sort {
        Sort::Name => format!("name {way}"),
        Sort::Next => format!("CASE WHEN next_rotation_at IS NULL THEN 1 ELSE 0 END, next_rotation_at {way}, name"),
        Sort::Last => format!("COALESCE(last_rotation_at, created_at) {way}, name"),
        Sort::Modified => format!("modified_at {way}, name"),
        Sort::State => {
            let cases: String = STATES.iter().enumerate().map(|(n, word)| format!(" WHEN '{word}' THEN {n}")).collect();
            format!("CASE ({}){cases} ELSE 99 END {way}, name", state_sql())
        }
    }
}

/// Finds items; `skip` of them are left out, at most `limit` are given.
///
/// # Errors
/// The database is not available.
pub async fn find(
    tx: &mut Tx,
    account: &AccountId,
    wanted: &Wanted,
    now: Micros,
    (skip, limit): (u32, u32),
) -> Result<Vec<Found>, StoreError> {
    let mut statement = Statement::new(account, now);
    let condition = statement.condition(wanted);
    let (limit, skip) = (statement.bind(limit), statement.bind(skip));
    // The second argument must occur even where the state is not asked for: an engine refuses one it does not know the type of.
    statement.text = format!(
        "SELECT id, name, {} FROM items WHERE {condition} ORDER BY {} LIMIT {limit} OFFSET {skip}",
        state_sql(),
        order_sql(wanted)
    );
    let rows = tx.rows(&statement.text, statement.arguments).await?;
    rows.iter().map(|row| Ok(Found { id: ItemId(row.int(0)?), name: row.text(1)?, state: row.text(2)? })).collect()
}

/// How many items are in each state.
///
/// # Errors
/// The database is not available.
pub async fn tally(
    tx: &mut Tx,
    account: &AccountId,
    wanted: &Wanted,
    now: Micros,
) -> Result<Vec<(String, i64)>, StoreError> {
    let mut statement = Statement::new(account, now);
    let condition = statement.condition(wanted);
    statement.text = format!(
        "SELECT state, COUNT(*) FROM (SELECT {} AS state FROM items WHERE {condition}) AS states GROUP BY state",
        state_sql()
    );
    let rows = tx.rows(&statement.text, statement.arguments).await?;
    rows.iter().map(|row| Ok((row.text(0)?, row.int(1)?))).collect()
}

/// Names deeper than one level below `folder` (with a slash at its end), from `from` on, by name, at most `limit`.
///
/// # Errors
/// The database is not available.
pub async fn deeper(
    tx: &mut Tx,
    account: &AccountId,
    folder: &str,
    from: &str,
    limit: u32,
) -> Result<Vec<String>, StoreError> {
    // A number in the text: PostgreSQL takes no BIGINT here.
    let inner = folder.chars().count() + 1;
    let sql = format!(
        "SELECT name FROM items WHERE account = $1 AND name >= $2 AND name < $3 AND SUBSTR(name, {inner}) LIKE '%/%'
         ORDER BY name LIMIT $4"
    );
    let until = format!("{folder}\u{10ffff}");
    let rows = tx.rows(&sql, values![account.0.as_str(), from.max(folder), until, limit]).await?;
    rows.iter().map(|row| row.text(0)).collect()
}

/// Rotations of an item in an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hour {
    /// Begin of the hour in unix seconds.
    pub at: i64,
    /// The item.
    pub item: ItemId,
    /// `done`, `failed` or `out_of_sync`; `due` for those to come.
    pub outcome: String,
    /// How many.
    pub count: i64,
}

/// Whether items are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Sums over all of them, under the number 0.
    Account,
    /// One by one.
    Item,
}

impl Grain {
    const fn column(self) -> &'static str {
        match self {
            Self::Account => "0",
            Self::Item => "item",
        }
    }
}

/// Most rows of an answer about hours.
const MOST_HOURS: u32 = 100_000;

/// The rotations that ended since `since`, by hour and outcome.
///
/// # Errors
/// The database is not available.
pub async fn past(tx: &mut Tx, account: &AccountId, since: Micros, grain: Grain) -> Result<Vec<Hour>, StoreError> {
    let sql = format!(
        "SELECT hour, item, outcome, COUNT(*) FROM (
             SELECT ended_at / 3600000000 AS hour, CAST({} AS BIGINT) AS item,
                 CASE WHEN state LIKE '%\"stage\":\"done\"%' THEN 'done'
                      WHEN state LIKE '%\"stage\":\"out_of_sync\"%' THEN 'out_of_sync' ELSE 'failed' END AS outcome
             FROM rotations WHERE account = $1 AND ended_at >= $2) AS ended
         GROUP BY hour, item, outcome ORDER BY hour LIMIT {MOST_HOURS}",
        grain.column()
    );
    hours(tx, &sql, values![account.0.as_str(), since.0]).await
}

/// The rotations due from `now` until `until`, by hour.
///
/// # Errors
/// The database is not available.
pub async fn coming(
    tx: &mut Tx,
    account: &AccountId,
    (now, until): (Micros, Micros),
    grain: Grain,
) -> Result<Vec<Hour>, StoreError> {
    let column = if grain == Grain::Item { "id" } else { "0" };
    let sql = format!(
        "SELECT hour, item, 'due', COUNT(*) FROM (
             SELECT next_rotation_at / 3600000000 AS hour, CAST({column} AS BIGINT) AS item FROM items
             WHERE account = $1 AND enabled = 1 AND next_rotation_at >= $2 AND next_rotation_at < $3) AS due
         GROUP BY hour, item ORDER BY hour LIMIT {MOST_HOURS}"
    );
    hours(tx, &sql, values![account.0.as_str(), now.0, until.0]).await
}

async fn hours(tx: &mut Tx, sql: &str, arguments: Vec<Value>) -> Result<Vec<Hour>, StoreError> {
    let rows = tx.rows(sql, arguments).await?;
    let hour = |row: &crate::db::Row| {
        Ok(Hour { at: row.int(0)? * 3600, item: ItemId(row.int(1)?), outcome: row.text(2)?, count: row.int(3)? })
    };
    rows.iter().map(hour).collect()
}
