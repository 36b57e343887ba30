//! What one more step of a pipeline costs: a fresh instance, its audit record and its receipt, and the bytes that the host carries.

use std::time::Duration;

use bytes::Bytes;
use executor::executor::Terms;

use crate::guests::pipeline_id;
use crate::stack::InProcess;
use crate::{Figures, median};

/// Steps of the longer pipeline.
pub(crate) const STEPS: usize = 16;

const BATCHES: usize = 15;
const CALLS: u32 = 40;

/// Calls of a pipeline of sixteen steps and of one of a single step, in turns; the difference is that of fifteen steps.
pub(crate) async fn measure(process: &InProcess, figures: &mut Figures) {
    let (one, many) = (pipeline_id(1), pipeline_id(STEPS));
    let (mut ones, mut manies) = (Vec::new(), Vec::new());
    calls(process, &many).await;
    for _ in 0..BATCHES {
        ones.push(calls(process, &one).await);
        manies.push(calls(process, &many).await);
    }
    let difference = median(manies).saturating_sub(median(ones));
    figures.insert("pipeline_step_us", difference.as_secs_f64() * 1e6 / (STEPS - 1) as f64);
}

/// The time of one call: a kibibyte in, and out again.
async fn calls(process: &InProcess, id: &str) -> Duration {
    let message = Bytes::from(vec![7; 1024]);
    let began = std::time::Instant::now();
    for _ in 0..CALLS {
        let done = process.executor.execute(id, message.clone(), Terms::default()).await.unwrap();
        assert_eq!(done.outcome.output, message);
    }
    began.elapsed() / CALLS
}
