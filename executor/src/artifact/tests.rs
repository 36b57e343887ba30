//! The cache against files that somebody else touched.

use std::time::Duration;

use executor_engine::{ModuleDigest, Profile};

use super::{ArtifactCache, CacheEvent, LoadError};
use crate::admission::{AdmittedModule, GrantSet};
use crate::runtime::CallLimits;
use crate::testing::{cache_of_size, compile_bomb, compiler_starts, put_compiler, runtime};

struct Fixture {
    state: tempfile::TempDir,
    cache: ArtifactCache,
    tokio: tokio::runtime::Runtime,
}

impl Fixture {
    fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap(), 1 << 30)
    }

    fn with_compiler(does: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        put_compiler(state.path(), does);
        Self::over(state, 1 << 30)
    }

    /// The same records, of which only so many bytes are kept.
    fn of_size(self, bytes: u64) -> Self {
        Self::over(self.state, bytes)
    }

    fn over(state: tempfile::TempDir, bytes: u64) -> Self {
        let cache = cache_of_size(state.path(), bytes);
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { state, cache, tokio }
    }

    fn load(&self, module: &[u8]) -> Result<CacheEvent, LoadError> {
        let admitted = AdmittedModule::for_test(module.to_vec(), GrantSet::default(), CallLimits::default());
        self.tokio
            .block_on(self.cache.load(runtime().engine(), Profile::Standard, &admitted))
            .map(|(_, event)| event)
    }

    fn record(&self, module: &[u8]) -> std::path::PathBuf {
        self.state.path().join("artifacts").join(format!("{}.standard-1", ModuleDigest::of(module)))
    }
}

fn module(value: i32) -> Vec<u8> {
    wat::parse_str(format!("(module (func (export \"process\") (result i32) i32.const {value}))")).unwrap()
}

#[test]
fn a_second_load_comes_from_the_cache() {
    let fixture = Fixture::new();
    assert_eq!(fixture.load(&module(1)).unwrap(), CacheEvent::Compiled);
    assert_eq!(fixture.load(&module(1)).unwrap(), CacheEvent::Hit);
    let component = wat::parse_str("(component (core module (func)))").unwrap();
    assert_eq!(fixture.load(&component).unwrap(), CacheEvent::Compiled);
    assert_eq!(fixture.load(&component).unwrap(), CacheEvent::Hit);
    fixture.cache.purge(ModuleDigest::of(&component));
    assert_eq!(fixture.load(&component).unwrap(), CacheEvent::Compiled);
}

#[test]
fn an_edited_record_is_replaced_not_loaded() {
    let fixture = Fixture::new();
    fixture.load(&module(1)).unwrap();
    let path = fixture.record(&module(1));
    let genuine = std::fs::read(&path).unwrap();
    let spots = [0, 5, 40, 60, 100, genuine.len() / 2, genuine.len() - 33, genuine.len() - 1];
    for spot in spots {
        let mut edited = genuine.clone();
        edited[spot] ^= 1;
        std::fs::write(&path, &edited).unwrap();
        assert!(matches!(fixture.load(&module(1)).unwrap(), CacheEvent::Replaced { .. }), "byte {spot}");
        assert_eq!(fixture.load(&module(1)).unwrap(), CacheEvent::Hit);
    }
}

#[test]
fn a_truncated_or_extended_record_is_replaced() {
    let fixture = Fixture::new();
    fixture.load(&module(1)).unwrap();
    let path = fixture.record(&module(1));
    let genuine = std::fs::read(&path).unwrap();
    let extended = [&genuine[..], b"x"].concat();
    for bytes in [&genuine[..0], &genuine[..10], &genuine[..genuine.len() - 1], &extended[..]] {
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(fixture.load(&module(1)).unwrap(), CacheEvent::Replaced { .. }), "{}", bytes.len());
    }
}

