//! transparency-log
fn main() {}
