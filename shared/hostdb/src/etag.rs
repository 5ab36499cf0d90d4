//! Entity tags: the ETag of a resource is the revision that last wrote it, `"r123"`. YAML and compressed answers are other
//! representations with tags of their own (`"r123-yaml"`, `"r123-gzip"`); a write may name any of them.
//!
//! [`Wish`] is what a request asks of a resource before it is touched ([RFC 9110, section 13]). The check here
//! is for a good message; the same wish goes into the commit as a precondition, so that nothing can come
//! between the check and the write.
//!
//! [RFC 9110, section 13]: https://www.rfc-editor.org/rfc/rfc9110#section-13

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};
use shoal_core::{Expect, Revision};

use crate::problem::{Answer, Problem};
use crate::squeeze::CODINGS;

/// The ETag of what was last written by this revision, as it is sent.
pub(crate) fn etag_of(revision: Revision, yaml: bool) -> HeaderValue {
    if !yaml {
        return etag(revision);
    }
    HeaderValue::try_from(format!("\"r{revision}-yaml\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"r0\""))
}

/// The ETag of what was last written by this revision, as JSON and not compressed.
pub(crate) fn etag(revision: Revision) -> HeaderValue {
    // Digits and quotes are always a legal header value.
    HeaderValue::try_from(format!("\"r{revision}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"r0\""))
}

/// What a request asks of the resource's present state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    matches: Option<List>,
    none_match: Option<List>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum List {
    Any,
    These { revisions: Vec<Named>, text: String },
}

/// What an entity tag names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    revision: Revision,
    yaml: bool,
}

impl Wish {
    /// Reads `If-Match` and `If-None-Match`.
    pub(crate) fn of(headers: &HeaderMap) -> Answer<Self> {
        Ok(Self { matches: list(headers, &IF_MATCH)?, none_match: list(headers, &IF_NONE_MATCH)? })
    }

    /// Whether a read may be answered with 304 Not Modified.
    pub(crate) fn is_fresh(&self, actual: Revision, yaml: bool) -> bool {
        self.none_match.as_ref().is_some_and(|list| match list {
            List::Any => true,
            List::These { revisions, .. } => revisions.contains(&Named { revision: actual, yaml }),
        })
    }

    /// What a write of `what`, now at `actual`, is to rest on.
    ///
    /// # Errors
    /// A 412 problem that names both revisions.
    pub(crate) fn check(&self, what: &str, actual: Option<Revision>) -> Answer<Expect> {
        let mut expected = Expect::Any;
        if let Some(list) = &self.matches {
            match actual {
                Some(now) if list.has(now) => {
                    expected = if *list == List::Any { Expect::Exists } else { Expect::At(now) };
                }
                _ => return Err(Problem::stale(what, list.text(), actual)),
            }
        }
        if let Some(list) = &self.none_match {
            match actual {
                Some(now) if list.has(now) => return Err(Problem::exists(what, now)),
                Some(_) => {}
                None => expected = Expect::Absent,
            }
        }
        Ok(expected)
    }
}

impl List {
    fn has(&self, revision: Revision) -> bool {
        match self {
            Self::Any => true,
            Self::These { revisions, .. } => revisions.iter().any(|named| named.revision == revision),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::These { text, .. } => text,
        }
    }
}

fn list(headers: &HeaderMap, name: &HeaderName) -> Answer<Option<List>> {
    let mut all = headers.get_all(name).iter().peekable();
    if all.peek().is_none() {
        return Ok(None);
    }
    let bad = || {
        Problem::bad_request(format!(
            "the header {name} is not understood: it is *, or one or more ETags of this server as they came, \
             such as \"r123\" with its quotes"
        ))
    };
    let (mut revisions, mut texts) = (Vec::new(), Vec::new());
    for value in all {
        let text = value.to_str().map_err(|_| bad())?.trim();
        if text == "*" {
            return Ok(Some(List::Any));
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (tag, after) = first(rest).ok_or_else(bad)?;
            // What is only as good as another (weak) is enough to read by, and never to write by.
            let strong = if *name == IF_NONE_MATCH { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
            // An ETag that this server never gave matches nothing; it is not an error.
            revisions.extend(revision(strong));
            texts.push(tag.to_owned());
            rest = match after.trim_start() {
                "" => "",
                more => more.strip_prefix(',').ok_or_else(bad)?.trim_start(),
            };
        }
    }
    if texts.is_empty() {
        return Err(bad());
    }
    Ok(Some(List::These { revisions, text: texts.join(", ") }))
}

/// The revision that an entity tag names, in whatever form it was sent: as YAML, compressed, or neither.
fn revision(tag: &str) -> Option<Named> {
    let text = tag.strip_prefix("\"r")?.strip_suffix('"')?;
    let plain =
        CODINGS.iter().find_map(|coding| text.strip_suffix(coding)?.strip_suffix('-')).unwrap_or(text);
    let (number, yaml) = plain.strip_suffix("-yaml").map_or((plain, false), |number| (number, true));
    Some(Named { revision: Revision(number.parse().ok()?), yaml })
}

/// The first entity tag of a list, and what stands after it.
fn first(text: &str) -> Option<(&str, &str)> {
    let open = text.strip_prefix("W/").unwrap_or(text).strip_prefix('"')?;
    let close = open.find('"')?;
    let fits = open.as_bytes()[..close].iter().all(u8::is_ascii_graphic);
    fits.then(|| text.split_at(text.len() - open.len() + close + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn wish(pairs: &[(HeaderName, &str)]) -> Answer<Wish> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        Wish::of(&headers)
    }

    #[test]
    fn a_write_rests_on_what_was_asked() {
        let seven = Some(Revision(7));
        assert_eq!(wish(&[]).unwrap().check("x", None).unwrap(), Expect::Any);
        let at = wish(&[(IF_MATCH, "\"r5\", \"r7\"")]).unwrap();
        assert_eq!(at.check("x", seven).unwrap(), Expect::At(Revision(7)));
        for actual in [Some(Revision(8)), None] {
            let problem = at.check("host web1", actual).unwrap_err();
            assert_eq!(problem.status(), StatusCode::PRECONDITION_FAILED);
            assert!(problem.detail().contains("\"r5\", \"r7\""), "{}", problem.detail());
        }
        assert_eq!(wish(&[(IF_MATCH, "*")]).unwrap().check("x", seven).unwrap(), Expect::Exists);
        let new = wish(&[(IF_NONE_MATCH, "*")]).unwrap();
        assert_eq!(new.check("x", None).unwrap(), Expect::Absent);
        assert!(new.check("x", seven).is_err());
    }

    #[test]
    fn weak_tags_are_fresh_enough_to_read_but_not_to_write() {
        assert!(wish(&[(IF_NONE_MATCH, "W/\"r7\"")]).unwrap().is_fresh(Revision(7), false));
        let weak = wish(&[(IF_MATCH, "W/\"r7\"")]).unwrap().check("x", Some(Revision(7))).unwrap_err();
        assert_eq!(weak.status(), StatusCode::PRECONDITION_FAILED);
        assert!(wish(&[(IF_NONE_MATCH, "\"a,b\" ,W/\"c\",\"r7\"")]).unwrap().is_fresh(Revision(7), false));
        for bad in ["r7", "", ",", "\"r 7\"", "\"r7\" \"r8\""] {
            assert!(wish(&[(IF_MATCH, bad)]).is_err(), "{bad:?}");
        }
        assert!(wish(&[(IF_MATCH, "\"other\"")]).unwrap().check("x", Some(Revision(7))).is_err());
    }
}
