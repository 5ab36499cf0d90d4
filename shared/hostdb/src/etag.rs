//! Entity tags: the ETag of a resource is the revision that last wrote it, `"r123"`.
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

/// The ETag of what was last written by this revision.
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
    These { revisions: Vec<Revision>, text: String },
}

impl Wish {
    /// Reads `If-Match` and `If-None-Match`.
    pub(crate) fn of(headers: &HeaderMap) -> Answer<Self> {
        Ok(Self { matches: list(headers, &IF_MATCH)?, none_match: list(headers, &IF_NONE_MATCH)? })
    }

    /// Whether a read may be answered with 304 Not Modified.
    pub(crate) fn is_fresh(&self, actual: Revision) -> bool {
        self.none_match.as_ref().is_some_and(|list| list.has(actual))
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
            Self::These { revisions, .. } => revisions.contains(&revision),
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
        for tag in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            let strong = if *name == IF_NONE_MATCH { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
            let opaque = strong.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(bad)?;
            // An ETag that this server never gave matches nothing; it is not an error.
            if let Some(number) = opaque.strip_prefix('r').and_then(|n| n.parse().ok()) {
                revisions.push(Revision(number));
            }
            texts.push(tag.to_owned());
        }
    }
    Ok(Some(List::These { revisions, text: texts.join(", ") }))
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
        assert!(wish(&[(IF_NONE_MATCH, "W/\"r7\"")]).unwrap().is_fresh(Revision(7)));
        assert!(wish(&[(IF_MATCH, "W/\"r7\"")]).is_err());
        assert!(wish(&[(IF_MATCH, "r7")]).is_err());
        assert!(wish(&[(IF_MATCH, "\"other\"")]).unwrap().check("x", Some(Revision(7))).is_err());
    }
}