#[test]
fn a_genuine_record_of_another_module_is_replaced() {
    let fixture = Fixture::new();
    fixture.load(&module(1)).unwrap();
    fixture.load(&module(2)).unwrap();
    std::fs::copy(fixture.record(&module(2)), fixture.record(&module(1))).unwrap();
    let CacheEvent::Replaced { why } = fixture.load(&module(1)).unwrap() else { panic!("believed") };
    assert!(why.contains("digest"), "{why}");
}

#[test]
fn a_record_of_another_node_is_replaced() {
    let (here, there) = (Fixture::new(), Fixture::new());
    there.load(&module(1)).unwrap();
    std::fs::copy(there.record(&module(1)), here.record(&module(1))).unwrap();
    let CacheEvent::Replaced { why } = here.load(&module(1)).unwrap() else { panic!("believed") };
    assert!(why.contains("tag"), "{why}");
}

#[test]
fn machine_code_is_made_here_and_nowhere_else() {
    let fixture = Fixture::new();
    fixture.load(&module(1)).unwrap();
    let record = std::fs::read(fixture.record(&module(1))).unwrap();
    let start = record.windows(4).position(|window| window == b"\x7fELF").unwrap();
    let refused = fixture.load(&record[start..record.len() - 32]).unwrap_err();
    assert_eq!(refused.code(), "native_code_refused");
}

#[test]
fn a_refused_module_is_remembered() {
    let fixture = Fixture::new();
    let invalid = b"\0asm\x01\0\0\0\x01\x02\x03".as_slice();
    for _ in 0..2 {
        assert_eq!(fixture.load(invalid).unwrap_err().code(), "invalid_module");
    }
    assert!(fixture.cache.remembers_refusal(ModuleDigest::of(invalid)));
}

#[test]
fn a_compile_bomb_is_ended_by_its_budget_and_not_tried_again() {
    // A budget of two seconds in place of sixty; whatever compiles this needs far more.
    let fixture = Fixture::with_compiler("ulimit -t 2\nexec \"$WORKER\"");
    let bomb = compile_bomb();
    for _ in 0..2 {
        let refused = fixture.load(&bomb).unwrap_err();
        assert_eq!(refused.code(), "compile_budget");
        assert!(refused.to_string().contains("ended by signal 9"), "{refused}");
    }
    assert_eq!(compiler_starts(fixture.state.path()), 1, "it costs one worker's time");
    assert!(fixture.cache.remembers_refusal(ModuleDigest::of(&bomb)));
    assert_eq!(fixture.load(&module(3)).unwrap(), CacheEvent::Compiled, "others are compiled within it");
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let fixture = Fixture::new();
    for value in 0..3 {
        fixture.load(&module(value)).unwrap();
    }
    let paths = [0, 1, 2].map(|value| fixture.record(&module(value)));
    let size = paths.each_ref().map(|path| path.metadata().unwrap().len()).into_iter().max().unwrap();
    // Made long ago one after the other, and read a while ago: a file system does not note that one is read again within the day.
    let now = std::time::UNIX_EPOCH + Duration::from_nanos(crate::clock::unix_nanos());
    for (ago, path) in [(3, &paths[0]), (2, &paths[1]), (1, &paths[2])] {
        let (made, read) = (now - Duration::from_secs(ago * 86_400), now - Duration::from_secs(ago * 60));
        let times = std::fs::FileTimes::new().set_accessed(read).set_modified(made);
        std::fs::File::open(path).unwrap().set_times(times).unwrap();
    }
    assert_eq!(fixture.load(&module(0)).unwrap(), CacheEvent::Hit);
    let fixture = fixture.of_size(3 * size);
    assert_eq!(fixture.load(&module(3)).unwrap(), CacheEvent::Compiled);
    let there = paths.each_ref().map(|path| path.exists());
    assert_eq!(there, [true, false, true], "the one that was used longest ago went, and no other");
    assert!(fixture.record(&module(3)).exists());
    assert_eq!(fixture.load(&module(0)).unwrap(), CacheEvent::Hit);
    assert_eq!(fixture.load(&module(1)).unwrap(), CacheEvent::Compiled);
}
