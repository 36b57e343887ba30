//! mentatctl
fn main() {}
