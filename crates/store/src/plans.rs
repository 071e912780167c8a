//! With 100,000 secrets and a long queue, the statements that run all the time walk an index and sort nothing.

use volvelle_domain::account::{Account, AccountSettings};
use volvelle_domain::ids::{AccountId, ItemId, Micros, TargetId, Uid};
use volvelle_domain::rotation::State;
use volvelle_testkit::postgres::Postgres;

use crate::db::{Value, values};
use crate::versions::Slot;
use crate::{Store, Tx, accounts, items, rotations};

const SECRETS: i64 = 100_000;

const QUEUE: i64 = 20_000;

fn account() -> AccountId {
    AccountId("acc-one".into())
}

/// An account with items `/prod/1`, `/prod/2`, … every tenth of them due, and a queue in which most wait for one host.
async fn filled(tx: &mut Tx) {
    let account = Account {
        id: account(),
        name: "one".into(),
        realm: Uid([1; 16]),
        key_id: 1,
        operator: false,
        generation: 0,
        content: 0,
        created_at: Micros(0),
        settings: AccountSettings::default(),
    };
    accounts::add(tx, &account).await.expect("adds");
    let uid = if tx.locks_rows() { "decode(md5('/' || i), 'hex')" } else { "randomblob(16)" };
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {SECRETS})
         INSERT INTO items (account, id, uid, name, kind, enabled, delete_protection, current_version, last_version,
             settings, target, rotator, status, next_rotation_at, created_at, modified_at)
         SELECT 'acc-one', i, {uid}, '/prod/' || i, 'static', 1, 0, 1, 1,
             '{{\"description\":\"\",\"tags\":[],\"extras\":{{}},\"max_versions\":null,\"locking\":{{}}}}', NULL, 'null',
             'succeeded', CASE WHEN i % 10 = 0 THEN i ELSE i + 1000000 END, 0, 0 FROM n"
    );
    tx.execute(&sql, values![]).await.expect("fills");
    let state = State::new(Some(1), Vec::new());
    let host = |host: &str| Slot { account: account.id.clone(), item: ItemId(1), host: host.into() };
    rotations::enqueue(tx, &host("first"), TargetId(1), &state, ("schedule", ""), Micros(0)).await.expect("enqueues");
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT CAST(2 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {QUEUE})
         INSERT INTO rotations SELECT account, i, i, 'h', CASE WHEN i < {QUEUE} - 40 THEN 1 ELSE i END, state, open, cause,
             requested_by, fence, lease_owner, lease_until, i, started_at, ended_at, message, stages FROM rotations, n"
    );
    tx.execute(&sql, values![]).await.expect("fills");
}

async fn plan(tx: &mut Tx, sql: &str, arguments: Vec<Value>) -> String {
    let (explain, column) = if tx.locks_rows() { ("EXPLAIN", 0) } else { ("EXPLAIN QUERY PLAN", 3) };
    let rows = tx.rows(&format!("{explain} {sql}"), arguments).await.expect("explains");
    let lines: Result<Vec<String>, _> = rows.iter().map(|row| row.text(column)).collect();
    lines.expect("text").join("\n")
}

/// Whether the plan reads a table from end to end.
fn scans(plan: &str, table: &str) -> bool {
    let whole = |line: &str| {
        let line = line.trim();
        line.contains(&format!("Seq Scan on {table}")) || (line.starts_with("SCAN ") && !line.contains("USING"))
    };
    plan.lines().filter(|line| !line.contains("busy")).any(|line| whole(line) && line.contains(table))
}

async fn filled_stores(databases: &mut Vec<tempfile::TempDir>) -> Vec<Store> {
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = Store::open(&format!("sqlite://{}/store.db", folder.path().display())).await.expect("opens");
    databases.push(folder);
    let postgres = Store::open(Postgres::start().expect("starts").url()).await.expect("opens");
    for store in [&sqlite, &postgres] {
        let mut tx = store.begin().await.expect("begins");
        filled(&mut tx).await;
        tx.commit().await.expect("commits");
    }
    let mut tx = postgres.begin().await.expect("begins");
    tx.execute("ANALYZE", values![]).await.expect("analyzes");
    tx.commit().await.expect("commits");
    vec![sqlite, postgres]
}

#[tokio::test]
async fn what_runs_all_the_time_reads_no_whole_table_and_finds_the_few_wanted_of_many() {
    let mut folders = Vec::new();
    for store in filled_stores(&mut folders).await {
        let mut tx = store.begin().await.expect("begins");
        reads_no_whole_table(&mut tx).await;
        finds_the_few_wanted(&mut tx).await;
    }
}

async fn reads_no_whole_table(tx: &mut Tx) {
    let (sql, mut arguments) = items::under(&account(), "/prod/5", "/prod/57");
    arguments.push(100_u32.into());
    let names = if tx.locks_rows() { "items_account_name_key" } else { "account=? AND name>? AND name<?" };
    let fragments = ["a".to_owned(), "b".to_owned()];
    let ((due, due_fragments), (claim, claim_fragments)) =
        (items::due_sql(&fragments), rotations::claim_sql(tx.locks_rows(), &fragments));
    let statements = [
        (sql, arguments, vec![names], "items"),
        (due, [values![1000_i64, 100_u32], due_fragments].concat(), vec!["items_due", "one_open_rotation"], "items"),
        (
            claim,
            [values![30_000_i64, 1_u32, 32_u32, 128_u32, "w", 40_000_i64], claim_fragments].concat(),
            vec!["rotations_waiting", "rotations_leased"],
            "rotations",
        ),
        (
            rotations::wake_sql().to_owned(),
            values![19_000_i64],
            vec!["rotations_waiting", "rotations_leased"],
            "rotations",
        ),
    ];
    for (sql, arguments, indexes, table) in statements {
        let plan = plan(tx, &sql, arguments).await;
        for index in indexes {
            assert!(plan.contains(index), "{index} is not used:\n{sql}\n{plan}");
        }
        assert!(!scans(&plan, table), "{table} is read whole:\n{sql}\n{plan}");
    }
}

async fn finds_the_few_wanted(tx: &mut Tx) {
    let found = items::list_under(tx, &account(), "/prod/5", "/prod/57", 3).await.expect("lists");
    let names: Vec<_> = found.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["/prod/570", "/prod/5700", "/prod/57000"]);
    let due = items::due(tx, Micros(50_000), 2, &[]).await.expect("asks");
    assert_eq!(due.iter().map(|item| item.id.0).collect::<Vec<_>>(), [20_010, 20_020], "the queue has those before");
    let counts = items::counts(tx, Micros(50_001)).await.expect("counts");
    assert_eq!((counts.secrets, counts.overdue), (SECRETS, 5000));
    let claimed = rotations::claim(tx, "w", Micros(30_000), Micros(40_000), (32, 1), &[]).await.expect("claims");
    let targets: Vec<_> = claimed.iter().map(|r| r.target.0).collect();
    assert_eq!((targets.len(), targets[..3].to_vec()), (32, vec![1, 1, QUEUE - 40]), "the crowd hides nobody");
}
