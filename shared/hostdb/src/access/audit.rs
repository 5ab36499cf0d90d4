//! What is said in the log of who was refused: bounded, because whoever is refused decides how often.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many lines a second.
const LINES: u32 = 10;

/// The lines of the current second, and how many were left out since the last one.
pub(crate) struct Audit(Mutex<State>);

struct State {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self(Mutex::new(State { since: Instant::now(), lines: 0, left_out: 0 }))
    }
}

impl Audit {
    /// Says a line, unless too many were said just now; it is told how many were left out before it.
    pub(crate) fn line(&self, say: impl FnOnce(u64)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.elapsed() >= Duration::from_secs(1) {
            (state.since, state.lines) = (Instant::now(), 0);
        }
        if state.lines >= LINES {
            state.left_out += 1;
            return;
        }
        state.lines += 1;
        let left_out = std::mem::take(&mut state.left_out);
        drop(state);
        say(left_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_and_no_more() {
        let (audit, mut said) = (Audit::default(), Vec::new());
        (0..100).for_each(|_| audit.line(|more| said.push(more)));
        assert_eq!(said, [0; LINES as usize]);
        audit.0.lock().unwrap().since = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        audit.line(|more| said.push(more));
        assert_eq!(said.last(), Some(&90));
    }

    /// What is written into the log, kept.
    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn who_is_refused_is_told_once_with_where_from() {
        use axum::body::Body;
        use http::Request;
        use tower::ServiceExt as _;

        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _log = tracing::subscriber::set_default(log);
        // With one subscriber alone, whichever thread comes by first decides for all whether a line is wanted.
        let other = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
        let _other = tracing::Dispatch::new(other);
        let db = crate::db::Db::open(std::sync::Arc::new(shoal_store::MemoryStore::new())).await.unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let mut app = crate::app::App::new(db, crate::Limits::default(), false, stop).unwrap();
        (app.asks, app.hostdb_v1) = (true, true);
        let router = crate::api::router(std::sync::Arc::new(app));
        let ask = async |mut request: Request<Body>| {
            kept.0.lock().unwrap().clear();
            request.extensions_mut().insert(crate::peer::Peer::tcp("192.0.2.7:4711".parse().unwrap()));
            assert_eq!(router.clone().oneshot(request).await.unwrap().status(), 401);
            let said = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert_eq!(said.matches("audit").count(), 1, "{said}");
            assert!(said.contains("192.0.2.7:4711") && !said.contains("planted"), "{said}");
            said
        };
        let get = |path: &str| Request::get(path).header("authorization", "Bearer shoal_0a1b_planted");
        let said = ask(get("/api/v2/hosts").body(Body::empty()).unwrap()).await;
        assert!(said.contains("token 0a1b") && said.contains("/api/v2/hosts"), "{said}");
        ask(Request::get("/api/v2/whoami").body(Body::empty()).unwrap()).await;
        ask(get("/v1/auth/session/shoal_0a_planted").body(Body::empty()).unwrap()).await;
        let body = Body::from("{\"user\": \"ann\", \"password\": \"planted\"}");
        let login = Request::post("/api/v2/sessions").header("content-type", "application/json");
        let said = ask(login.body(body).unwrap()).await;
        assert!(said.contains("user=\"ann\""), "{said}");
        let form =
            Request::post("/v1/auth/session").header("content-type", "application/x-www-form-urlencoded");
        let said = ask(form.body(Body::from("username=ann&password=planted")).unwrap()).await;
        assert!(said.contains("user=\"ann\""), "{said}");
    }
}
