//! The request target and Host (RFC 9112 section 3.2, RFC 3986).

use std::net::Ipv6Addr;

/// Checks a request target; `Some` is the authority of an absolute one.
pub(super) fn check<'a>(method: &str, target: &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    match target {
        b"*" if method == "OPTIONS" => Ok(None),
        [b'/', ..] => check_path(target).map(|()| None),
        _ => {
            let rest = ["http://", "https://"]
                .iter()
                .find_map(|scheme| {
                    let (head, rest) = target.split_at_checked(scheme.len())?;
                    head.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
                })
                .ok_or("the request target is neither a path nor an http URI")?;
            let (authority, path) = rest.split_at(rest.iter().position(|&b| b == b'/').unwrap_or(rest.len()));
            check_host(authority)?;
            if !path.is_empty() {
                check_path(path)?;
            }
            Ok(Some(authority))
        }
    }
}

/// Checks a path with its query: the characters of RFC 3986, and the brackets and bars that browsers leave raw in
/// queries.
pub(super) fn check_path(target: &[u8]) -> Result<(), &'static str> {
    let (path, query) = target.split_at(memchr::memchr(b'?', target).unwrap_or(target.len()));
    if path.first() != Some(&b'/') {
        return Err("the path does not begin with a slash");
    }
    let escaped = memchr::memchr(b'%', target).is_some();
    if escaped {
        check_escapes(path)?;
        check_escapes(query)?;
    }
    if !path.iter().all(|&byte| PATH_BYTES[usize::from(byte)]) {
        return Err("the path holds a character that must be percent-encoded");
    }
    if !query.iter().all(|&byte| PATH_BYTES[usize::from(byte)] || matches!(byte, b'?' | b'[' | b']' | b'|')) {
        return Err("the query holds a character that must be percent-encoded");
    }
    if escaped && memchr::memmem::find(path, b"%00").is_some() {
        return Err("the path holds an encoded NUL");
    }
    // An engine that resolves them reads another path than the routes matched. Most paths have no byte of any.
    let may_have_dots = escaped || memchr::memchr(b'.', path).is_some();
    if may_have_dots && path.split(|&byte| byte == b'/').any(is_dot_segment) {
        return Err("the path has a `.` or `..` segment; send it resolved");
    }
    Ok(())
}

/// Checks a Host or authority: one host with an optional port, no user, no list. The name is letters, digits and
/// `-._~`: the other characters that RFC 3986 allows in a reg-name have no use in DNS and several readings.
pub(super) fn check_host(host: &[u8]) -> Result<(), &'static str> {
    let invalid = "Host is not a host name or address with an optional port";
    let (name, port) = match host {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|&byte| byte == b']').ok_or(invalid)?;
            let address = std::str::from_utf8(&rest[..end]).map_err(|_| invalid)?;
            address.parse::<Ipv6Addr>().map_err(|_| invalid)?;
            (&rest[..end], &rest[end + 1..])
        }
        _ => {
            let (name, port) =
                host.split_at(host.iter().position(|&byte| byte == b':').unwrap_or(host.len()));
            if !name.iter().copied().all(is_unreserved) {
                return Err(invalid);
            }
            (name, port)
        }
    };
    // 253 is the longest name of DNS in text.
    if name.is_empty() || name.len() > 253 {
        return Err(invalid);
    }
    match port {
        [] => Ok(()),
        [b':', digits @ ..] if (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            let port = digits.iter().fold(0, |port, digit| port * 10 + u32::from(digit - b'0'));
            if port <= u32::from(u16::MAX) { Ok(()) } else { Err(invalid) }
        }
        _ => Err(invalid),
    }
}

/// Every `%` stands before two hexadecimal digits.
fn check_escapes(text: &[u8]) -> Result<(), &'static str> {
    let whole = |at: usize| text.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if memchr::memchr_iter(b'%', text).all(whole) {
        Ok(())
    } else {
        Err("the request target has a bad percent-escape")
    }
}

fn is_dot_segment(segment: &[u8]) -> bool {
    let (mut rest, mut dots) = (segment, 0);
    while let [b'.', after @ ..] | [b'%', b'2', b'e' | b'E', after @ ..] = rest {
        rest = after;
        dots += 1;
    }
    rest.is_empty() && (dots == 1 || dots == 2)
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// [`is_path_byte`] of each byte.
const PATH_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = is_path_byte(byte as u8);
        byte += 1;
    }
    table
};

const fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'%' | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
                | b'/'
        )
}
