//! A witness (C2SP tlog-witness): cosigns a log's checkpoint when it extends every one it cosigned before.
//!
//! What was cosigned last is recorded per origin, durably, before a cosignature leaves; check and record are one step
//! under the origin's lock.

pub mod config;
pub mod http;
mod origins;
mod record;
pub mod state;
