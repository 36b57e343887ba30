//! The processor features that generated code may use.

/// The features of this processor that the code generator looks for, as one line.
///
/// An artifact made for a richer processor would fault on a poorer one, so the line is part of every stored
/// record: a cache that moves to another machine is simply compiled again.
pub fn host_features() -> String {
    let mut line = String::from(std::env::consts::ARCH);
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($name:tt)*) => { $( if std::arch::is_x86_feature_detected!($name) { line.push_str(concat!("+", $name)); } )* };
        }
        detect!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "bmi1" "bmi2" "lzcnt" "cmpxchg16b"
                "avx512f" "avx512bitalg" "avx512dq" "avx512vbmi" "avx512vl");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! detect {
            ($($name:tt)*) => { $( if std::arch::is_aarch64_feature_detected!($name) { line.push_str(concat!("+", $name)); } )* };
        }
        detect!("lse" "paca" "fp16" "dotprod");
    }
    line
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_the_architecture_and_is_stable() {
        let line = super::host_features();
        assert!(line.starts_with(std::env::consts::ARCH));
        assert_eq!(line, super::host_features());
    }
}
