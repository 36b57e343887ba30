//! wasmtime, with every limit on.
//!
//! | type | what it is |
//! |---|---|
//! | [`Runtime`] | one engine with its pool, its epoch thread and its linkers; one for each process |
//! | [`Prepared`] | a loaded module whose imports were checked against its grants: ready to instantiate |
//! | [`Call`] | input and limits of one call |
//! | [`Outcome`] | what came back: output, exit code, usage |
//! | [`Stop`] | why the host ended a guest |
//!
//! A fresh instance serves each call and is dropped after it, whatever happened: no guest sees what another one
//! left behind, and a store that trapped is never used again.

mod call;
mod call_error;
mod calls;
mod conduct;
mod control;
mod determined;
mod engine;
mod epoch;
mod limiter;
mod limits;
mod memory_maps;
mod places;
mod prepared;
mod rates;
mod read_along;
mod scratch_account;
mod state;
mod step;
mod trap;

pub(crate) use call::Ended;
pub use call::{Call, Outcome, Said, Usage};
pub use call_error::CallError;
pub use calls::LiveInstances;
pub(crate) use calls::{Held, Registration};
pub(crate) use conduct::{Asked, Conduct, NetworkUse, is_of_extension, is_of_network};
pub use control::{AdmissionId, Cancel, InstanceId, KillCause, LiveInstance, Owner, Selector};
pub use determined::Seed;
pub(crate) use determined::{BEGINNING, Determined, Draws, Purpose, STEP, VirtualClock};
pub use engine::{Runtime, RuntimeError};
pub use limits::{CallLimits, Lowered};
pub(crate) use prepared::{Code, EXPORTS};
pub use prepared::{PrepareError, Prepared};
pub(crate) use rates::Rated;
pub use rates::{HostRates, MAX_LOG_RATE, MAX_RATE};
pub(crate) use read_along::ReadAlong;
pub(crate) use scratch_account::ScratchAccount;
pub use state::Stop;
pub(crate) use state::{ClaimedUsage, GuestState};
pub use step::StepFailure;
pub(crate) use trap::trap_named;
