//! The built binary, and how much of the kernel half it is to use.

use std::path::PathBuf;
use std::process::Command;

/// How much of the kernel half a gateway under test uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Off,
    SockDiag,
    Account,
    Full,
}

impl Kernel {
    pub const ALL: [Self; 4] = [Self::Off, Self::SockDiag, Self::Account, Self::Full];

    /// What `PENSTOCK_TEST_KERNEL` says for tests that are not about the kernel half.
    ///
    /// # Panics
    /// When it says nonsense.
    #[must_use]
    pub fn of_tests() -> Self {
        std::env::var("PENSTOCK_TEST_KERNEL").map_or(Self::Off, |word| Self::named(&word))
    }

    /// As `--kernel` names it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::SockDiag => "sock-diag",
            Self::Account => "account",
            Self::Full => "full",
        }
    }

    pub(super) fn named(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|kernel| kernel.word() == word);
        known.unwrap_or_else(|| panic!("no test runs with --kernel {word}"))
    }

    /// As the ready line names it.
    pub(super) fn rung(self) -> &'static str {
        match self {
            Self::Off => "userspace",
            Self::SockDiag => "sock_diag",
            Self::Account => "account",
            Self::Full => "full",
        }
    }

    /// Whether it pins programs.
    pub(super) fn pins(self) -> bool {
        matches!(self, Self::Account | Self::Full)
    }

    /// The binary on this rung. Programs are pinned in a mount namespace of the gateway's own: no other gateway of this
    /// host shares them, and a killed one leaves nothing behind.
    pub(super) fn penstock(self) -> Command {
        if !self.pins() {
            return self.bare();
        }
        let mounted = "mount -t bpf -o mode=0700 none /sys/fs/bpf && exec \"$0\" \"$@\"";
        wrapped(&["unshare", "--mount", "sh", "-c", mounted], &self.bare())
    }

    /// The binary on this rung, among the mounts of who starts it.
    pub(super) fn bare(self) -> Command {
        let mut penstock = penstock();
        penstock.env("PENSTOCK_KERNEL", self.word());
        penstock
    }
}

/// A command that is run by another.
pub(super) fn wrapped(by: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(by[0]);
    wrapped.args(&by[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Whether this process may load programs and make namespaces: in a container, root may have neither right.
///
/// # Panics
/// Without procfs.
#[must_use]
pub fn may_load() -> bool {
    const NET_ADMIN_AND_SYS_ADMIN: u64 = 1 << 12 | 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
    let effective = u64::from_str_radix(effective.trim(), 16).expect("a mask");
    effective & NET_ADMIN_AND_SYS_ADMIN == NET_ADMIN_AND_SYS_ADMIN
}

/// The built binary: `PENSTOCK_BIN`, or beside this test in the target folder.
pub(super) fn penstock() -> Command {
    let built = std::env::var_os("PENSTOCK_BIN").map(PathBuf::from).or_else(|| {
        let this = std::env::current_exe().ok()?;
        Some(this.parent()?.parent()?.join("penstock"))
    });
    let path = built.filter(|path| path.is_file());
    let path = path.expect("penstock is not built: `cargo build -p penstock`, or set PENSTOCK_BIN");
    let mut command = Command::new(path);
    // The surroundings do not configure the gateway under test.
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("PENSTOCK_")) {
        command.env_remove(name);
    }
    for name in ["NOTIFY_SOCKET", "JOURNAL_STREAM"] {
        command.env_remove(name);
    }
    // Gateways of one host share the kernel half: whoever wants it says so.
    command.env("PENSTOCK_KERNEL", Kernel::Off.word());
    command
}
