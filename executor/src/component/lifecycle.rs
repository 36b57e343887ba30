//! What a component of the world `agent-with-lifecycle` has called around `process`.
//!
//! Each call has an instance of its own, so `init` is called before every `process` and `shutdown` after it. `init` gets the granted
//! variables; where it gives a text, that is the error of the call. After a trap, a limit or a stop nothing of the guest is called
//! any more. `metadata` is not called at all: what a guest says of itself decides nothing, and its signed manifest says it.

use wasmtime::Store;
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, ComponentExportIndex, Instance};

use super::Failed;
use crate::runtime::{GuestState, PrepareError};

const INTERFACE: &str = "mentat:agent/lifecycle@1.0.0";

/// The two functions of a component that exports the interface.
pub(super) struct Lifecycle {
    init: ComponentExportIndex,
    shutdown: ComponentExportIndex,
}

impl Lifecycle {
    /// Those of `component`, if it has any.
    pub(super) fn of(component: &Component) -> Result<Option<Self>, PrepareError> {
        let Some(interface) = component.get_export_index(None, INTERFACE) else { return Ok(None) };
        let function = |name: &'static str, fits: fn(&ComponentFunc) -> bool| match component
            .get_export(Some(&interface), name)
        {
            Some((ComponentItem::ComponentFunc(ty), index)) if fits(&ty) => Ok(index),
            _ => Err(PrepareError::AbiSignatureMismatch {
                name: format!("{INTERFACE}.{name}"),
                hint: "see `lifecycle` in executor/wit/agent.wit".into(),
            }),
        };
        Ok(Some(Self { init: function("init", is_init)?, shutdown: function("shutdown", is_shutdown)? }))
    }

    /// Readies the instance; the text is the guest's own error.
    pub(super) async fn init(
        &self,
        store: &mut Store<GuestState>,
        instance: &Instance,
    ) -> Result<Result<(), String>, Failed> {
        let unknown = |_| Failed::Host(wasmtime::Error::msg("the variables cannot be had"));
        let config = store.data().variables().map_err(unknown)?;
        let init = instance
            .get_typed_func::<(Vec<(String, String)>,), (Result<(), String>,)>(&mut *store, &self.init)
            .map_err(Failed::Run)?;
        let (answer,) = init.call_async(&mut *store, (config,)).await.map_err(Failed::Run)?;
        Ok(answer)
    }

    /// Lets the instance end what it began.
    pub(super) async fn shutdown(
        &self,
        store: &mut Store<GuestState>,
        instance: &Instance,
    ) -> Result<(), Failed> {
        let shutdown = instance.get_typed_func::<(), ()>(&mut *store, &self.shutdown).map_err(Failed::Run)?;
        shutdown.call_async(&mut *store, ()).await.map_err(Failed::Run)
    }
}

/// `func(config: list<tuple<string, string>>) -> result<_, string>`
fn is_init(ty: &ComponentFunc) -> bool {
    let pairs = |ty: &Type| match ty {
        Type::List(list) => match list.ty() {
            Type::Tuple(pair) => {
                pair.types().len() == 2 && pair.types().all(|part| matches!(part, Type::String))
            }
            _ => false,
        },
        _ => false,
    };
    let outcome = |ty: &Type| match ty {
        Type::Result(result) => result.ok().is_none() && matches!(result.err(), Some(Type::String)),
        _ => false,
    };
    ty.params().len() == 1
        && ty.params().all(|(_, ty)| pairs(&ty))
        && ty.results().len() == 1
        && ty.results().all(|ty| outcome(&ty))
}

/// `func()`
fn is_shutdown(ty: &ComponentFunc) -> bool {
    ty.params().len() == 0 && ty.results().len() == 0
}

#[cfg(test)]
mod tests {
    use crate::admission::{GrantSet, GrantSources};
    use crate::runtime::{Call, CallLimits, Outcome, PrepareError};
    use crate::testing::texts::LIBC;
    use crate::testing::{prepare, runtime};

