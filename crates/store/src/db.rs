//! Two engines behind one door: values in, rows out, transactions.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Postgres, Row as _, Sqlite, Transaction};

use crate::{StoreError, schema};

/// A database, shared by everything in the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Engine);

#[derive(Clone, Debug)]
enum Engine {
    /// One writer, since SQLite has one; readers beside it.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(PgPool),
}

/// A transaction. Dropped without [`Tx::commit`], it changes nothing.
#[derive(Debug)]
pub struct Tx(Inner);

#[derive(Debug)]
enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// A value on its way into a statement; `None` is NULL of that type.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
}

/// A row on its way out.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Store {
    /// Opens the database at `url` (`sqlite:///path/file.db` or `postgres://…`), making the file and the tables if they are
    /// missing.
    ///
    /// # Errors
    /// The address is not understood, or the database is not there.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let store = match url.strip_prefix("sqlite://") {
            Some(path) => Self(open_sqlite(Path::new(path)).await?),
            None if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                let options = PgPoolOptions::new().max_connections(16).acquire_timeout(Duration::from_secs(10));
                Self(Engine::Postgres(options.connect(url).await?))
            }
            None => return Err(StoreError::Address),
        };
        let mut tx = store.begin().await?;
        schema::migrate(&mut tx, matches!(store.0, Engine::Postgres(_))).await?;
        tx.commit().await?;
        Ok(store)
    }

    /// A transaction that may write. On SQLite there is one at a time.
    ///
    /// # Errors
    /// The database is not available.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Tx(match &self.0 {
            Engine::Sqlite { writer, .. } => Inner::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Engine::Postgres(pool) => Inner::Postgres(pool.begin().await?),
        }))
    }

    /// A transaction to read in: all of it sees the same moment, and waits for no writer.
    ///
    /// # Errors
    /// The database is not available.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        Ok(Tx(match &self.0 {
            Engine::Sqlite { readers, .. } => Inner::Sqlite(readers.begin().await?),
            Engine::Postgres(pool) => {
                Inner::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
        }))
    }
}

async fn open_sqlite(path: &Path) -> Result<Engine, StoreError> {
    let options = SqliteConnectOptions::from_str("sqlite:")?
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10))
        .foreign_keys(true);
    // A connection to a file does not break while it lies idle.
    let pool = |connections| SqlitePoolOptions::new().max_connections(connections).test_before_acquire(false);
    let writer = pool(1).connect_with(options.clone()).await?;
    private(path)?;
    let readers = pool(4).connect_with(options.read_only(true)).await?;
    Ok(Engine::Sqlite { writer, readers })
}

/// Records are sealed, but names and times are nobody's business either.
fn private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| StoreError::Unavailable(sqlx::Error::Io(error)))
}

macro_rules! bound {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value {
                Value::Int(v) => query.bind(v),
                Value::Text(v) => query.bind(v),
                Value::Blob(v) => query.bind(v),
            };
        }
        query
    }};
}

impl Tx {
    /// Makes everything done in the transaction durable.
    ///
    /// # Errors
    /// The database is not available; then nothing was changed, or it is not known.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.0 {
            Inner::Sqlite(tx) => tx.commit().await?,
            Inner::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Runs any statement. For tests that play the attacker who has the database.
    ///
    /// # Errors
    /// The database is not available, or the statement is wrong.
    #[doc(hidden)]
    pub async fn danger_execute(&mut self, sql: &str) -> Result<u64, StoreError> {
        self.execute(sql, Vec::new()).await
    }

    /// Whether the engine locks rows one by one.
    pub(crate) const fn locks_rows(&self) -> bool {
        matches!(self.0, Inner::Postgres(_))
    }

    /// Runs a statement and tells how many rows it changed.
    pub(crate) async fn execute(&mut self, sql: &str, values: Vec<Value>) -> Result<u64, StoreError> {
        Ok(match &mut self.0 {
            Inner::Sqlite(tx) => {
                bound!(sqlx::query(AssertSqlSafe(sql)), values).execute(&mut **tx).await?.rows_affected()
            }
            Inner::Postgres(tx) => {
                bound!(sqlx::query(AssertSqlSafe(sql)), values).execute(&mut **tx).await?.rows_affected()
            }
        })
    }

    /// Runs a statement and gives its rows.
    pub(crate) async fn rows(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        Ok(match &mut self.0 {
            Inner::Sqlite(tx) => {
                let rows = bound!(sqlx::query(AssertSqlSafe(sql)), values).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Inner::Postgres(tx) => {
                let rows = bound!(sqlx::query(AssertSqlSafe(sql)), values).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Runs a statement and gives its first row.
    pub(crate) async fn row(&mut self, sql: &str, values: Vec<Value>) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }
}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $type:ty) => {
        $(#[$doc])*
        pub(crate) fn $name(&self, column: usize) -> Result<$type, StoreError> {
            Ok(match self {
                Self::Sqlite(row) => row.try_get(column)?,
                Self::Postgres(row) => row.try_get(column)?,
            })
        }
    };
}

impl Row {
    getter!(int, i64);
    getter!(opt_int, Option<i64>);
    getter!(text, String);
    getter!(blob, Vec<u8>);

    /// A number that must fit `T`.
    pub(crate) fn number<T: TryFrom<i64>>(&self, column: usize, what: &'static str) -> Result<T, StoreError> {
        T::try_from(self.int(column)?).map_err(|_| StoreError::Corrupt(what))
    }

    /// Bytes that must be `N` long.
    pub(crate) fn bytes<const N: usize>(&self, column: usize, what: &'static str) -> Result<[u8; N], StoreError> {
        self.blob(column)?.try_into().map_err(|_| StoreError::Corrupt(what))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Blob(Some(value.to_vec()))
    }
}

/// Values of a statement, in the order of its `$1`, `$2`, …
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::db::Value::from($value)),*] };
}
pub(crate) use values;
