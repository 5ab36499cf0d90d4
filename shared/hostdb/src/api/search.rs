//! `/api/v2/search`: hosts by an expression.

use shoal_core::{BadRule, Hits, HostName, Range, Rule};

use crate::problem::{Answer, Problem};
use crate::request::Ask;
use crate::spec::{Routes, get, query, shared};

/// The path of this module.
pub(super) fn routes(to: Routes) -> Routes {
    let found = get("Hosts that an expression selects, by name", search)
        .takes([query::<String>(
            "where",
            "A CEL expression over a host's document, such as `site == \"rdu3\"`.",
        )
        .required()])
        .takes([query::<HostName>("after", "`next` of the page before.")])
        .takes(["revision", "limit"].map(shared))
        .refuses(&[404, 422])
        .answers::<Hits>("A page of hosts.");
    to.at("/api/v2/search", [found])
}

/// `GET /api/v2/search?where=…`: the hosts that a CEL expression selects, as rules of tags do, with those for which it cannot
/// be evaluated. Each page is of the revision that it says; `revision` asks for another one.
async fn search(ask: Ask) -> Answer {
    let ask = ask.only(&["where", "revision", "after", "limit"])?;
    let limit = ask.params.limit(&ask.app)?;
    let after = ask.params.get("after").map(str::parse::<HostName>).transpose()?;
    let text = ask.params.get("where").ok_or_else(|| {
        Problem::bad_request("say which hosts are meant, such as ?where=site == \"rdu3\" (encoded)")
            .with("field", "where")
    })?;
    let rule = Rule::compile(text)?;
    // An expression asks of every host: an answer that leaves some out would still tell what is in them.
    for of in ["hosts/", "facts/"] {
        ask.caller.reads_range(&Range::Prefix(of.to_owned()))?;
    }
    let view = ask.app.db.as_of(ask.params.revision()?).await?;
    // A page may cost some million steps of an expression: not on a thread that answers others.
    let found = tokio::task::spawn_blocking(move || view.search(&rule, after.as_ref(), limit)).await;
    let hits = found.map_err(|error| Problem::broken(format!("the search stopped inside: {error}")))?;
    ask.shape.ok(&hits)
}

impl From<BadRule> for Problem {
    fn from(bad: BadRule) -> Self {
        let hint = "an expression in CEL over a host's fields, such as site == \"rdu3\" && memory >= gib(24), or has(host.rack)";
        Self::invalid(bad.to_string(), hint)
            .with("field", "where")
            .with("column", bad.column)
            .with("expected", bad.why)
    }
}
