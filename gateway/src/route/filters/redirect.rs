//! The answer of a rule that redirects.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue, LOCATION};
use http::{Response, StatusCode};

use super::{path, unusable};
use crate::failure::{Failure, Reason};
use crate::route::Asked;
use crate::snapshot::{PathMatch, Redirect};

/// How the request came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    pub tls: bool,
    /// The listener's.
    pub port: u16,
}

/// The whole answer. Its Location is always absolute, so that a path such as `//evil.org` stays a path.
pub fn redirect(
    redirect: &Redirect,
    matched: &PathMatch,
    asked: &Asked<'_>,
    arrived: Arrived,
) -> Result<Response<Bytes>, Failure> {
    let host = match (&redirect.hostname, asked.host) {
        (Some(hostname), _) => hostname,
        (None, Some(host)) => host.as_str(),
        (None, None) => {
            return Err(Failure::new(Reason::HeadInvalid, "this rule redirects; send a Host to be sent to"));
        }
    };
    let scheme = redirect.scheme.as_deref().unwrap_or(if arrived.tls { "https" } else { "http" });
    let mut location = format!("{scheme}://{host}");
    if let Some(port) = port(redirect, scheme, arrived.port) {
        location.push_str(&format!(":{port}"));
    }
    match &redirect.path {
        Some(rewrite) => location.push_str(&path::rewritten(rewrite, matched, asked.path)),
        None => location.push_str(asked.path),
    }
    if let Some(query) = asked.query {
        location.push('?');
        location.push_str(query);
    }
    let location = HeaderValue::try_from(location).map_err(|_| unusable("hostname or path"))?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(response)
}

/// The port to spell out. Unnamed, it follows a named scheme, else it is the listener's (HTTPRequestRedirectFilter).
fn port(redirect: &Redirect, scheme: &str, listener: u16) -> Option<u16> {
    let well_known = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let port = redirect.port.unwrap_or(match (&redirect.scheme, well_known) {
        (Some(_), Some(well_known)) => well_known,
        _ => listener,
    });
    (Some(port) != well_known).then_some(port)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::snapshot::PathRewrite;

    const PLAIN: Redirect = Redirect { scheme: None, hostname: None, path: None, port: None, status: 302 };

    fn answer(filter: &Redirect, uri: &str, arrived: Arrived) -> Result<Response<Bytes>, Failure> {
        let request = Request::get(uri).header("host", "Client.org:8080").body(()).unwrap();
        let parts = request.into_parts().0;
        redirect(filter, &PathMatch::Prefix("/foo".into()), &Asked::new(&parts, None), arrived)
    }

    fn location(filter: &Redirect, uri: &str, port: u16) -> String {
        let response = answer(filter, uri, Arrived { tls: false, port }).unwrap();
        response.headers()[LOCATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_port_follows_the_gateway_apis_rules() {
        let to = |scheme: Option<&str>, port| Redirect { scheme: scheme.map(Into::into), port, ..PLAIN };
        for (scheme, port, listener, origin) in [
            (None, None, 8080, "http://Client.org:8080"),
            (None, None, 80, "http://Client.org"),
            (Some("https"), None, 8080, "https://Client.org"),
            (Some("http"), None, 8080, "http://Client.org"),
            (Some("https"), Some(8443), 80, "https://Client.org:8443"),
            (Some("https"), Some(443), 80, "https://Client.org"),
            (Some("https"), Some(80), 80, "https://Client.org:80"),
            (None, Some(80), 8080, "http://Client.org"),
            (None, Some(9000), 80, "http://Client.org:9000"),
            (Some("other"), None, 8080, "other://Client.org:8080"),
        ] {
            assert_eq!(location(&to(scheme, port), "/x?q=1", listener), format!("{origin}/x?q=1"));
        }
        let tls = answer(&PLAIN, "/", Arrived { tls: true, port: 443 }).unwrap();
        assert_eq!(tls.headers()[LOCATION], "https://Client.org/");
    }

    #[test]
    fn path_host_and_status_are_the_filters() {
        let filter = Redirect {
            hostname: Some("new.org".into()),
            path: Some(PathRewrite::Prefix("/bar".into())),
            status: 308,
            ..PLAIN
        };
        assert_eq!(location(&filter, "/foo/a?b", 80), "http://new.org/bar/a?b");
        let response = answer(&filter, "/foo", Arrived { tls: false, port: 80 }).unwrap();
        assert_eq!(response.status(), 308);
        let filter = Redirect { path: Some(PathRewrite::Full("/all".into())), ..PLAIN };
        assert_eq!(location(&filter, "/foo/a?b", 80), "http://Client.org/all?b");
    }

    #[test]
    fn a_path_that_looks_like_a_host_stays_on_this_host() {
        assert_eq!(location(&PLAIN, "//evil.org/x", 80), "http://Client.org//evil.org/x");
        let filter = Redirect { path: Some(PathRewrite::Prefix("".into())), ..PLAIN };
        assert_eq!(location(&filter, "/foo//evil.org", 80), "http://Client.org//evil.org");
    }

    #[test]
    fn without_any_host_there_is_nowhere_to_go() {
        let parts = Request::get("/").body(()).unwrap().into_parts().0;
        let arrived = Arrived { tls: false, port: 80 };
        let refused = redirect(&PLAIN, &PathMatch::Exact("/".into()), &Asked::new(&parts, None), arrived);
        assert_eq!(refused.unwrap_err().reason, Reason::HeadInvalid);
    }
}
