//! The host that a request names, and the hostnames of listeners and routes.

use http::header::HOST;
use http::request::Parts;

use crate::snapshot::Hostname;

/// A host without port and trailing dot, in the client's own letter case; compare it with [`Host::is`]. IPv6
/// literals keep their brackets.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a>(&'a str);

impl<'a> Host<'a> {
    /// An absolute target's or HTTP/2's authority goes before the Host field (RFC 9112, section 3.2.2).
    #[must_use]
    pub fn of(parts: &'a Parts) -> Option<Self> {
        match parts.uri.authority() {
            Some(authority) => Self::parse(authority.as_str()),
            None => Self::parse(parts.headers.get(HOST)?.to_str().ok()?),
        }
    }

    /// `None` where nothing is left to compare.
    #[must_use]
    pub fn parse(authority: &'a str) -> Option<Self> {
        let start = memchr::memrchr(b'@', authority.as_bytes()).map_or(0, |at| at + 1);
        let host = &authority[start..];
        let end = match memchr::memchr(b']', host.as_bytes()) {
            Some(bracket) => bracket + 1,
            None => memchr::memchr(b':', host.as_bytes()).unwrap_or(host.len()),
        };
        let host = &host[..end];
        let host = host.strip_suffix('.').unwrap_or(host);
        (!host.is_empty()).then_some(Self(host))
    }

    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    #[must_use]
    pub fn is(self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }

    fn ends_with(self, suffix: &str) -> bool {
        let (host, suffix) = (self.0.as_bytes(), suffix.as_bytes());
        host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    }
}

/// A request without a host is admitted by `Any` alone.
pub(super) fn admits(hostname: &Hostname, host: Option<Host<'_>>) -> bool {
    match (hostname, host) {
        (Hostname::Any, _) => true,
        (_, None) => false,
        (Hostname::Exact(name), Some(host)) => host.is(name),
        (Hostname::Suffix(suffix), Some(host)) => host.ends_with(suffix),
    }
}

/// Greater is more specific: exact, then the longest wildcard, then any.
pub(super) fn specificity(hostname: &Hostname) -> (u8, usize) {
    match hostname {
        Hostname::Any => (0, 0),
        Hostname::Suffix(suffix) => (1, suffix.len()),
        Hostname::Exact(name) => (2, name.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_dots_and_users_are_cut_off() {
        for (authority, host) in [
            ("example.com", "example.com"),
            ("Example.COM:8080", "Example.COM"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("[::1]:8080", "[::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("user:pw@example.com:1", "example.com"),
            ("127.0.0.1:8080", "127.0.0.1"),
        ] {
            assert_eq!(Host::parse(authority).map(Host::as_str), Some(host), "{authority}");
        }
        for nothing in ["", ".", ":80", "@", "a@:1"] {
            assert!(Host::parse(nothing).is_none(), "{nothing}");
        }
    }

    #[test]
    fn hostnames_follow_the_gateway_api() {
        let exact = Hostname::Exact("api.example.com".into());
        let wildcard = Hostname::Suffix(".example.com".into());
        for (host, in_exact, in_wildcard) in [
            ("api.example.com", true, true),
            ("API.Example.Com:443", true, true),
            ("a.b.example.com", false, true),
            ("example.com", false, false),
            (".example.com", false, false),
            ("badexample.com", false, false),
            ("api.example.com.evil.org", false, false),
            ("éxample.com", false, false),
        ] {
            let host_ = Host::parse(host);
            assert_eq!(admits(&exact, host_), in_exact, "{host}");
            assert_eq!(admits(&wildcard, host_), in_wildcard, "{host}");
            assert!(admits(&Hostname::Any, host_));
        }
        assert!(admits(&Hostname::Any, None));
        assert!(!admits(&wildcard, None) && !admits(&exact, None));
    }
}
