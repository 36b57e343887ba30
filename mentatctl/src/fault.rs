//! The last line of defence: a fault of this program itself is one line and exit code 1, never a backtrace and code 101.
//! What was running is dropped on the way, so servers are stopped and temporary folders go.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::sync::{Arc, Mutex, PoisonError};

use crate::exit::{Failure, Outcome};

/// Runs work; a panic in it becomes a failure.
///
/// # Errors
/// What the work reports; exit code 1 with the code `internal` when it panicked.
pub fn contained<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let place = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&place);
    // Instead of the hook that prints a backtrace: the last place counts, the one that was not caught.
    set_hook(Box::new(move |fault| {
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = described(fault);
    }));
    // Nothing that the work changed is looked at afterwards.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let place = place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(Failure::failed(format!("mentatctl itself is at fault: {place}"))
            .code("internal")
            .hint("please report this line with the command; repeating the command is safe"))
    })
}

fn described(fault: &PanicHookInfo<'_>) -> String {
    let said = fault.payload_as_str().unwrap_or("no reason given");
    let place = fault.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
    format!("{said}{}", place.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]

    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_fault_is_one_line_with_exit_code_1() {
        let failure =
            contained::<()>(|| panic!("two\nlines")).map_err(|failure| (failure.exit, failure.line()));
        let _ = std::panic::take_hook();
        let Err((exit, line)) = failure else { panic!("a panic was taken for success") };
        assert_eq!(exit, Exit::Failure);
        assert!(line.starts_with("mentatctl itself is at fault: two lines at "), "{line}");
        assert!(line.contains("fault.rs") && line.contains("[internal]; "), "{line}");
        assert!(contained(|| Ok(())).is_ok());
        let _ = std::panic::take_hook();
    }
}
