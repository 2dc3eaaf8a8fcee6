//! The number grammar of RFC 8259 section 6, for values at the top level.

/// A number in progress.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Number {
    place: Place,
    /// The value so far while it is a whole number that fits.
    whole: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Minus,
    /// After a leading zero, which no digit may follow.
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// Begins a number, if `byte` can begin one.
    pub(super) fn begin(byte: u8) -> Option<Self> {
        let (place, whole) = match byte {
            b'-' => (Place::Minus, None),
            b'0' => (Place::Zero, Some(0)),
            b'1'..=b'9' => (Place::Integer, Some(u64::from(byte - b'0'))),
            _ => return None,
        };
        Some(Self { place, whole })
    }

    /// The number with `byte` added; `None`: the byte is not part of it.
    pub(super) fn step(self, byte: u8) -> Option<Self> {
        let place = match (self.place, byte) {
            (Place::Minus, b'0') => Place::Zero,
            (Place::Minus, b'1'..=b'9') | (Place::Integer, b'0'..=b'9') => Place::Integer,
            (Place::Zero | Place::Integer, b'.') => Place::Point,
            (Place::Point | Place::Fraction, b'0'..=b'9') => Place::Fraction,
            (Place::Zero | Place::Integer | Place::Fraction, b'e' | b'E') => Place::Exponent,
            (Place::Exponent, b'+' | b'-') => Place::ExponentSign,
            (Place::Exponent | Place::ExponentSign | Place::ExponentDigits, b'0'..=b'9') => {
                Place::ExponentDigits
            }
            _ => return None,
        };
        let whole = match place {
            Place::Integer => {
                self.whole.and_then(|n| n.checked_mul(10)).and_then(|n| n.checked_add(u64::from(byte - b'0')))
            }
            _ => None,
        };
        Some(Self { place, whole })
    }

    /// Whether it may end here.
    pub(super) fn is_complete(self) -> bool {
        matches!(self.place, Place::Zero | Place::Integer | Place::Fraction | Place::ExponentDigits)
    }

    /// Its value, if it is a whole number that fits and is written as one.
    pub(super) fn whole(self) -> Option<u64> {
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Number> {
        let (first, rest) = text.as_bytes().split_first()?;
        rest.iter().try_fold(Number::begin(*first)?, |n, &b| n.step(b)).filter(|n| n.is_complete())
    }

    #[test]
    fn numbers_are_those_of_the_rfc() {
        for good in ["0", "-0", "7", "10", "-12", "0.5", "1.25", "1e9", "1E+9", "0e0", "-1.5e-10"] {
            assert!(read(good).is_some(), "{good}");
        }
        for bad in
            ["", "-", "01", "-01", "1.", ".5", "1e", "1e+", "+1", "1.5.2", "0x1", "1_0", "--1", "1e1.5"]
        {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_whole_number_is_known_until_it_overflows() {
        assert_eq!(read("18446744073709551615").and_then(Number::whole), Some(u64::MAX));
        assert_eq!(read("18446744073709551616").and_then(Number::whole), None);
        assert_eq!(read("10.0").and_then(Number::whole), None);
        assert_eq!(read("-5").and_then(Number::whole), None);
        assert_eq!(read("0").and_then(Number::whole), Some(0));
    }
}
