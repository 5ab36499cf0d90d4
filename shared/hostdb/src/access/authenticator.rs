//! The seam for other ways to know people: OpenID Connect, LDAP.
//!
//! Whatever comes in a header or a login goes through a list of [`Authenticator`]s, tokens and passwords as the first two. The
//! first that takes what is shown for its own decides. It only says *who* it is: groups, rules and whether a user is disabled stand in rows, so
//! that they are in the history, and [`Index::named`] makes somebody of a name that comes from elsewhere.
//!
//! What one must keep to:
//!
//! * What could not be asked is [`Answer::No`] with a problem that says so (503), and never a yes; nor a no that anybody remembers.
//! * It is bounded in time, and in how many wait for it: as [`Passwords`](super::password::Passwords) is.
//! * The time until which it vouches ([`Vouched::until`]) ends watches, too. Within it, taking a right away or disabling a user counts at once,
//!   because both are rows; what another service takes away counts from then on.
//! * Nothing that was shown is in a problem, or in the log.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use shoal_core::access::{Index, Known, Principal};

use super::caller::Shown;
use super::unknown;
use crate::problem::Problem;

/// What somebody shows.
#[derive(Clone, Copy)]
pub(crate) enum Credential<'a> {
    /// What stands in `Authorization` behind `Bearer`.
    Bearer(&'a str),
    /// What a login says.
    Password {
        /// Who they say they are.
        user: &'a str,
        /// And by what.
        password: &'a str,
        /// From where: what is bounded by peer is bounded by this.
        from: &'a str,
    },
}

/// A way to know people by what they show.
pub(crate) trait Authenticator: Send + Sync {
    /// Who shows this; `index` has the rows of now.
    fn knows<'a>(&'a self, shown: Credential<'a>, index: &'a Arc<Index>) -> BoxFuture<'a, Answer>;
}

/// What a way to know people makes of something.
pub(crate) enum Answer {
    /// It is not of the sort that it knows: the next one is asked.
    Pass,
    /// Somebody.
    Is(Vouched),
    /// It is of its sort and not good, or could not be asked about.
    No(Problem),
}

/// Somebody, and for how long.
pub(crate) struct Vouched {
    pub(crate) who: Principal,
    /// By what they are looked up again while a watch is open.
    pub(super) by: Shown,
    /// Until when; `None`: until the rows say otherwise.
    pub(crate) until: Option<Timestamp>,
}

impl Vouched {
    /// The user of a name that something outside of the database vouches for, if there can be one.
    ///
    /// # Errors
    /// Nobody, or nobody any more.
    pub(crate) fn named(index: &Index, name: &str, until: Option<Timestamp>) -> Result<Self, Problem> {
        match index.named(name) {
            Known::Principal(who) => Ok(Self { who, by: Shown::Name(name.to_owned()), until }),
            Known::Not(why) => Err(unknown(why, "ask an administrator")),
        }
    }
}

