//! executor-compiler
fn main() {}
