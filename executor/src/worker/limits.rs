//! Limits of calls, as they travel.

use std::time::Duration;

use executor_engine::frames::GuestLimits;

use crate::runtime::{CallLimits, HostRates};

pub(super) fn written(limits: &CallLimits) -> GuestLimits {
    GuestLimits {
        memory: limits.memory as u64,
        scratch: limits.scratch as u64,
        table_elements: limits.table_elements as u64,
        instances: limits.instances as u64,
        cpu_us: micros(limits.cpu),
        wall_us: micros(limits.wall),
        input: limits.input as u64,
        output: limits.output as u64,
        streamed: limits.streamed,
        log_lines: limits.log_lines as u64,
        log_bytes: limits.log_bytes as u64,
        metrics: limits.metrics as u64,
        handles: limits.handles as u64,
        hostcall_bytes: limits.hostcall_bytes as u64,
        fuel: limits.fuel,
        log_lines_per_second: limits.rates.log_lines.into(),
        log_bytes_per_second: limits.rates.log_bytes.into(),
        metrics_per_second: limits.rates.metrics.into(),
    }
}

pub(super) fn read(limits: &GuestLimits) -> CallLimits {
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let rate = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    CallLimits {
        memory: size(limits.memory),
        scratch: size(limits.scratch),
        table_elements: size(limits.table_elements),
        instances: size(limits.instances),
        cpu: Duration::from_micros(limits.cpu_us),
        wall: Duration::from_micros(limits.wall_us),
        input: size(limits.input),
        output: size(limits.output),
        streamed: limits.streamed,
        log_lines: size(limits.log_lines),
        log_bytes: size(limits.log_bytes),
        metrics: size(limits.metrics),
        handles: size(limits.handles),
        hostcall_bytes: size(limits.hostcall_bytes),
        fuel: limits.fuel,
        rates: HostRates {
            log_lines: rate(limits.log_lines_per_second),
            log_bytes: rate(limits.log_bytes_per_second),
            metrics: rate(limits.metrics_per_second),
            // The executor counts what it is asked for.
            ..HostRates::default()
        },
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_arrive_as_they_left() {
        let mut limits = CallLimits { memory: 1, table_elements: 2, instances: 3, ..CallLimits::default() };
        limits.cpu = Duration::from_micros(4);
        limits.streamed = 5;
        limits.scratch = 9;
        limits.rates = HostRates { log_lines: 6, log_bytes: 7, metrics: 8, ..limits.rates };
        assert_eq!(read(&written(&limits)), limits);
    }
}
