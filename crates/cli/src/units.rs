//! Quantities as people write and read them: sizes, durations, times, ids in hexadecimal.

use std::{fmt::Write as _, time::Duration};

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Bytes in binary units: `0 B`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    // 1023.95 would print as "1024.0".
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes per second over a time: `1.2 GiB/s`.
pub(crate) fn rate(bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-9);
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// A duration, short: `0.4 ms`, `35 ms`, `1.42 s`.
pub(crate) fn took(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        10..1000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// A duration, about: `8 s`, `4 min`, `3 h`, `2 d`.
pub(crate) fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..90 => format!("{seconds} s"),
        seconds @ 90..5400 => format!("{} min", (seconds + 30) / 60),
        seconds @ 5400..172_800 => format!("{} h", (seconds + 1800) / 3600),
        seconds => format!("{} d", (seconds + 43_200) / 86_400),
    }
}

/// A number with its thousands apart, and what it counts: `1 chunk`, `1,234 chunks`.
pub(crate) fn count(number: u64, what: &str) -> String {
    count_irregular(number, what, &format!("{what}s"))
}

/// As [`count`], for words that take no s.
pub(crate) fn count_irregular(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A number with its thousands apart.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Unix milliseconds as RFC 3339 in UTC, to the second: `2026-03-01T12:00:00Z`.
pub(crate) fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a day since 1970-01-01, after Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A size: `4096`, `64K`, `500G`, `10GiB`, `1.5T` in powers of 1024; `500GB` in powers of 1000.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: write it like 500G, 10GiB or 1.5T");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim().to_ascii_lowercase());
    let (letter, base) = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('i')) {
        Some(letter) => (letter, 1024_f64),
        None if unit == "b" => ("", 1024.0),
        None => unit.strip_suffix('b').map_or((unit.as_str(), 1024.0), |letter| (letter, 1000.0)),
    };
    let power = match letter {
        "" if unit.is_empty() || unit == "b" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        "e" => 6,
        _ => return Err(wrong()),
    };
    if power == 0 {
        return number.parse().map_err(|_| wrong());
    }
    let value: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = value * base.powi(power);
    if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(bytes.round() as u64) } else { Err(wrong()) }
}

/// A duration: `90s`, `1h`, `7d`, `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write it like 90s, 15m, 1h or 7d");
    let mut seconds: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 7 * 86_400,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    // A thousand years: beyond any use, and below any overflow where it is added to a clock.
    if seconds <= 1000 * 366 * 86_400 { Ok(Duration::from_secs(seconds)) } else { Err(wrong()) }
}

/// As [`parse_duration`], for how long unneeded data is kept: long enough for the slowest step of a put.
pub(crate) fn parse_grace(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_secs(300);
    match parse_duration(text)? {
        grace if grace < LEAST => {
            Err("keep unneeded data for 5m at least: uploads under way count as such".into())
        }
        grace => Ok(grace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("17b", 17),
            ("64K", 64 << 10),
            ("500G", 500 << 30),
            ("10GiB", 10 << 30),
            ("10 gib", 10 << 30),
            ("1.5T", 3 << 39),
            ("2kB", 2000),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1G", "1X", "1.5", "1..5G", "1ib", "99999999E", "1 G B", "é"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (3 << 29, "1.5 GiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(rate(3 << 30, Duration::from_secs(2)), "1.5 GiB/s");
    }

    #[test]
    fn durations_read() {
        for (text, seconds) in [("90s", 90), ("1h", 3600), ("7d", 604_800), ("1h30m", 5400), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "5", "h", "1x", "1h5", "-1h", "99999999999999999999s", "9999999w", "1é"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_grace("1s").is_err());
        assert_eq!(parse_grace("5m"), Ok(Duration::from_secs(300)));
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_210_096, "2024-02-29T12:34:56Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(time(seconds * 1000 + 999), text);
        }
        // Nonsense from a record must not panic.
        assert!(time(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn times_taken_are_short() {
        for (micros, text) in [(400, "0.4 ms"), (35_000, "35 ms"), (1_420_000, "1.42 s")] {
            assert_eq!(took(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn counts_and_times_read_easily() {
        for (number, text) in [
            (0, "0 nodes"),
            (1, "1 node"),
            (999, "999 nodes"),
            (1000, "1,000 nodes"),
            (1_234_567, "1,234,567 nodes"),
        ] {
            assert_eq!(count(number, "node"), text);
        }
        for (seconds, text) in
            [(0, "0 s"), (89, "89 s"), (90, "2 min"), (240, "4 min"), (7200, "2 h"), (180_000, "2 d")]
        {
            assert_eq!(about(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn hexadecimal_is_lower_case() {
        assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
    }
}
