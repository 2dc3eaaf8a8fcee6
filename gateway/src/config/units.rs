//! Durations (GEP-2257), quantities, timestamps and host names as manifests write them.

use std::time::Duration;

use crate::snapshot::Hostname;

/// `([0-9]{1,5}(h|m|s|ms)){1,4}`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write one like 500ms, 10s or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        if !(1..=5).contains(&digits) {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (ms, tail) = if let Some(tail) = tail.strip_prefix("ms") {
            (1, tail)
        } else if let Some(tail) = tail.strip_prefix('h') {
            (3_600_000, tail)
        } else if let Some(tail) = tail.strip_prefix('m') {
            (60_000, tail)
        } else if let Some(tail) = tail.strip_prefix('s') {
            (1000, tail)
        } else {
            return Err(wrong());
        };
        total += Duration::from_millis(number * ms);
        rest = tail;
        if rest.is_empty() {
            return Ok(total);
        }
    }
    Err(wrong())
}

/// Bytes: `[1-9][0-9]*([EPTGMK]i|[EPTGMk])?`.
pub(crate) fn quantity(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write bytes or one like 32Ki, 20Mi or 1G");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let unit: u64 = match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u64.pow(2),
        "G" => 1000_u64.pow(3),
        "T" => 1000_u64.pow(4),
        "P" => 1000_u64.pow(5),
        "E" => 1000_u64.pow(6),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => return Err(wrong()),
    };
    if number.starts_with('0') {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
}

/// Whether it is a time as Kubernetes writes it (`2025-01-31T08:00:00Z`): such texts sort by age as they are.
pub(crate) fn is_timestamp(text: &str) -> bool {
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |(byte, shape): (u8, &u8)| match shape {
        b'd' => byte.is_ascii_digit(),
        other => byte == *other,
    };
    text.len() == shape.len() && text.bytes().zip(shape).all(fits)
}

/// `a.example.com` or `*.example.com`; lower case, no address.
pub(crate) fn hostname(text: &str) -> Result<Hostname, String> {
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if !is_subdomain(name) {
        return Err(format!("{text:?} is not a host name; write one like api.example.com or *.example.com"));
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!("{text:?} is an address; a host name is wanted"));
    }
    Ok(if wildcard { Hostname::Suffix(format!(".{name}").into()) } else { Hostname::Exact(name.into()) })
}

/// RFC 1123: labels of `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 253 bytes.
pub(crate) fn is_subdomain(text: &str) -> bool {
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        inner && end(bytes.first()) && end(bytes.last()) && bytes.len() <= 63
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gep_2257() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("1h2m3s4ms"), Ok(Duration::from_millis(3_723_004)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "1", "h", "1d", "1.5s", "-1s", "123456s", "1s1s1s1s1s", "1s ", "１s", "s1", "1sm"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn quantities_follow_the_pattern_of_buffer_limit() {
        assert_eq!(quantity("20Mi"), Ok(20_971_520));
        assert_eq!(quantity("32768"), Ok(32_768));
        assert_eq!(quantity("1k"), Ok(1000));
        for wrong in ["", "0", "01", "1.5Mi", "Mi", "1K", "1mi", "-1", "1 Mi", "99999999999999999999", "99Ei"]
        {
            assert!(quantity(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_names_are_lower_case_names_with_at_most_one_leading_wildcard() {
        assert_eq!(hostname("a.example.com"), Ok(Hostname::Exact("a.example.com".into())));
        assert_eq!(hostname("*.example.com"), Ok(Hostname::Suffix(".example.com".into())));
        for wrong in ["", "*", "*.", "a.*.b", "A.example", "-a.b", "1.2.3.4", "a..b", "a_b", "a:80"] {
            assert!(hostname(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn timestamps_have_one_shape() {
        assert!(is_timestamp("2025-01-31T08:00:00Z"));
        assert!(!is_timestamp("2025-01-31T08:00:00+01:00") && !is_timestamp("yesterday"));
    }
}
