use parking_lot::Mutex;

use super::*;
use crate::admission::GrantSet;
use crate::executor::Terms;
use crate::runtime::CallLimits;
use crate::testing::{Server, wat_echo};

#[derive(Default)]
struct Kept(Mutex<Vec<TracedCall>>);

impl SpanSink for Kept {
    fn take(&self, call: TracedCall) {
        self.0.lock().push(call);
    }
}

impl Kept {
    /// The calls so far, once there are so many: a trace ends after the answer, with the record.
    async fn wait(&self, count: usize) -> Vec<TracedCall> {
        for _ in 0..5_000 {
            if self.0.lock().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let calls = self.0.lock().clone();
        assert_eq!(calls.len(), count);
        calls
    }
}

const PARENT: TraceParent = TraceParent { trace: [7; 16], span: [9; 8], sampled: true };

fn followed(tracer: &Tracer, parent: Option<TraceParent>) -> bool {
    tracer.begin(parent).is_some()
}

#[test]
fn a_share_of_new_traces_is_followed_and_what_the_caller_follows() {
    let kept: Arc<Kept> = Arc::default();
    let of = |ratio| Tracer::new(Arc::clone(&kept) as Arc<dyn SpanSink>, ratio);
    let count = |ratio| (0..2_000).filter(|_| followed(&of(ratio), None)).count();
    assert_eq!((count(0.0), count(1.0)), (0, 2_000));
    assert!((300..700).contains(&count(0.25)), "a quarter of 2000");
    for ratio in [0.0, 1.0] {
        assert!(followed(&of(ratio), Some(PARENT)));
        assert!(!followed(&of(ratio), Some(TraceParent { sampled: false, ..PARENT })));
    }
}

#[test]
fn phases_lie_within_the_call_and_follow_each_other() {
    let kept: Arc<Kept> = Arc::default();
    let tracer = Tracer::new(Arc::clone(&kept) as Arc<dyn SpanSink>, 1.0);
    let mut trace = tracer.begin(Some(PARENT)).unwrap();
    for phase in [Phase::Admission, Phase::Queue, Phase::Run, Phase::Receipt] {
        trace.enter(phase);
    }
    trace.end("success");
    drop(trace);
    drop(tracer.begin(None));
    let calls = kept.0.lock();
    assert_eq!((calls[0].trace, calls[0].parent), ([7; 16], Some([9; 8])));
    let mut last = calls[0].began;
    let mut ids = vec![calls[0].span];
    for (_, id, began, ended) in &calls[0].phases {
        assert!(*began >= last && ended >= began, "{calls:?}");
        last = *ended;
        assert!(!ids.contains(id), "{ids:?}");
        ids.push(*id);
    }
    assert!(calls[0].ended >= last);
    assert_eq!((calls[1].reason.as_str(), calls[1].parent), ("caller_gone", None));
    assert_ne!(calls[1].trace, calls[0].trace);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_one_trace_with_its_phases_and_a_refused_one_ends_where_it_was_refused() {
    let kept: Arc<Kept> = Arc::default();
    let server = Server::traced(Tracer::new(Arc::clone(&kept) as Arc<dyn SpanSink>, 1.0)).await;
    let digest = server.admit(wat_echo(), GrantSet::default(), CallLimits::default()).await;
    let terms = || Terms { trace: Some(PARENT), ..Terms::default() };
    let done = server.executor.execute("test.agent", bytes::Bytes::new(), terms()).await.unwrap();
    let denied = server.executor.execute("nobody", bytes::Bytes::new(), terms()).await.unwrap_err();
    assert_eq!(denied.code, "not_loaded");
    let calls = kept.wait(2).await;
    let call = calls.iter().find(|call| call.reason == "success").unwrap();
    let phases: Vec<Phase> = call.phases.iter().map(|(phase, ..)| *phase).collect();
    assert_eq!(phases, [Phase::Admission, Phase::Queue, Phase::Run, Phase::Receipt]);
    assert_eq!(call.agent.as_deref(), Some("test.agent"));
    assert_eq!(call.module, Some(digest.to_string()));
    assert_eq!(call.instance, Some(done.outcome.instance.to_string()));
    let refused = calls.iter().find(|call| call.reason == "not_loaded").unwrap();
    assert_eq!(refused.phases.iter().map(|(phase, ..)| *phase).collect::<Vec<_>>(), [Phase::Admission]);
    assert_eq!(
        (refused.agent.as_ref(), refused.parent),
        (None, Some([9; 8])),
        "names of callers are no attributes"
    );
}
