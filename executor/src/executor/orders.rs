//! Orders of administrators: carried out to their end, also when whoever gave one goes away.
//!
//! The future of a request is dropped with its connection. An order that ended there would be in force in one place and not in the next:
//! a release that is held and runs on, an agent that is gone and whose record brings it back.

use crate::admission::Denied;

/// Carries out an order in a task of its own, and waits for it as long as anybody wants to know.
pub(super) async fn carried_out<T: Send + 'static>(
    order: impl Future<Output = Result<T, Denied>> + Send + 'static,
) -> Result<T, Denied> {
    tokio::spawn(order).await.unwrap_or_else(|error| {
        Err(Denied::new("internal", "the order failed").for_operator(error.to_string()))
    })
}