/// Asks one after the other.
///
/// # Errors
/// None knows what is shown, or who knows it says no.
pub(crate) async fn ask(
    all: &[Box<dyn Authenticator>],
    shown: Credential<'_>,
    index: &Arc<Index>,
) -> Result<Vouched, Problem> {
    for one in all {
        match one.knows(shown, index).await {
            Answer::Pass => {}
            Answer::Is(vouched) => return Ok(vouched),
            Answer::No(problem) => return Err(problem),
        }
    }
    Err(match shown {
        Credential::Bearer(_) => unknown(
            "its token is not of the form shoal_ID_SECRET",
            "ask an administrator for another (`shoal token create`; `shoal token list` shows them all)",
        ),
        Credential::Password { .. } => unknown(
            "no user has this name and this password",
            "an administrator sets one: `shoal user password`",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::body::{Body, to_bytes};
    use http::Request;
    use serde_json::{Value, json};
    use shoal_core::{Document, Edit, Expect, Proposal};
    use shoal_store::MemoryStore;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    use crate::app::App;
    use crate::db::Db;

    /// A directory of another service: it knows `Bearer dir.NAME`, and that everybody's password is their name twice.
    struct Directory {
        lost: Arc<AtomicBool>,
        until: Option<Timestamp>,
    }

    impl Authenticator for Directory {
        fn knows<'a>(&'a self, shown: Credential<'a>, index: &'a Arc<Index>) -> BoxFuture<'a, Answer> {
            Box::pin(async move {
                let name = match shown {
                    Credential::Bearer(token) => token.strip_prefix("dir."),
                    Credential::Password { user, password, .. } => {
                        Some(user).filter(|user| format!("{user}{user}") == password)
                    }
                };
                let Some(name) = name else { return Answer::Pass };
                if self.lost.load(Ordering::Relaxed) {
                    return Answer::No(Problem::busy("the directory did not answer: try again"));
                }
                match Vouched::named(index, name, self.until) {
                    Ok(vouched) => Answer::Is(vouched),
                    Err(problem) => Answer::No(problem),
                }
            })
        }
    }

    struct World {
        router: axum::Router,
        db: shoal_store::Database,
        lost: Arc<AtomicBool>,
    }

    impl World {
        async fn new(until: Option<Timestamp>) -> Self {
            let db = Db::open(Arc::new(MemoryStore::new())).await.unwrap();
            let mut app = App::new(db, crate::Limits::default(), false, CancellationToken::new()).unwrap();
            let lost = Arc::new(AtomicBool::new(false));
            app.asks = true;
            app.authenticators.push(Box::new(Directory { lost: lost.clone(), until }));
            let db = app.db.database();
            Self { router: crate::api::router(Arc::new(app)), db, lost }
        }

        async fn put(&self, key: &str, value: Value) {
            let (key, value) = (key.parse().unwrap(), Document::from(value));
            let edit = Edit::Write { key, value, expect: Expect::Any };
            self.db.transact(Proposal::new("setup", "setup", vec![edit])).await.unwrap();
        }

        async fn ask(&self, request: Request<Body>) -> (u16, Value) {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, serde_json::from_slice(&body).unwrap())
        }

        async fn whoami(&self, token: &str) -> (u16, Value) {
            let request = Request::get("/api/v2/whoami").header("authorization", format!("Bearer {token}"));
            self.ask(request.body(Body::empty()).unwrap()).await
        }

        async fn login(&self, user: &str, password: &str) -> (u16, Value) {
            let body = json!({"user": user, "password": password}).to_string();
            let request = Request::post("/api/v2/sessions").header("content-type", "application/json");
            self.ask(request.body(Body::from(body)).unwrap()).await
        }
    }

    #[tokio::test]
    async fn another_way_to_know_people_stands_beside_tokens_and_passwords() {
        let w = World::new(None).await;
        w.put("access/groups/web", json!({"members": ["ann"]})).await;
        let (status, who) = w.whoami("dir.ann").await;
        assert_eq!((status, &who["principal"], &who["groups"]), (200, &json!("ann"), &json!(["web"])));
        // Only a name makes somebody, and the rows have the last word.
        for name in ["@web", "*", "anonymous", "agent dns", "shoal-dns", ""] {
            assert_eq!(w.whoami(&format!("dir.{name}")).await.0, 401, "{name}");
        }
        w.put("access/users/ann", json!({"disabled": true})).await;
        assert_eq!(w.whoami("dir.ann").await.0, 401);
        w.put("access/users/ann", json!({})).await;
        // What is nobody's is refused, and what could not be asked is no no.
        assert_eq!(w.whoami("other.ann").await.0, 401);
        w.lost.store(true, Ordering::Relaxed);
        assert_eq!(w.whoami("dir.ann").await.0, 503);
        assert_eq!(w.login("ann", "annann").await.0, 503);
        w.lost.store(false, Ordering::Relaxed);
        // By its password one has a session like others, which needs a row.
        let (status, began) = w.login("ann", "annann").await;
        assert_eq!(status, 201, "{began}");
        let (_, who) = w.whoami(began["token"].as_str().unwrap()).await;
        assert_eq!(who["principal"], "ann");
        let (status, said) = w.login("bob", "bobbob").await;
        assert!(
            status == 401 && said["detail"].as_str().unwrap().contains("shoal user add"),
            "{status} {said}"
        );
        assert_eq!(w.login("ann", "wrong").await.0, 401);
    }

    #[tokio::test]
    async fn how_long_it_vouches_is_how_long_one_is_known() {
        let soon = Timestamp::now() + std::time::Duration::from_secs(60);
        let (_, who) = World::new(Some(soon)).await.whoami("dir.ann").await;
        assert_eq!(who["expires"], json!(soon));
    }
}
