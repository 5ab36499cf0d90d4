//! `/api/v2/inventory`: the hosts as an Ansible inventory.

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use shoal_core::{Namespace, Rule};

use crate::inventory::{self, DEFAULT_NAMESPACE};
use crate::problem::{Answer, Problem};
use crate::request::Ask;
use crate::spec::{Routes, get, query};

/// The path of this module.
pub(super) fn routes(to: Routes) -> Routes {
    let written = get("The hosts as an Ansible inventory", written)
        .takes([query::<Namespace>(
            "namespace",
            "The namespace whose tags are the groups; `tags` without it.",
        )])
        .takes([query::<String>("where", "Only hosts that this CEL expression selects.")])
        .refuses(&[422])
        .answers_text("application/json", "What Ansible reads from a script that is called with `--list`.");
    to.at("/api/v2/inventory", [written])
}

/// `GET /api/v2/inventory`: written out of the view.
async fn written(ask: Ask) -> Answer {
    let ask = ask.only(&["namespace", "where"])?;
    let namespace = ask.params.get("namespace").unwrap_or(DEFAULT_NAMESPACE);
    let namespace: Namespace = namespace.parse()?;
    let rule = ask.params.get("where").map(Rule::compile).transpose()?;
    let view = ask.app.db.view();
    // An inventory that lacks hosts is taken for the whole.
    ask.caller.reads_contents(&view, &namespace, rule.is_some())?;
    // It goes through all hosts: not on a thread that answers others.
    let text = tokio::task::spawn_blocking(move || inventory::list(&view, &namespace, rule.as_ref())).await;
    let text = text.map_err(|error| Problem::broken(format!("the inventory stopped inside: {error}")))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
