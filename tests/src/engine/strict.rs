//! What the strictest engine would say to a request head: everything that could be read in two ways is refused,
//! so that nothing bad passes Penstock unseen.

use crate::wire::{Framing, Head};

/// How the body of a request is framed, or why a strict engine answers 400.
pub(super) fn judge(head: &Head) -> Result<Framing, String> {
    check_bytes(&head.raw)?;
    check_start(&head.start)?;
    check_lines(&head.raw)?;
    check_host(head)?;
    framing(head)
}

fn check_bytes(raw: &[u8]) -> Result<(), String> {
    for (at, &byte) in raw.iter().enumerate() {
        let next = raw.get(at + 1);
        let bad = match byte {
            b'\r' => next != Some(&b'\n'),
            b'\n' => at == 0 || raw[at - 1] != b'\r',
            b'\t' => false,
            _ => byte < 0x20 || byte == 0x7f,
        };
        if bad {
            return Err(format!("byte {byte:#04x} at {at} of the head"));
        }
    }
    Ok(())
}

fn check_start(start: &str) -> Result<(), String> {
    let words: Vec<&str> = start.split(' ').collect();
    let [method, target, version] = words[..] else {
        return Err(format!("request line {start:?}"));
    };
    let target_ok = target.starts_with('/') && !target.contains('#') && target.is_ascii();
    let plain = is_token(method) && (target_ok || target == "*") && version == "HTTP/1.1";
    if plain { Ok(()) } else { Err(format!("request line {start:?}")) }
}

fn check_lines(raw: &[u8]) -> Result<(), String> {
    let lines = raw.split(|&b| b == b'\n').skip(1);
    for line in lines.map(|l| l.strip_suffix(b"\r").unwrap_or(l)).filter(|l| !l.is_empty()) {
        let name = line.split(|&b| b == b':').next().unwrap_or_default();
        let named = line.contains(&b':') && std::str::from_utf8(name).is_ok_and(is_token);
        if !named {
            return Err(format!("field line {:?}", String::from_utf8_lossy(line)));
        }
    }
    Ok(())
}

fn check_host(head: &Head) -> Result<(), String> {
    match head.all("host")[..] {
        [host] if !host.is_empty() && !host.contains(['/', '?', '#', '@', ',', ' ', '\t']) => Ok(()),
        ref hosts => Err(format!("Host {hosts:?}")),
    }
}

fn framing(head: &Head) -> Result<Framing, String> {
    match (&head.all("content-length")[..], &head.all("transfer-encoding")[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            length.parse().map(Framing::Length).map_err(|_| format!("Content-Length {length:?}"))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        both => Err(format!("Content-Length and Transfer-Encoding {both:?}")),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge_text(text: &str) -> Result<Framing, String> {
        judge(&Head::parse(text.as_bytes()))
    }

    #[test]
    fn plain_heads_pass() {
        let head = "POST /v1/x?y=1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(judge_text(head), Ok(Framing::Length(5)));
        let head = "POST / HTTP/1.1\r\nhost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(judge_text(head), Ok(Framing::Chunked));
    }

    #[test]
    fn heads_that_could_be_read_in_two_ways_do_not() {
        for head in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a/b@c\r\n\r\n",
            "POST / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\n\r\n",
            "POST http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(judge_text(head).is_err(), "{head:?}");
        }
    }
}
