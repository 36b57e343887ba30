//! executor-engine
