//! `extension:key-value`: what an agent keeps from one call to the next, in memory.
//!
//! | operation | arguments | answer |
//! |---|---|---|
//! | `get` | a key | its value |
//! | `put` | a key, a zero byte, a value | nothing |
//! | `delete` | a key | nothing, whether there was one or not |
//! | `list` | the beginning of keys | those keys in order, a line each |
//!
//! A key is 1 to 256 bytes of UTF-8 without control characters. Everything is gone when the executor ends, and an agent's part when its
//! last release is unloaded: it is a cache with an owner, not a database. A grant of `extension:key-value:read` gets and lists only.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{ExtensionError, HostExtension, Invocation, Operation, Tenant};

/// The name of the capability.
pub const NAME: &str = "key-value";

/// The argument of a grant that changes nothing.
const READ: &str = "read";

/// Longest key, bytes.
const MAX_KEY: usize = 256;

/// Largest value that any configuration allows, bytes.
pub const MAX_VALUE: usize = 1 << 20;

/// Most that any configuration gives one agent, bytes: a list of all its keys is one answer.
pub const MAX_AGENT: usize = 4 << 20;

/// What an entry costs beside its key and value: it is in two trees, and small ones must not cost more than they count for.
const ENTRY: usize = 256;

const OPERATIONS: &[Operation] = &[
    Operation { name: "delete", arguments: MAX_KEY, answer: 0 },
    Operation { name: "get", arguments: MAX_KEY, answer: MAX_VALUE },
    Operation { name: "list", arguments: MAX_KEY, answer: MAX_AGENT },
    Operation { name: "put", arguments: MAX_KEY + 1 + MAX_VALUE, answer: 0 },
];

/// How much is kept, bytes. An entry counts its key, its value and 256 more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyValueLimits {
    /// One value.
    pub value: usize,
    /// One agent.
    pub agent: usize,
    /// All agents.
    pub total: usize,
}

impl Default for KeyValueLimits {
    fn default() -> Self {
        Self { value: 64 << 10, agent: 1 << 20, total: 64 << 20 }
    }
}

/// The store.
#[derive(Debug)]
pub struct KeyValue {
    limits: KeyValueLimits,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tenants: BTreeMap<Tenant, Space>,
    used: usize,
}

/// What one agent keeps. There is none without an entry.
#[derive(Debug, Default)]
struct Space {
    entries: BTreeMap<String, Bytes>,
    used: usize,
}

fn cost(key: &str, value: &[u8]) -> usize {
    ENTRY.saturating_add(key.len()).saturating_add(value.len())
}

impl KeyValue {
    /// An empty store.
    pub fn new(limits: KeyValueLimits) -> Self {
        Self { limits, kept: Mutex::default() }
    }

    /// Bytes that all agents use.
    pub fn used(&self) -> usize {
        self.kept.lock().used
    }

    fn get(&self, tenant: &Tenant, key: &str) -> Result<Vec<u8>, ExtensionError> {
        let value = self.kept.lock().tenants.get(tenant).and_then(|space| space.entries.get(key).cloned());
        // Copied when others may go on.
        value.map(Vec::from).ok_or(ExtensionError::NotFound)
    }

    fn put(&self, tenant: &Tenant, key: &str, value: &[u8]) -> Result<(), ExtensionError> {
        if value.len() > self.limits.value {
            return Err(ExtensionError::Quota("the value is larger than one may be"));
        }
        let (new, value) = (cost(key, value), Bytes::copy_from_slice(value));
        let mut kept = self.kept.lock();
        let Kept { tenants, used } = &mut *kept;
        let space = tenants.get(tenant);
        let old = space.and_then(|space| Some(cost(key, space.entries.get(key)?))).unwrap_or_default();
        let of_agent = space.map_or(0, |space| space.used).saturating_sub(old).saturating_add(new);
        let of_all = used.saturating_sub(old).saturating_add(new);
        if of_agent > self.limits.agent {
            return Err(ExtensionError::Quota("the agent keeps as much as one may"));
        }
        if of_all > self.limits.total {
            return Err(ExtensionError::Quota("all agents together keep as much as they may"));
        }
        let space = tenants.entry(tenant.clone()).or_default();
        space.entries.insert(key.to_owned(), value);
        (space.used, *used) = (of_agent, of_all);
        Ok(())
    }

    fn delete(&self, tenant: &Tenant, key: &str) {
        let mut kept = self.kept.lock();
        let Kept { tenants, used } = &mut *kept;
        let Some(space) = tenants.get_mut(tenant) else { return };
        let Some(value) = space.entries.remove(key) else { return };
        let freed = cost(key, &value);
        space.used = space.used.saturating_sub(freed);
        *used = used.saturating_sub(freed);
        if space.entries.is_empty() {
            tenants.remove(tenant);
        }
    }

