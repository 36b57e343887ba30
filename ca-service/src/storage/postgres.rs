//! PostgreSQL: the same statements over one connection that writes and a few that read.
//!
//! One transaction writes at a time, in whichever process: it begins with a lock of the schema, as SQLite's does with the lock of
//! the file, so that the audit trail and the numbers of lists stay without gaps. It goes on only where no other process has claimed
//! the schema meanwhile (`occupation.rs`). Nothing is acknowledged before the server has it on disk (`synchronous_commit = on`; a
//! server with `fsync = off` is refused).

pub mod occupation;
mod session;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use service::SystemClock;
use service::clock::Clock as _;
use tokio::runtime::Handle;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Config, Row, SimpleQueryMessage, Statement};

use self::occupation::{Claim, Confirmation, Fence};
use self::session::{
    Answered, CONNECT_TIMEOUT, PROMPT, Patience, Session, connect, late, still_at_work, unavailable,
};
use super::sql::Value;
use super::sql_store::Use;
use super::{StoreError, migrations};

/// Statements that stay prepared on a connection; searches have some more forms than everything else together.
const STATEMENTS: usize = 256;
/// Connections that read at once; a server's are few.
pub(super) const MOST_READERS: usize = 16;
/// Makes the transaction the only one that writes until it ends.
const WRITERS: &str = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' mentat ca', 0))";

/// Which database, which schema in it, and as whom it is changed. Formatting it shows no password.
#[derive(Clone)]
pub struct Location {
    config: Config,
    schema: String,
    claim: Option<Claim>,
}

impl Location {
    /// The database of a URL (`postgres://USER@HOST:PORT/NAME`) and a schema: a letter, then up to 62 letters, digits and `_`, in
    /// lower case.
    ///
    /// # Errors
    /// What is wrong with them, without the password.
    pub fn new(url: &str, schema: &str, password: Option<&[u8]>) -> Result<Self, String> {
        let letters = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
        let named = schema.len() <= 63
            && schema.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
            && schema.bytes().all(letters);
        if !named {
            return Err(
                "the schema is not a letter and up to 62 letters, digits and _, in lower case".to_owned()
            );
        }
        // The parser's own text may repeat what it could not read.
        let mut config: Config =
            url.parse().map_err(|_| "the URL is not postgres://USER@HOST:PORT/NAME".to_owned())?;
        if config.get_password().is_some() {
            return Err("the URL holds a password: name a file with it in password_file".to_owned());
        }
        if let Some(password) = password {
            config.password(password);
        }
        let hosts = config.get_hosts();
        let here = config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
        if hosts.is_empty() || !hosts.iter().all(is_local) || !here {
            return Err("the server is on another machine: reach it through a socket or an encrypted tunnel of this one"
                .to_owned());
        }
        config.connect_timeout(CONNECT_TIMEOUT).application_name("mentat ca-service");
        session::keep_alive(&mut config);
        Ok(Self { config, schema: schema.to_owned(), claim: None })
    }

    /// What this process claimed the schema by, if it did.
    pub(super) fn claim(&self) -> Option<Claim> {
        self.claim.clone()
    }
}

