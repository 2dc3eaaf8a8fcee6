//! The kernel half, as the user half sees it: which rung the gateway stands on, and why.

use std::fmt;

/// How much of the kernel half is at work. Each rung is correct without the ones above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    Userspace,
}

impl Rung {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What `--kernel` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    /// As much as this host and this build can do.
    #[default]
    Auto,
    /// Nothing in the kernel.
    Off,
    /// True load of each engine, from the kernel's own counts.
    Account,
    /// Everything.
    Full,
}

/// Takes the highest rung within what is wanted.
///
/// # Errors
/// When a rung is demanded that this build or host does not have.
pub fn stand(wanted: Wanted) -> Result<(Rung, &'static str), String> {
    match wanted {
        Wanted::Off => Ok((Rung::Userspace, "asked for by --kernel off")),
        Wanted::Auto => Ok((Rung::Userspace, "this build carries no eBPF programs")),
        Wanted::Account | Wanted::Full => {
            Err("--kernel account and --kernel full need eBPF programs, which this build does not carry; \
                 use --kernel auto"
                .into())
        }
    }
}