    /// Logs the first variable when it is readied, unless its value begins with `x`, and says when it is called and when it ends.
    fn agent(process: &str) -> String {
        format!(
            r#"(component
  (import "mentat:agent/types@1.0.0" (instance $types
    (type $level' (enum "error" "warn" "info" "debug" "trace"))
    (export "level" (type (eq $level')))))
  (alias export $types "level" (type $level))
  (import "mentat:agent/log@1.0.0" (instance $log
    (alias outer 1 $level (type $l'))
    (export "level" (type $l (eq $l')))
    (export "log" (func (param "level" $l) (param "message" string))))){LIBC}
  (core func $say (canon lower (func $log "log") (memory $libc "memory")))
  (core module $m
    (import "host" "log" (func $say (param i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 100) "process") (data (i32.const 200) "shutdown") (data (i32.const 300) "not so")
    (func (export "init") (param $list i32) (param $count i32) (result i32)
      (if (i32.ne (local.get $count) (i32.const 1)) (then unreachable))
      (call $say (i32.const 2) (i32.load (local.get $list)) (i32.load offset=4 (local.get $list)))
      (call $say (i32.const 2) (i32.load offset=8 (local.get $list)) (i32.load offset=12 (local.get $list)))
      (i32.store (i32.const 0) (i32.eq (i32.load8_u (i32.load offset=8 (local.get $list))) (i32.const 120)))
      (i32.store (i32.const 4) (i32.const 300))
      (i32.store (i32.const 8) (i32.const 6))
      (i32.const 0))
    (func (export "shutdown") (call $say (i32.const 2) (i32.const 200) (i32.const 8)))
    (func (export "process") (result i32)
      (call $say (i32.const 2) (i32.const 100) (i32.const 7))
      {process}
      (i32.store (i32.const 16) (i32.const 0)) (i32.const 16)))
  (core instance $m (instantiate $m
    (with "host" (instance (export "log" (func $say)))) (with "libc" (instance $libc))))
  (func $init (param "config" (list (tuple string string))) (result (result (error string)))
    (canon lift (core func $m "init") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (func $shutdown (canon lift (core func $m "shutdown")))
  (instance $lifecycle (export "init" (func $init)) (export "shutdown" (func $shutdown)))
  (export "mentat:agent/lifecycle@1.0.0" (instance $lifecycle))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $m "process") (memory $libc "memory"))))"#
        )
    }

    fn with_mode(value: &str) -> GrantSet {
        let granted = vec!["env:MODE".parse().unwrap()];
        let env = [("MODE".to_owned(), value.to_owned())].into();
        let sources = GrantSources { env, ..GrantSources::default() };
        sources.grant(&granted, granted.clone(), &[]).unwrap()
    }

    fn lines(outcome: &Outcome) -> Vec<&str> {
        outcome.log.iter().map(|line| line.text.as_str()).collect()
    }

    fn called(mode: &str) -> Outcome {
        let prepared = prepare(&agent(""), with_mode(mode), CallLimits::default()).unwrap();
        let first = runtime().call(&prepared, Call::default()).unwrap();
        let second = runtime().call(&prepared, Call::default()).unwrap();
        assert_eq!(first.log, second.log, "each call has an instance of its own");
        first
    }

    #[test]
    fn an_agent_is_readied_called_and_told_that_it_ends() {
        let outcome = called("fast");
        assert_eq!(outcome.exit_code, 0);
        assert_eq!(lines(&outcome), ["MODE", "fast", "process", "shutdown"]);
    }

    #[test]
    fn an_agent_that_cannot_be_readied_is_not_called() {
        let outcome = called("x");
        assert_eq!(outcome.exit_code, 1);
        assert_eq!(lines(&outcome), ["MODE", "x", "not so"]);
    }

    #[test]
    fn after_a_trap_nothing_of_a_guest_is_called() {
        let prepared = prepare(&agent("unreachable"), with_mode("fast"), CallLimits::default()).unwrap();
        let registration = runtime().register(&prepared, None);
        let ended = runtime().call_registered(&prepared, Call::default(), registration, None);
        assert_eq!(ended.result.unwrap_err().code(), "trap");
        let said: Vec<_> = ended.said.unwrap().log.into_iter().map(|line| line.text).collect();
        assert_eq!(said, ["MODE", "fast", "process"]);
    }

    #[test]
    fn a_lifecycle_of_another_shape_is_refused_when_it_is_loaded() {
        for (from, to, name) in [
            (r#"(param "config" (list (tuple string string)))"#, r#"(param "config" (list string))"#, "init"),
            (r#"(export "shutdown" (func $shutdown))"#, "", "shutdown"),
            (r#"(export "shutdown" (func $shutdown))"#, r#"(export "shutdown" (func $init))"#, "shutdown"),
        ] {
            let text = agent("").replace(from, to);
            let refused = prepare(&text, with_mode("fast"), CallLimits::default()).err().unwrap();
            let expected = format!("mentat:agent/lifecycle@1.0.0.{name}");
            assert!(
                matches!(&refused, PrepareError::AbiSignatureMismatch { name, .. } if *name == expected),
                "{refused:?}"
            );
        }
    }
}