    fn list(&self, tenant: &Tenant, prefix: &str) -> Vec<u8> {
        let kept = self.kept.lock();
        let Some(space) = kept.tenants.get(tenant) else { return Vec::new() };
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let keys = space.entries.range::<str, _>(from).map(|(key, _)| key);
        let mut lines = Vec::new();
        for key in keys.take_while(|key| key.starts_with(prefix)) {
            lines.extend_from_slice(key.as_bytes());
            lines.push(b'\n');
        }
        lines
    }
}

/// Text that can stand in a line, of any length from 0 on.
fn text(bytes: &[u8]) -> Result<&str, ExtensionError> {
    let malformed = ExtensionError::Malformed("a key is 1 to 256 bytes of UTF-8 without control characters");
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= MAX_KEY && !text.chars().any(char::is_control) => Ok(text),
        _ => Err(malformed),
    }
}

fn key(bytes: &[u8]) -> Result<&str, ExtensionError> {
    match text(bytes)? {
        "" => Err(ExtensionError::Malformed("a key is not empty")),
        key => Ok(key),
    }
}

impl HostExtension for KeyValue {
    fn name(&self) -> &str {
        NAME
    }

    fn operations(&self) -> &'static [Operation] {
        OPERATIONS
    }

    fn knows(&self, argument: &str) -> bool {
        argument == READ
    }

    fn invoke(&self, invocation: &Invocation<'_>) -> Result<Vec<u8>, ExtensionError> {
        let Invocation { tenant, argument, operation, arguments, .. } = invocation;
        if argument.is_some() && !matches!(*operation, "get" | "list") {
            return Err(ExtensionError::Denied("the grant is to read"));
        }
        match *operation {
            "get" => self.get(tenant, key(arguments)?),
            "list" => Ok(self.list(tenant, text(arguments)?)),
            "delete" => {
                self.delete(tenant, key(arguments)?);
                Ok(Vec::new())
            }
            "put" => {
                let zero = arguments.iter().position(|byte| *byte == 0);
                let parts = zero.and_then(|at| Some((arguments.get(..at)?, arguments.get(at + 1..)?)));
                let (name, value) = parts
                    .ok_or(ExtensionError::Malformed("a zero byte stands between a key and its value"))?;
                self.put(tenant, key(name)?, value)?;
                Ok(Vec::new())
            }
            _ => Err(ExtensionError::Malformed("there is no such operation")),
        }
    }

    fn forget(&self, agent: &str) {
        let mut kept = self.kept.lock();
        let Kept { tenants, used } = &mut *kept;
        tenants.retain(|tenant, space| {
            let stays = tenant.agent != agent;
            if !stays {
                *used = used.saturating_sub(space.used);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extensions::Extensions;
    use crate::runtime::Cancel;

    fn tenant(agent: &str, signer: &str) -> Tenant {
        Tenant { agent: agent.into(), signer: signer.into(), issuer: "https://issuer.example".into() }
    }

    fn by(
        store: &KeyValue,
        tenant: &Tenant,
        argument: Option<&str>,
        operation: &str,
        arguments: &[u8],
    ) -> Result<Vec<u8>, ExtensionError> {
        let (deadline, cancel) = (crate::clock::monotonic(), Cancel::default());
        store.invoke(&Invocation { tenant, argument, operation, arguments, deadline, cancel: &cancel })
    }

    #[test]
    fn what_was_put_is_got_listed_and_deleted() {
        let (store, agent) = (KeyValue::new(KeyValueLimits::default()), tenant("a", "x"));
        let ask = |operation: &str, arguments: &[u8]| by(&store, &agent, None, operation, arguments);
        assert_eq!(ask("get", b"one"), Err(ExtensionError::NotFound));
        assert_eq!(ask("list", b""), Ok(Vec::new()));
        for entry in [&b"user/2\0b\0c"[..], b"user/1\0", b"other\0\xff"] {
            assert_eq!(ask("put", entry), Ok(Vec::new()));
        }
        assert_eq!(ask("get", b"user/2"), Ok(b"b\0c".to_vec()));
        assert_eq!(ask("get", b"user/1"), Ok(Vec::new()));
        assert_eq!(ask("list", b""), Ok(b"other\nuser/1\nuser/2\n".to_vec()));
        assert_eq!(ask("list", b"user/"), Ok(b"user/1\nuser/2\n".to_vec()));
        assert_eq!(ask("put", b"user/2\0"), Ok(Vec::new()), "it is replaced");
        for _ in 0..2 {
            assert_eq!(ask("delete", b"user/2"), Ok(Vec::new()));
        }
        assert_eq!(ask("get", b"user/2"), Err(ExtensionError::NotFound));
        for (operation, arguments) in [
            ("get", &b""[..]),
            ("get", b"a\nb"),
            ("get", b"\xff"),
            ("put", b"no end of the key"),
            ("put", b"\0value"),
            ("delete", &[b'k'; MAX_KEY + 1]),
        ] {
            let refused = ask(operation, arguments).unwrap_err();
            assert_eq!(refused.reason(), Some("extension_malformed"), "{operation} {arguments:?}");
        }
    }

    #[test]
    fn an_agent_sees_nothing_of_another_one_nor_of_its_name_under_another_publisher() {
        let store = KeyValue::new(KeyValueLimits::default());
        let first = tenant("a", "x");
        let others = [
            tenant("b", "x"),
            tenant("a", "y"),
            Tenant { issuer: "https://other.example".into(), ..first.clone() },
        ];
        by(&store, &first, None, "put", b"secret\0value").unwrap();
        for other in &others {
            assert_eq!(by(&store, other, None, "get", b"secret"), Err(ExtensionError::NotFound), "{other:?}");
            assert_eq!(by(&store, other, None, "list", b""), Ok(Vec::new()), "{other:?}");
            by(&store, other, None, "put", b"secret\0other").unwrap();
            by(&store, other, None, "delete", b"secret").unwrap();
        }
        assert_eq!(by(&store, &first, None, "get", b"secret"), Ok(b"value".to_vec()));
        store.forget("b");
        assert_eq!(by(&store, &first, None, "get", b"secret"), Ok(b"value".to_vec()));
        store.forget("a");
        assert_eq!(by(&store, &first, None, "get", b"secret"), Err(ExtensionError::NotFound));
        assert_eq!(store.used(), 0);
    }

    #[test]
    fn a_value_an_agent_and_all_of_them_have_a_bound_each_and_deleting_makes_room() {
        let limits = KeyValueLimits { value: 100, agent: 2 * (ENTRY + 101), total: 3 * (ENTRY + 101) };
        let (store, first, second) = (KeyValue::new(limits), tenant("a", "x"), tenant("b", "x"));
        let put = |who: &Tenant, key: &str, size: usize| {
            let entry = [key.as_bytes(), b"\0", &vec![b'v'; size]].concat();
            by(&store, who, None, "put", &entry).map_err(|refused| refused.reason().unwrap().to_owned())
        };
        assert_eq!(put(&first, "1", 101), Err("extension_quota".to_owned()), "the value");
        for key in ["1", "2"] {
            assert_eq!(put(&first, key, 100), Ok(Vec::new()));
        }
        assert_eq!(put(&first, "3", 0), Err("extension_quota".to_owned()), "the agent");
        assert_eq!(put(&first, "2", 100), Ok(Vec::new()), "what is replaced counts once");
        assert_eq!(put(&second, "1", 100), Ok(Vec::new()));
        assert_eq!(put(&second, "2", 0), Err("extension_quota".to_owned()), "all of them");
        assert_eq!(store.used(), limits.total);
        by(&store, &first, None, "delete", b"1").unwrap();
        assert_eq!(put(&second, "2", 0), Ok(Vec::new()));
        by(&store, &first, None, "delete", b"2").unwrap();
        assert_eq!(store.kept.lock().tenants.len(), 1, "nothing is kept of who keeps nothing");
    }

    #[test]
    fn a_grant_to_read_changes_nothing() {
        let (store, agent) = (KeyValue::new(KeyValueLimits::default()), tenant("a", "x"));
        by(&store, &agent, None, "put", b"k\0v").unwrap();
        for (operation, arguments) in [("put", &b"k\0w"[..]), ("delete", b"k")] {
            let refused = by(&store, &agent, Some(READ), operation, arguments).unwrap_err();
            assert_eq!(refused.reason(), Some("extension_denied"), "{operation}");
        }
        assert_eq!(by(&store, &agent, Some(READ), "get", b"k"), Ok(b"v".to_vec()));
        assert_eq!(by(&store, &agent, Some(READ), "list", b""), Ok(b"k\n".to_vec()));
    }

    #[test]
    fn it_can_be_registered_and_its_largest_answers_fit_its_operations() {
        let mut extensions = Extensions::default();
        let store = std::sync::Arc::new(KeyValue::new(KeyValueLimits::default()));
        extensions.register(store).unwrap();
        assert_eq!(extensions.names().collect::<Vec<_>>(), [NAME]);
        // Keys cost more than their lines, so that a list is never longer than what one agent may keep.
        assert!(cost("k", b"") > "k\n".len());
        assert_eq!(extensions.lacks(NAME, Some(READ)), None);
        assert!(extensions.lacks(NAME, Some("write")).is_some());
    }
}
