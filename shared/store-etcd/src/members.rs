//! The members of etcd: which one is asked, and how its clients are made.
//!
//! One is asked until it fails, then the next that lives: so a member that hangs costs one wait and not every third request. Which one is the
//! first is chance, so that many programs spread over all of them. Each connection has a number; of all that fail on it, the
//! first makes room for the next.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, KvClient, LeaseClient, MaintenanceClient, WatchClient};
use rand::Rng as _;
use shoal_store::Result;
use tokio::sync::watch;

use crate::address::Address;
use crate::fault::{Cure, Place, cure, fault, is_open, silent};
use crate::papers::{Papers, Shown};

/// How long one request may take, and a connection that shows a password.
pub(crate) const REQUEST: Duration = Duration::from_secs(5);
/// How long a member may take to say that it lives, where there are others.
const FIRST: Duration = Duration::from_secs(1);
/// Larger answers than the client takes by default: a page of rows, some large commits.
const ANSWER: usize = 1 << 30;

/// The clients of one member.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) kv: KvClient,
    pub(crate) lease: LeaseClient,
    pub(crate) watch: WatchClient,
    pub(crate) maintenance: MaintenanceClient,
    /// Which connection it is.
    pub(crate) number: u64,
}

/// All members that the address names.
pub(crate) struct Members {
    /// The URL of each.
    urls: Vec<String>,
    shown: Shown,
    pub(crate) place: Place,
    /// Held while a connection is made, so that one shows the password and not all who wait.
    connecting: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// The number of the connection that is asked.
    newest: watch::Sender<u64>,
}

struct State {
    /// Which member is asked.
    at: usize,
    number: u64,
    member: Option<Member>,
    /// With which a connection could be made.
    good: Option<ConnectOptions>,
}

impl Members {
    /// Reads the files; connects when it is first asked.
    pub(crate) fn new(address: &Address, papers: &Papers) -> Result<Self> {
        let shown = Shown::new(address, papers)?;
        let scheme = if address.tls { "https" } else { "http" };
        let urls: Vec<_> = address.hosts.iter().map(|host| format!("{scheme}://{host}")).collect();
        let at = rand::rng().random_range(0..urls.len().max(1));
        let place = Place {
            name: format!("etcd at {}", address.hosts.join(",")).into(),
            database: address.name.clone(),
            tls: address.tls,
            user: shown.has_user(),
            several: urls.len() > 1,
        };
        let state = Mutex::new(State { at, number: 0, member: None, good: None });
        let connecting = tokio::sync::Mutex::new(());
        Ok(Self { urls, shown, place, connecting, state, newest: watch::channel(0).0 })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.urls.len()
    }

    /// Tells the number of the connection that is asked, each time that it changes.
    pub(crate) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The one that is asked now.
    pub(crate) async fn member(&self, attempted: &str) -> Result<Member> {
        match self.current() {
            Some(member) => Ok(member),
            // Apart: making a connection needs much more room than every request has for it.
            None => Box::pin(self.reached(attempted)).await,
        }
    }

    /// One that can be reached, which is asked from then on.
    async fn reached(&self, attempted: &str) -> Result<Member> {
        let late = || silent(&self.place, attempted, REQUEST.as_secs());
        let one = tokio::time::timeout(REQUEST, self.connecting.lock()).await;
        let _one = one.map_err(|_| late())?;
        if let Some(member) = self.current() {
            return Ok(member);
        }
        // What is shown now is what the files say now.
        self.shown.renewed(true);
        let mut last = None;
        for _ in &self.urls {
            let (at, number, good) = {
                let state = self.state();
                (state.at, state.number, state.good.clone())
            };
            let Some(url) = self.urls.get(at) else { break };
            let error = match tokio::time::timeout(REQUEST, self.reach(url, good)).await {
                Ok(Ok((client, options))) => {
                    let member = Member::of(&client, number);
                    let mut state = self.state();
                    state.good = Some(options);
                    if state.number == number {
                        state.member = Some(member.clone());
                    }
                    return Ok(member);
                }
                Ok(Err(error)) => {
                    self.failed(number, &error);
                    fault(&self.place, attempted, &error)
                }
                Err(_) => {
                    self.leave(number);
                    late()
                }
            };
            // What it says would be said by each of them.
            if !error.is_transient() {
                return Err(error);
            }
            last = Some(error);
        }
        Err(last.unwrap_or_else(late))
    }