/// Whether nothing of it leaves the machine.
fn is_local(host: &tokio_postgres::config::Host) -> bool {
    match host {
        tokio_postgres::config::Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        tokio_postgres::config::Host::Unix(_) => true,
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.config.get_dbname().or(self.config.get_user()).unwrap_or("?");
        write!(f, "schema {} of the PostgreSQL database {name}", self.schema)
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Opens the schema, which must be there: brings it to the newest number, or demands that it has it and reads.
///
/// # Errors
/// [`StoreError::NotFound`] when it is not there, [`StoreError::SchemaDiffers`], and as the statements fail.
pub(super) async fn open(location: &Location, purpose: Use) -> Result<Connection, StoreError> {
    let (claim, claimed) = (location.claim.clone(), location.claim.is_some());
    let open = move |mut connection: Connection| {
        match purpose {
            Use::Change => {
                connection.fence = claim.map_or(Fence::Down, |claim| Fence::Up(Some(claim)));
                connection.migrate()?;
                // Without a claim of its own, what it finds is what must stay.
                let found = connection.claim()?;
                connection.fence.admit(found.as_ref())?;
                connection.confirmation = claimed.then(Confirmation::now);
                connection.fence = Fence::Up(found);
            }
            Use::Read => connection.demand_newest()?,
        }
        Ok(connection)
    };
    elsewhere(location, open).await
}

/// Does something with a connection of its own, on a thread that may block.
pub(super) async fn elsewhere<T: Send + 'static>(
    location: &Location,
    work: impl FnOnce(Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (location, runtime) = (location.clone(), Handle::current());
    let task = tokio::task::spawn_blocking(move || work(Connection::open(&location, &runtime)?));
    task.await.map_err(|error| StoreError::Unavailable(format!("the work ended early: {error}")))?
}

/// A connection, made again when it breaks.
pub(super) struct Connection {
    location: Location,
    runtime: Handle,
    session: RefCell<Session>,
    /// A statement was not answered in time.
    given_up: Cell<bool>,
    /// How long the next statements may take, and what of that the server was told; nothing, where a transaction may have undone it.
    patience: Cell<Patience>,
    told: Cell<Option<Patience>>,
    /// What its transactions that write must find.
    fence: Fence,
    /// Told whenever one of them found its process's claim.
    confirmation: Option<Confirmation>,
}

impl Connection {
    /// Connects. Call it on a thread that may block.
    pub(super) fn open(location: &Location, runtime: &Handle) -> Result<Self, StoreError> {
        let session = RefCell::new(connect(location, runtime)?);
        let given_up = Cell::new(false);
        Ok(Self {
            location: location.clone(),
            runtime: runtime.clone(),
            session,
            given_up,
            patience: Cell::new(Patience::Few),
            told: Cell::new(Some(Patience::Few)),
            fence: Fence::Down,
            confirmation: None,
        })
    }

    /// Makes the schema, which must not be there.
    pub(super) fn create(self) -> Result<(), StoreError> {
        if self.version()?.is_some() {
            return Err(StoreError::StateConflict);
        }
        let schema = &self.location.schema;
        self.script(&format!("BEGIN; CREATE SCHEMA {schema}; {}; COMMIT", migrations::for_postgres(0)?))
    }

    /// Brings the schema, which must be there, to the newest number.
    pub(super) fn migrate(&self) -> Result<(), StoreError> {
        let found = self.version()?.ok_or(StoreError::NotFound)?;
        if migrations::is_newest(found)? {
            return Ok(());
        }
        self.begin()?;
        // Another process may have done it meanwhile.
        let found = self.version()?.ok_or(StoreError::NotFound)?;
        if migrations::is_newest(found)? {
            self.rollback();
            return Ok(());
        }
        self.script_patiently(&migrations::for_postgres(found)?)?;
        self.commit()
    }

    /// Demands that the schema, which must be there, has the newest number, and writes nothing from now on.
    fn demand_newest(&self) -> Result<(), StoreError> {
        migrations::newest(self.version()?.ok_or(StoreError::NotFound)?)?;
        self.script("SET default_transaction_read_only = on")
    }

    /// Whether the schema is there.
    pub(super) fn exists(self) -> Result<bool, StoreError> {
        Ok(self.version()?.is_some())
    }

    /// Number of the schema's tables; none when it is not there.
    fn version(&self) -> Result<Option<i64>, StoreError> {
        let there = "SELECT to_regclass($1 || '.meta') IS NOT NULL";
        let there = self.query(there, &[Value::Text(Some(&self.location.schema))])?;
        if !there.first().map_or(Ok(false), |row| get::<bool>(row, 0))? {
            return Ok(None);
        }
        let rows =
            self.query("SELECT value FROM meta WHERE name = $1", &[Value::Text(Some(migrations::NUMBER))])?;
        let number = rows.first().map(|row| get::<String>(row, 0)).transpose()?;
        let number = number.and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| super::rows::corrupted("the number of the schema"))
    }

    pub(super) fn begin(&self) -> Result<(), StoreError> {
        if !self.is_usable() {
            *self.session.borrow_mut() = connect(&self.location, &self.runtime)?;
            self.given_up.set(false);
            self.told.set(Some(Patience::Few));
        }
        let asked_at = SystemClock.monotonic();
        // Each statement sees what is committed when it begins: the last one, what the writer before has left.
        let begun = self.ask(PROMPT, &format!("BEGIN; {WRITERS}; {}", occupation::query()));
        let begun = begun.and_then(|answer| self.fence.admit(occupation::among(&answer)?.as_ref()));
        match (&begun, &self.confirmation) {
            (Ok(()), Some(confirmation)) => confirmation.confirm(asked_at),
            (Ok(()), None) => {}
            (Err(_), _) => self.rollback(),
        }
        begun
    }

    /// That the claim of this process stands, where there is one.
    pub(super) fn confirmation(&self) -> Option<Confirmation> {
        self.confirmation.clone()
    }

    /// Which process claimed the schema, if one ever did.
    pub(super) fn claim(&self) -> Result<Option<Claim>, StoreError> {
        occupation::among(&self.ask(PROMPT, &occupation::query())?)
    }

    pub(super) fn begin_reading(&self) -> Result<(), StoreError> {
        self.script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1 FROM meta LIMIT 1")
    }

    /// The first statement fails where one before has, so that a transaction that was given up is not taken for one that was kept.
    pub(super) fn commit(&self) -> Result<(), StoreError> {
        self.script("SELECT 1; COMMIT")
    }

    pub(super) fn rollback(&self) {
        self.told.set(None);
        // What cannot be told is given up with the connection.
        if self.is_usable() {
            let _ = self.ask(PROMPT, "ROLLBACK");
        }
    }

    /// What asks the server to give up the statement that it is at work on then.
    pub(super) fn canceller(&self) -> impl FnOnce() + Send + use<> {
        self.session.borrow().attached.canceller(&self.runtime)
    }

    /// Ends with the statement that it is at work on.
    pub(super) fn retire(&self) {
        self.given_up.set(true);
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.given_up.get() && !self.session.borrow().attached.client.is_closed()
    }

    pub(super) fn execute(&self, statement: &str, parameters: &[Value<'_>]) -> Result<usize, StoreError> {
        self.agree()?;
        let prepared = self.prepared(statement, parameters)?;
        let session = self.session.borrow();
        let changed = self.answer(session.attached.client.execute(&prepared, &by_reference(parameters)))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn query(&self, query: &str, parameters: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        self.agree()?;
        let prepared = self.prepared(query, parameters)?;
        let session = self.session.borrow();
        self.answer(session.attached.client.query(&prepared, &by_reference(parameters)))
    }

    fn ask(&self, limit: Duration, statements: &str) -> Result<Vec<SimpleQueryMessage>, StoreError> {
        let session = self.session.borrow();
        self.answer_within(limit, session.attached.client.simple_query(statements))
    }

    /// Does something that reads or changes as many rows as there are.
    pub(super) fn patiently<T>(&self, work: impl FnOnce() -> T) -> T {
        self.patience.set(Patience::Many);
        let outcome = work();
        self.patience.set(Patience::Few);
        outcome
    }

    /// Tells the server how long it may work on the next statement, where it was told something else.
    fn agree(&self) -> Result<(), StoreError> {
        let patience = self.patience.get();
        if self.told.get() != Some(patience) {
            self.ask(PROMPT, patience.setting())?;
            self.told.set(Some(patience));
        }
        Ok(())
    }

    fn script(&self, statements: &str) -> Result<(), StoreError> {
        self.agree()?;
        let session = self.session.borrow();
        self.answer(session.attached.client.batch_execute(statements))
    }

    /// As [`Self::script`] in a transaction, for as long as it takes: an index over many rows is made.
    fn script_patiently(&self, statements: &str) -> Result<(), StoreError> {
        let statements = format!("SET LOCAL statement_timeout = 0; {statements}");
        let session = self.session.borrow();
        self.runtime.block_on(session.attached.client.batch_execute(&statements)).map_err(unavailable)
    }

    fn answer<T>(&self, answer: impl Future<Output = Answered<T>>) -> Result<T, StoreError> {
        self.answer_within(self.patience.get().limit(), answer)
    }

    /// What the server answers, if it does in time, and is at work on it where that is long. What comes later over this session is
    /// nobody's answer.
    fn answer_within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Answered<T>>,
    ) -> Result<T, StoreError> {
        let step = limit.min(Patience::Few.limit());
        let session = self.session.borrow();
        let answered = self.runtime.block_on(async {
            let (mut answer, mut waited) = (std::pin::pin!(answer), Duration::ZERO);
            loop {
                if let Ok(answered) = tokio::time::timeout(step, answer.as_mut()).await {
                    return Some(answered);
                }
                waited += step;
                if waited >= limit || !still_at_work(&self.location, session.attached.process).await {
                    return None;
                }
            }
        });
        answered.map_or_else(
            || {
                self.given_up.set(true);
                session.attached.canceller(&self.runtime)();
                Err(late())
            },
            |answered| answered.map_err(unavailable),
        )
    }

    fn prepared(&self, statement: &str, parameters: &[Value<'_>]) -> Result<Statement, StoreError> {
        if let Some(prepared) = self.session.borrow().statements.get(statement) {
            return Ok(prepared.clone());
        }
        let types: Vec<Type> = parameters.iter().map(type_of).collect();
        let text = translated(statement);
        let prepared = {
            let session = self.session.borrow();
            self.answer(session.attached.client.prepare_typed(&text, &types))?
        };
        let mut session = self.session.borrow_mut();
        if session.statements.len() >= STATEMENTS {
            session.statements.clear();
        }
        session.statements.insert(statement.to_owned(), prepared.clone());
        Ok(prepared)
    }
}

/// SQLite's parameters as PostgreSQL writes them, without the index that SQLite's planner is told.
fn translated(statement: &str) -> String {
    let mut text = String::with_capacity(statement.len() + 16);
    let (mut rest, mut counted) = (statement, 0);
    while let Some((before, after)) = rest.split_once('?') {
        text.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = after.split_at(digits);
        counted += 1;
        text.push('$');
        text.push_str(&if number.is_empty() { counted.to_string() } else { number.to_owned() });
        rest = after;
    }
    text.push_str(rest);
    match text.split_once(" INDEXED BY ") {
        Some((before, after)) => {
            let after = after.split_once(' ').map_or("", |(_, after)| after);
            format!("{before} {after}")
        }
        None => text,
    }
}

fn type_of(value: &Value<'_>) -> Type {
    match value {
        Value::Bytes(_) => Type::BYTEA,
        Value::Integer(_) => Type::INT8,
        Value::Text(_) => Type::TEXT,
    }
}

fn by_reference<'v>(parameters: &'v [Value<'_>]) -> Vec<&'v (dyn ToSql + Sync)> {
    let reference = |value: &'v Value<'_>| match value {
        Value::Bytes(bytes) => bytes as &(dyn ToSql + Sync),
        Value::Integer(number) => number,
        Value::Text(text) => text,
    };
    parameters.iter().map(reference).collect()
}

/// A column.
pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, index: usize) -> Result<T, StoreError> {
    row.try_get(index).map_err(|error| super::rows::corrupted(&error.to_string()))
}

/// Whether a column is null, whatever its type.
pub(super) fn is_null(row: &Row, index: usize) -> Result<bool, StoreError> {
    Ok(get::<Option<Anything>>(row, index)?.is_none())
}

struct Anything;

impl FromSql<'_> for Anything {
    fn from_sql(_: &Type, _: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_as_postgres_does_it() {
        assert_eq!(
            translated("UPDATE t SET a = ?, b = ? WHERE c = ?"),
            "UPDATE t SET a = $1, b = $2 WHERE c = $3"
        );
        assert_eq!(translated("VALUES (?1, ?12, ?1)"), "VALUES ($1, $12, $1)");
        assert_eq!(
            translated("SELECT 1 FROM certificate c INDEXED BY an_index JOIN r ON 1 = ?1"),
            "SELECT 1 FROM certificate c JOIN r ON 1 = $1"
        );
    }

    #[test]
    fn a_place_that_could_be_overheard_or_shows_a_password_is_refused() {
        let place = |url: &str, schema: &str| Location::new(url, schema, None).err();
        assert_eq!(place("postgres://mentat@127.0.0.1:5432/ca", "mentat_ca"), None);
        assert_eq!(place("postgres://mentat@localhost/ca", "mentat_ca"), None);
        assert_eq!(place("postgres:///ca?host=/run/postgresql&user=mentat", "a1"), None);
        assert!(place("postgres://mentat@db.example.org/ca", "a").unwrap().contains("another machine"));
        assert!(place("postgres://mentat:secret@127.0.0.1/ca", "a").unwrap().contains("password_file"));
        let unreadable = place("postgres://mentat:secret@127.0.0.1:port/ca", "a").unwrap();
        assert!(!unreadable.contains("secret"), "{unreadable}");
        for schema in ["", "1a", "A", "a-b", "a; DROP", &"a".repeat(64)] {
            assert!(place("postgres://mentat@127.0.0.1/ca", schema).unwrap().contains("schema"), "{schema}");
        }
        let shown = Location::new("postgres://mentat@127.0.0.1/ca", "a", Some(b"hush")).unwrap();
        assert_eq!(format!("{shown} {shown:?}").matches("hush").count(), 0);
    }
}
