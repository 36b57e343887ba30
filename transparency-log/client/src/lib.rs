//! tlog-client