    /// A connection to a member that answers, where there are others to ask instead.
    async fn reach(
        &self,
        url: &str,
        good: Option<ConnectOptions>,
    ) -> Result<(Client, ConnectOptions), Error> {
        if self.place.several {
            let (client, _) = self.connect(url, self.shown.unnamed(), good.clone()).await?;
            self.lives(&client).await?;
        }
        self.connect(url, self.shown.options(), good).await
    }

    /// Whether a member answers and has a leader. One that hangs would cost the first who ask all their time.
    async fn lives(&self, client: &Client) -> Result<(), Error> {
        let mut asked = client.maintenance_client();
        let no = |why: &str| Error::IoError(std::io::Error::other(why.to_owned()));
        match tokio::time::timeout(FIRST, asked.status()).await {
            Ok(Ok(status)) if status.leader() == 0 => Err(no("it has no leader")),
            Ok(Ok(_)) => Ok(()),
            // Whoever refuses lives.
            Ok(Err(error)) if cure(&self.place, &error) != Cure::Elsewhere => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(no("it does not answer")),
        }
    }

    /// Asks nobody yet, but to show a password. With the files as they were when a connection could last be made, where they are no good
    /// by now.
    async fn connect(
        &self,
        url: &str,
        options: ConnectOptions,
        good: Option<ConnectOptions>,
    ) -> Result<(Client, ConnectOptions), Error> {
        let made = match Client::connect([url], Some(options.clone())).await {
            Err(error) if is_open(&error) => {
                // As it is while users are brought in: whoever asks is let in, and asked for the password from when they are.
                tracing::warn!("{} asks nobody for a password (etcdctl auth enable)", self.place.name);
                Client::connect([url], Some(self.shown.unnamed())).await
            }
            Err(error @ Error::TransportError(_)) => match good {
                // A renewal that is only half written. Nothing was sent yet, so it is about the files.
                Some(good) => {
                    let why = fault(&self.place, "reading files", &error);
                    tracing::warn!("what was read before stays in use: {why}");
                    return Client::connect([url], Some(good.clone())).await.map(|client| (client, good));
                }
                None => Err(error),
            },
            other => other,
        };
        made.map(|client| (client, options))
    }

    /// What was asked by this connection failed so: whether the next request goes elsewhere, or shows the password again.
    pub(crate) fn failed(&self, number: u64, error: &Error) {
        match cure(&self.place, error) {
            Cure::Nothing => {}
            Cure::Elsewhere => self.leave(number),
            Cure::Anew => {
                // The password may be another one by now.
                self.shown.renewed(true);
                self.forget(number);
            }
        }
    }

    /// The next request goes to another member, where there is one. Where there is none, the connection mends itself.
    pub(crate) fn leave(&self, number: u64) {
        if self.place.several {
            let mut state = self.state();
            if state.number == number {
                state.at = (state.at + 1) % self.urls.len();
                tracing::info!("from now on {} is asked", self.urls[state.at]);
                self.renumber(&mut state);
            }
        }
    }

    /// The next request makes a connection of its own.
    fn forget(&self, number: u64) {
        let mut state = self.state();
        if state.number == number {
            self.renumber(&mut state);
        }
    }

    fn renumber(&self, state: &mut State) {
        state.number += 1;
        state.member = None;
        self.newest.send_replace(state.number);
    }

    /// The connection that is there, unless the files say something else by now.
    fn current(&self) -> Option<Member> {
        let renewed = self.shown.renewed(false);
        let mut state = self.state();
        if renewed && state.member.is_some() {
            self.renumber(&mut state);
        }
        state.member.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn of(client: &Client, number: u64) -> Self {
        Self {
            kv: client.kv_client().max_decoding_message_size(ANSWER).max_encoding_message_size(ANSWER),
            lease: client.lease_client(),
            watch: client.watch_client().max_decoding_message_size(ANSWER),
            maintenance: client.maintenance_client(),
            number,
        }
    }
}
