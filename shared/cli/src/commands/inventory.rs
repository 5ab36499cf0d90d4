//! `shoal inventory`: what Ansible reads from an inventory script.
//!
//! A server writes it out of its view, and the text is passed on as it comes. Where there is no server, the hosts and the namespace are
//! read; all the rest only where rules, tags of other namespaces or an expression need it.

use shoal_core::{Key, Rule};
use shoal_hostdb::{inventory, reading};
use shoal_store::StoreError;

use crate::args::Inventory;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, args: Inventory) -> Outcome {
    let Inventory { list: _, host, namespace, expression } = args;
    if let Some(host) = host {
        session.exists(&Key::host(&host), None).await?;
        let view = reading::alone(&*session.store, &host, &namespace).await;
        let view = view.map_err(Failure::reading(format!("host {host}")))?;
        let text = inventory::host(&view, &namespace, &host).ok_or_else(|| {
            Failure::Missing(format!(
                "host {host} is not there yet, or no longer: `shoal get {host}` says its state"
            ))
        })?;
        return session.out.json(text.as_bytes());
    }
    let expression = expression.filter(|text| !text.trim().is_empty());
    let rule = expression.as_deref().map(Rule::compile).transpose();
    let rule = rule.map_err(|bad| Failure::Usage(bad.to_string()))?;
    session.out.begin("reading the inventory");
    let failed = |error: StoreError| Failure::Store { what: "there is no inventory".to_owned(), error };
    let wanted = shoal_store::Inventory { namespace, expression };
    let text = match session.store.inventory(&wanted).await.map_err(failed)? {
        Some(text) => text,
        None => {
            let plain = match &rule {
                None => {
                    let rows = reading::plain(&*session.store, &wanted.namespace).await.map_err(failed)?;
                    inventory::plain(&rows, &wanted.namespace)
                }
                Some(_) => None,
            };
            match plain {
                Some(text) => text.into_bytes(),
                None => {
                    inventory::list(&session.view(None).await?, &wanted.namespace, rule.as_ref()).into_bytes()
                }
            }
        }
    };
    let unsure = inventory::unsure(&text);
    if unsure > 0 {
        let many = if unsure == 1 { "1 host".to_owned() } else { format!("{unsure} hosts") };
        let said = format!(
            "note: the expression cannot be evaluated for {many}, left out although they may be meant: `shoal search` names some\n"
        );
        let _ = std::io::Write::write_all(&mut anstream::stderr(), said.as_bytes());
    }
    session.out.json(&text)
}
