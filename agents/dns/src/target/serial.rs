//! Zone serials: raised only when a zone changes, by the arithmetic of
//! [RFC 1982](https://www.rfc-editor.org/rfc/rfc1982), which goes round after 2^32.

use serde::Deserialize;

/// How serials are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SerialStyle {
    /// One more each time.
    #[default]
    Counter,
    /// `YYYYMMDDnn`, the day in UTC; one more each time beyond 100 changes a day or where the number is already later.
    Date,
}

/// Whether `a` comes after `b`.
pub(crate) fn newer(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// The later of two.
pub(crate) fn latest(a: u32, b: u32) -> u32 {
    if newer(b, a) { b } else { a }
}

impl SerialStyle {
    /// The serial after `last`. `today` is the day as `YYYYMMDD`.
    pub(crate) fn next(self, last: Option<u32>, today: u32) -> u32 {
        let first = match self {
            Self::Counter => 1,
            Self::Date => today.saturating_mul(100),
        };
        match last {
            None => first,
            Some(last) if self == Self::Date && newer(first, last) => first,
            // 0 means "none" to some servers.
            Some(last) => last.wrapping_add(1).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn serials_count_or_follow_the_day() {
        assert_eq!(SerialStyle::Counter.next(None, 20_260_101), 1);
        assert_eq!(SerialStyle::Counter.next(Some(u32::MAX), 20_260_101), 1);
        assert_eq!(SerialStyle::Date.next(None, 20_260_101), 2_026_010_100);
        assert_eq!(SerialStyle::Date.next(Some(2_026_010_100), 20_260_101), 2_026_010_101);
        assert_eq!(SerialStyle::Date.next(Some(2_026_010_199), 20_260_101), 2_026_010_200);
        assert_eq!(SerialStyle::Date.next(Some(2_026_010_200), 20_260_102), 2_026_010_201);
        assert_eq!(SerialStyle::Date.next(Some(7), 20_260_102), 2_026_010_200);
        // Already far ahead, say from a counter of seconds: it still only goes up.
        assert_eq!(SerialStyle::Date.next(Some(3_000_000_000), 20_260_102), 3_000_000_001);
    }

    proptest! {
        #[test]
        fn the_next_is_always_newer(last: u32, today in 20_000_101u32..21_001_231) {
            for style in [SerialStyle::Counter, SerialStyle::Date] {
                prop_assert!(newer(style.next(Some(last), today), last));
            }
        }
    }
}
