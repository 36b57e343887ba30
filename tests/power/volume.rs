//! A small ext4 in a file, on a loop device.

use std::path::{Path, PathBuf};
use std::process::Command;

/// `EXT4_IOC_SHUTDOWN` with the flag that forgets the journal in memory: everything since the last sync is gone, as when
/// the power fails.
const SHUTDOWN: &str =
    "open(my $d, '<', $ARGV[0]) or die; my $flag = pack('L', 2); ioctl($d, 0x8004587d, $flag) or die";

/// What this machine lacks, if anything.
pub(crate) fn missing() -> Option<String> {
    let output = Command::new("id").arg("-u").output().ok()?;
    if output.stdout.trim_ascii() != b"0" {
        return Some("only root may mount".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices".to_owned());
    }
    ["mkfs.ext4", "mount", "umount", "perl"].into_iter().find_map(|program| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        (!found.is_ok_and(|output| output.status.success())).then(|| format!("{program} is not installed"))
    })
}

/// A mounted volume; unmounted and removed when dropped.
pub(crate) struct Volume {
    folder: tempfile::TempDir,
    mounted: bool,
}

impl Volume {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut volume = Self { folder, mounted: false };
        std::fs::File::create(volume.image()).unwrap().set_len(96 << 20).unwrap();
        std::fs::create_dir(volume.path()).unwrap();
        run("mkfs.ext4", &["-q".as_ref(), volume.image().as_path()]);
        volume.power_on();
        volume
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// From now on every access fails, and what was not synced is gone.
    pub(crate) fn cut_power(&self) {
        run("perl", &["-e".as_ref(), SHUTDOWN.as_ref(), self.path().as_path()]);
    }

    /// Mounts it, again if need be: the file system replays its journal.
    pub(crate) fn power_on(&mut self) {
        if self.mounted {
            run("umount", &[self.path().as_path()]);
        }
        run("mount", &["-o".as_ref(), "loop".as_ref(), self.image().as_path(), self.path().as_path()]);
        self.mounted = true;
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            // Nothing else can be done about it here.
            let _ = Command::new("umount").arg(self.path()).status();
        }
    }
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
