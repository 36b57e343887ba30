//! What the SQL of this store needs of a database: statements with typed parameters, rows with typed columns, transactions.
//!
//! The statements are SQLite's and PostgreSQL's common part, so that both run the same ones. Parameters are numbered (`?1`) or
//! counted (`?`) as SQLite writes them. A parameter's type is known also when it is null, because PostgreSQL asks.

use rusqlite::types::{ToSqlOutput, ValueRef};

#[cfg(feature = "postgres")]
use super::postgres;
use super::{StoreError, sqlite};

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Bytes(Option<&'a [u8]>),
    Integer(Option<i64>),
    Text(Option<&'a str>),
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Bytes(bytes) => bytes.map(ValueRef::Blob),
            Self::Integer(number) => number.map(ValueRef::Integer),
            Self::Text(text) => text.map(|text| ValueRef::Text(text.as_bytes())),
        };
        Ok(ToSqlOutput::Borrowed(value.unwrap_or(ValueRef::Null)))
    }
}

/// What can be a parameter.
pub(super) trait Parameter {
    fn value(&self) -> Value<'_>;
}

/// What can be a parameter that may be null.
pub(super) trait Nullable: Parameter {
    const NULL: Value<'static>;
}

impl<T: Parameter + ?Sized> Parameter for &T {
    fn value(&self) -> Value<'_> {
        (**self).value()
    }
}

impl<T: Nullable + ?Sized> Nullable for &T {
    const NULL: Value<'static> = T::NULL;
}

impl<T: Nullable> Parameter for Option<T> {
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(T::NULL, T::value)
    }
}

impl<const N: usize> Parameter for [u8; N] {
    fn value(&self) -> Value<'_> {
        Value::Bytes(Some(self))
    }
}

macro_rules! parameters {
    ($($name:ty => $kind:ident by $convert:expr),* $(,)?) => {$(
        impl Parameter for $name {
            fn value(&self) -> Value<'_> {
                Value::$kind(Some(($convert)(self)))
            }
        }

        impl Nullable for $name {
            const NULL: Value<'static> = Value::$kind(None);
        }
    )*};
}
parameters! {
    [u8] => Bytes by std::convert::identity,
    Vec<u8> => Bytes by Vec::as_slice,
    str => Text by std::convert::identity,
    String => Text by String::as_str,
    i64 => Integer by |number: &i64| *number,
    u8 => Integer by |number: &u8| i64::from(*number),
    u16 => Integer by |number: &u16| i64::from(*number),
    u32 => Integer by |number: &u32| i64::from(*number),
}

/// The parameters of a statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::storage::sql::Parameter::value(&$value)),*]
    };
}
pub(super) use params;

/// A connection to one of the two databases, used by one thread at a time.
pub(super) enum Connection {
    #[cfg(feature = "postgres")]
    Postgres(postgres::Connection),
    Sqlite(rusqlite::Connection),
}

/// A row of an answer.
pub(super) enum Row<'r> {
    #[cfg(feature = "postgres")]
    Postgres(&'r tokio_postgres::Row),
    Sqlite(&'r rusqlite::Row<'r>),
}

