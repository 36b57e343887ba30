//! A whole stack on loopback in one folder.

mod file;

pub use file::{ExecutorService, Log, STACK_FILE, Service, StackFile};
