//! From the self-test to the end of a gateway that is killed.

use std::collections::HashSet;

use penstock::kernel::splice::conformance;

use super::*;
use crate::relay::Relay;

const CHILD: &str = "PENSTOCK_TEST_SPLICE";

/// The body of the gateway that is killed; nothing when run as a test.
#[test]
fn a_gateway_of_its_own() {
    let Ok(engine) = std::env::var(CHILD) else { return };
    let splice = Living::load(64);
    let (front, at) = listen("127.0.0.1:0");
    println!("at {at}");
    Relay::new(&splice, front.accept().unwrap().0, engine.parse().unwrap(), u64::MAX).run();
}

#[test]
fn a_gateway_that_is_killed_takes_everything_with_it() {
    use std::io::BufRead;
    if !is_root() {
        return;
    }
    let _turn = turn();
    let (engines, engine_at) = listen("127.0.0.1:0");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::a_gateway_of_its_own", "--nocapture"])
        .env(CHILD, engine_at.to_string())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let at: SocketAddr = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("at ").and_then(|(_, at)| at.parse().ok()))
        .unwrap();
    let mut client = TcpStream::connect(at).unwrap();
    let mut engine = engines.accept().unwrap().0;
    engine.set_nodelay(true).unwrap();
    client.write_all(REQUEST).unwrap();
    assert!(read_request(&mut engine));
    engine.write_all(HEAD).unwrap();
    engine.write_all(&token()).unwrap();
    client.read_exact(&mut vec![0; HEAD.len() + token().len()]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let ours = programs_of(child.id());
    assert!(ours.len() >= 2, "{ours:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let failed = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        engine.write_all(&token()).is_err()
    });
    assert!(failed, "the engine goes on writing to a dead gateway");
    assert!(!matches!(client.read(&mut [0; 1]), Ok(1..)));
    drop(engine);
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let loaded: HashSet<u32> =
            aya::programs::loaded_programs().filter_map(|program| Some(program.ok()?.id())).collect();
        ours.is_disjoint(&loaded)
    });
    assert!(gone, "the programs outlive their gateway");
}

/// Ids of the programs that a process holds.
fn programs_of(process: u32) -> HashSet<u32> {
    let folder = std::fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap();
    let texts = folder.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let id = |text: String| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
    texts.filter_map(id).collect()
}

#[test]
fn this_kernel_passes_the_self_test_and_it_is_remembered() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    let splice = Splice::load(&place(), 64).unwrap();
    let memory = tempfile::tempdir().unwrap();
    let first = conformance(&splice, Some(memory.path()));
    eprintln!("{first:?}");
    assert_eq!(first.failed, None);
    let again = conformance(&splice, Some(memory.path()));
    assert_eq!((again.failed, again.notes, again.took), (None, first.notes, None));
}
