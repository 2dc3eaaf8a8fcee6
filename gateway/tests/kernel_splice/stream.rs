//! One stream in the middle of its answer, armed.

use socket2::SockRef;

use super::*;
use crate::relay::{End, Relay};

/// A client, a relay between, and an engine's end, with an answer begun and the splice armed.
pub(crate) struct Stream {
    pub(crate) client: TcpStream,
    pub(crate) engine: TcpStream,
    pub(crate) relay: std::thread::JoinHandle<(End, Tally)>,
}

impl Stream {
    pub(crate) fn begin(splice: &Arc<Splice>, budget: u64, small: bool) -> Self {
        let (front, at) = listen("127.0.0.1:0");
        let (engines, engine_at) = listen("127.0.0.1:0");
        let client = TcpStream::connect(at).unwrap();
        let accepted = front.accept().unwrap().0;
        if small {
            SockRef::from(&client).set_recv_buffer_size(8 << 10).unwrap();
            SockRef::from(&accepted).set_send_buffer_size(32 << 10).unwrap();
        }
        let relay = Relay::new(splice, accepted, engine_at, budget);
        if small {
            SockRef::from(&relay.engine.stream).set_recv_buffer_size(16 << 10).unwrap();
        }
        let mut engine = engines.accept().unwrap().0;
        engine.set_nodelay(true).unwrap();
        if small {
            SockRef::from(&engine).set_send_buffer_size(16 << 10).unwrap();
        }
        let relay = std::thread::spawn(move || relay.run());
        let mut stream = Self { client, engine: engine.try_clone().unwrap(), relay };
        stream.client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.client.write_all(REQUEST).unwrap();
        assert!(read_request(&mut engine));
        stream.write(HEAD);
        stream.write(&chunk(b"data: {\"first\":1}\n\n"));
        // Until the relay has it, and is armed.
        stream.expect(&[HEAD, &chunk(b"data: {\"first\":1}\n\n")].concat());
        std::thread::sleep(Duration::from_millis(if small { 3 } else { 20 }));
        stream
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.engine.write_all(bytes).unwrap();
    }

    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.client.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(bytes));
    }

    pub(crate) fn end(self) -> (End, Tally) {
        self.relay.join().unwrap()
    }
}
