//! ca-service
fn main() {}
