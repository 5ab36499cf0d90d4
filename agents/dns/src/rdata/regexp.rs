//! The substitution of a NAPTR record ([RFC 3402](https://www.rfc-editor.org/rfc/rfc3402), section 3.2): a delimiter, an
//! extended regular expression, the delimiter, a replacement, the delimiter, flags. Servers compile it when they load
//! the zone.

/// Whether it is one; the empty text is none and may stand, too. What POSIX leaves open is refused: each server has its own opinion of it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(text: &[u8]) -> Result<(), String> {
    let Some((&delimiter, rest)) = text.split_first() else { return Ok(()) };
    if delimiter.is_ascii_digit() || matches!(delimiter, b'\\' | b'i' | 0) {
        return Err("the delimiter is a digit, a backslash or a flag".to_owned());
    }
    let (expression, rest) = part(rest, delimiter)?;
    let (replacement, flags) = part(rest, delimiter)?;
    if flags.iter().any(|&flag| flag != b'i') {
        return Err("after the last delimiter comes nothing but the flag i".to_owned());
    }
    let groups = groups(expression)?;
    let mut octets = replacement.iter();
    while let Some(octet) = octets.next() {
        let reference = octets.as_slice().first().filter(|_| *octet == b'\\');
        if let Some(digit) = reference.filter(|digit| digit.is_ascii_digit()) {
            let number = digit - b'0';
            if number == 0 || number > groups {
                return Err(format!("the replacement's \\{number} is none of {groups} groups"));
            }
        }
        if reference.is_some() {
            octets.next();
        }
    }
    Ok(())
}

/// What stands before the next delimiter that no backslash hides, and what comes after it.
fn part(text: &[u8], delimiter: u8) -> Result<(&[u8], &[u8]), String> {
    let mut hidden = false;
    for (at, &octet) in text.iter().enumerate() {
        match octet {
            0 => return Err("it holds the octet 0".to_owned()),
            _ if hidden => hidden = false,
            b'\\' => hidden = true,
            _ if octet == delimiter => return Ok((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    Err(format!("{:?} must stand in it three times", char::from(delimiter)))
}

/// How many groups an extended regular expression has.
fn groups(expression: &[u8]) -> Result<u8, String> {
    let bad = |why: &str| Err(format!("the regular expression is not one: {why}"));
    let (mut groups, mut open) = (0u8, 0u8);
    // Whether something stands that may be repeated, and whether the alternative has anything at all.
    let (mut atom, mut any) = (false, false);
    let mut rest = expression;
    while let [octet, tail @ ..] = rest {
        rest = tail;
        match octet {
            b'\\' => match rest {
                [digit @ b'0'..=b'9', ..] if *digit == b'0' || digit - b'0' > groups => {
                    return bad("a back reference to no group");
                }
                [_, tail @ ..] => rest = tail,
                [] => return bad("a backslash at its end"),
            },
            b'[' => match after_bracket(rest) {
                Some(tail) => rest = tail,
                None => return bad("a [ that nothing closes, or a range or class in it that is none"),
            },
            b'(' => {
                (groups, open) = (groups.saturating_add(1), open.saturating_add(1));
                (atom, any) = (false, false);
                continue;
            }
            b')' if open == 0 || !any => return bad("a ) without a group before it"),
            b')' => open -= 1,
            b'|' if !any => return bad("an empty alternative"),
            b'|' => {
                (atom, any) = (false, false);
                continue;
            }
            b'^' | b'$' => {
                (atom, any) = (false, true);
                continue;
            }
            b'*' | b'+' | b'?' | b'{' => {
                if !atom {
                    return bad("a repetition of nothing");
                }
                if *octet == b'{' {
                    match after_bound(rest) {
                        Some(tail) => rest = tail,
                        None => return bad("a { that does not say how often"),
                    }
                }
                atom = false;
                continue;
            }
            _ => {}
        }
        (atom, any) = (true, true);
    }
    match (open, any) {
        (0, true) => Ok(groups),
        (0, false) => bad("it is empty, or an alternative is"),
        _ => bad("a group that nothing closes"),
    }
}

/// What follows a bracket expression whose `[` was read.
fn after_bracket(text: &[u8]) -> Option<&[u8]> {
    let body = text.strip_prefix(b"^").unwrap_or(text);
    let mut at = 0;
    let mut before: Option<u8> = None;
    loop {
        match (body.get(at)?, body.get(at + 1)) {
            (b']', _) if at > 0 => return body.get(at + 1..),
            // Classes are fine in their usual names, and not as ends of a range.
            (b'[', Some(b':')) => {
                const CLASSES: [&[u8]; 12] = [
                    b"alnum", b"digit", b"punct", b"alpha", b"graph", b"space", b"blank", b"lower", b"upper",
                    b"cntrl", b"print", b"xdigit",
                ];
                let tail = body.get(at + 2..)?;
                let class = CLASSES
                    .iter()
                    .find(|class| tail.starts_with(class) && tail[class.len()..].starts_with(b":]"))?;
                at += 2 + class.len() + 2;
                before = None;
            }
            (b'[', Some(b'.' | b'=')) => return None,
            (b'-', Some(&end)) if end != b']' && before.is_some() => {
                if end == b'[' || before.is_some_and(|first| first > end) {
                    return None;
                }
                at += 2;
                before = None;
            }
            // A dash stands for itself at either end only.
            (b'-', Some(end)) if at > 0 && *end != b']' => return None,
            (&octet, _) => {
                at += 1;
                before = Some(octet);
            }
        }
    }
}

/// What follows a bound whose `{` was read: `2}`, `2,}`, `2,3}`.
fn after_bound(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|&octet| octet == b'}')?;
    let bound = std::str::from_utf8(&text[..end]).ok()?;
    let number = |text: &str| text.parse::<u8>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let fits = match bound.split_once(',') {
        None => number(bound).is_some(),
        Some((low, "")) => number(low).is_some(),
        Some((low, high)) => number(low)? <= number(high)?,
    };
    fits.then(|| &text[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutions_are_those_that_servers_take() {
        for good in [
            "",
            "!^.*$!sip:a@b!",
            "!^(.*)$!sip:\\1@example.com!i",
            "/a\\/b/c/",
            "!^\\+49([0-9]{2,3})[a-z^-]?$!x\\1!",
            "!a|b!!",
            "![[:digit:]]+!x!",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "x",
            "!",
            "!!!",
            "!a!b",
            "!a!b!g",
            "!(a!b!",
            "!a)!b!",
            "!*a!b!",
            "!a**!b!",
            "!a|!b!",
            "!|a!b!",
            "![a!b!",
            "![z-a]!b!",
            "![[:x:]]!b!",
            "!a!\\1!",
            "!(a)!\\2!",
            "!(a)!\\0!",
            "!\\1!b!",
            "!a\\!b!",
            "1a1b1",
            "iaibi",
            "\\a\\b\\",
            "!a{!b!",
            "!a{3,2}!b!",
            "!a{999}!b!",
            "!a\0!b!",
            "!()!b!",
            "!a!b!c!",
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
