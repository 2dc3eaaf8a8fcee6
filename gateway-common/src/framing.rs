//! One framing state machine for HTTP/1.1 bodies.
