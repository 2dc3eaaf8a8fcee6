//! Network namespaces: other hosts and containers, as far as TCP can tell. Takes root.

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace with loopback up, of a process that does nothing. Gone with its cables when dropped.
#[derive(Debug)]
pub struct Network(Child);

impl Network {
    /// # Panics
    /// When there is none to be had.
    #[must_use]
    pub fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 120"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut up = [0; 3];
        let stdout = holder.stdout.as_mut().expect("piped");
        Read::read_exact(stdout, &mut up).expect("a network namespace");
        Self(holder)
    }

    /// One with a cable to the network that the test is in, as a container has it; and its address.
    ///
    /// # Panics
    /// When the cable cannot be laid.
    #[must_use]
    pub fn container() -> (Self, IpAddr) {
        let there = Self::new();
        // RFC 2544, and no other test's.
        let (net, four) = (fastrand::u8(..), fastrand::u8(..64) * 4);
        let name = format!("pst{}", there.process());
        let here = |words: &str| run(Command::new("ip").args(words.split(' ')));
        here(&format!("link add {name} type veth peer name cable netns {}", there.process()));
        here(&format!("addr add 198.19.{net}.{}/30 dev {name}", four + 1));
        here(&format!("link set {name} up"));
        there.ip(&format!("addr add 198.19.{net}.{}/30 dev cable", four + 2));
        there.ip("link set cable up");
        (there, [198, 19, net, four + 2].into())
    }

    /// The process that holds it.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.0.id()
    }

    /// A command that runs inside.
    #[must_use]
    pub fn enter(&self, words: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.process().to_string(), "-n"]).args(words.split(' '));
        command
    }

    /// Runs a command of iproute2 inside.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, words: &str) {
        run(&mut self.enter(&format!("ip {words}")));
    }

    /// Does something inside: the sockets that it makes are there.
    ///
    /// # Panics
    /// When a thread cannot enter, or leave again.
    pub async fn inside<T>(&self, work: impl Future<Output = T>) -> T {
        let open = |of: &str| File::open(format!("/proc/{of}/ns/net")).expect("a namespace");
        let (there, home) = (open(&self.process().to_string()), open("thread-self"));
        let go = |to: &File| {
            move_into_link_name_space(to.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
        };
        let mut work = pin!(work);
        // A namespace is the thread's: others take their turns on it between two polls.
        poll_fn(|turn| {
            go(&there);
            let polled = work.as_mut().poll(turn);
            go(&home);
            polled
        })
        .await
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

fn run(command: &mut Command) {
    assert!(command.status().expect("a command").success(), "{command:?}");
}

impl Drop for Network {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