impl Connection {
    /// Begins a transaction that writes: the only one until it ends, whichever process the others are of.
    pub(super) fn begin(&self) -> Result<(), StoreError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.begin(),
            Self::Sqlite(connection) => sqlite::execute(connection, "BEGIN IMMEDIATE", &[]).map(|_| ()),
        }
    }

    /// Begins a transaction that reads: it sees what is committed now, whatever is committed later.
    pub(super) fn begin_reading(&self) -> Result<(), StoreError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.begin_reading(),
            Self::Sqlite(connection) => {
                sqlite::execute(connection, "BEGIN DEFERRED", &[])?;
                // The view begins with the first read.
                sqlite::first(connection, "SELECT 1 FROM meta LIMIT 1", &[], |_| Ok(())).map(|_| ())
            }
        }
    }

    /// What ends the statement that it is at work on then, from another thread.
    pub(super) fn canceller(&self) -> Box<dyn FnOnce() + Send> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => Box::new(connection.canceller()),
            Self::Sqlite(connection) => {
                let handle = connection.get_interrupt_handle();
                Box::new(move || handle.interrupt())
            }
        }
    }

    /// Has it used by nobody any more where what was cancelled may meet the next statement.
    pub(super) fn retire(&self) {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.retire(),
            // It ends what runs at the time, and nothing later.
            Self::Sqlite(_) => {}
        }
    }

    /// Does something that reads or changes as many rows as there are: a server is given the time that this takes.
    pub(super) fn patiently<T>(&self, work: impl FnOnce(&Self) -> T) -> T {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.patiently(|| work(self)),
            Self::Sqlite(_) => work(self),
        }
    }

    /// Makes the transaction durable.
    pub(super) fn commit(&self) -> Result<(), StoreError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.commit(),
            Self::Sqlite(connection) => sqlite::execute(connection, "COMMIT", &[]).map(|_| ()),
        }
    }

    /// Undoes the transaction. After a failed commit the database may have done so by itself; it then says that there is nothing
    /// to do.
    pub(super) fn rollback(&self) {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.rollback(),
            Self::Sqlite(connection) => drop(connection.execute_batch("ROLLBACK")),
        }
    }

    /// Ends it.
    pub(super) fn close(self) {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => drop(connection),
            Self::Sqlite(connection) => {
                if let Err((_, error)) = connection.close() {
                    tracing::warn!(%error, "the database did not close cleanly");
                }
            }
        }
    }

    /// Whether it can still be used.
    pub(super) fn is_usable(&self) -> bool {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.is_usable(),
            Self::Sqlite(_) => true,
        }
    }
}

/// Executes a statement that is prepared once; returns how many rows it changed.
pub(super) fn execute(
    connection: &Connection,
    statement: &str,
    parameters: &[Value<'_>],
) -> Result<usize, StoreError> {
    match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(connection) => connection.execute(statement, parameters),
        Connection::Sqlite(connection) => sqlite::execute(connection, statement, parameters),
    }
}

/// The first row of a query that is prepared once.
pub(super) fn first<T>(
    connection: &Connection,
    query: &str,
    parameters: &[Value<'_>],
    read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(connection) => {
            let rows = connection.query(query, parameters)?;
            rows.first().map(|row| read(&Row::Postgres(row))).transpose()
        }
        Connection::Sqlite(connection) => sqlite::first(connection, query, parameters, read),
    }
}

/// Every row of a query that is prepared once.
pub(super) fn all<T>(
    connection: &Connection,
    query: &str,
    parameters: &[Value<'_>],
    read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(connection) => {
            let (rows, mut read) = (connection.query(query, parameters)?, read);
            rows.iter().map(|row| read(&Row::Postgres(row))).collect()
        }
        Connection::Sqlite(connection) => sqlite::all(connection, query, parameters, read),
    }
}

/// What a column can be read as.
pub(super) trait Column: Sized {
    fn read(row: &Row<'_>, index: usize) -> Result<Self, StoreError>;
}

macro_rules! columns {
    ($($name:ty),*) => {$(
        impl Column for $name {
            fn read(row: &Row<'_>, index: usize) -> Result<Self, StoreError> {
                match row {
                    #[cfg(feature = "postgres")]
                    Row::Postgres(row) => postgres::get(row, index),
                    Row::Sqlite(row) => row.get(index).map_err(sqlite::unavailable),
                }
            }
        }
    )*};
}
columns!(bool, i64, String, Vec<u8>);

impl<T: Column> Column for Option<T> {
    fn read(row: &Row<'_>, index: usize) -> Result<Self, StoreError> {
        let null = match row {
            #[cfg(feature = "postgres")]
            Row::Postgres(row) => postgres::is_null(row, index)?,
            Row::Sqlite(row) => row.get_ref(index).map_err(sqlite::unavailable)? == ValueRef::Null,
        };
        if null { Ok(None) } else { T::read(row, index).map(Some) }
    }
}

/// A column.
pub(super) fn get<T: Column>(row: &Row<'_>, index: usize) -> Result<T, StoreError> {
    T::read(row, index)
}

/// Bytes in the row's own memory.
pub(super) fn blob<'r>(row: &'r Row<'_>, index: usize) -> Result<&'r [u8], StoreError> {
    match row {
        #[cfg(feature = "postgres")]
        Row::Postgres(row) => postgres::get(row, index),
        Row::Sqlite(row) => row
            .get_ref(index)
            .map_err(sqlite::unavailable)?
            .as_blob()
            .map_err(|_| super::rows::corrupted("a value has the wrong type")),
    }
}
