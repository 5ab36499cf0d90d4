//! What watchers of one host each cost a server, with a connection each, whatever store it stands on: memory, processor time for each
//! commit, and how they come back after a restart.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shoal_core::{Key, Range};
use shoal_store::{Filter, Store};

use crate::crowd::{Crowd, commit, host, one_host};
use crate::figure::Figure;
use crate::server::Server;
use crate::shape;

const PATIENCE: Duration = Duration::from_secs(60);
/// Commits that watchers miss while the server is away.
const MISSED: u32 = 1_000;
/// How many watchers a server is meant to take back in a second, and a half more for the second that is cut at the wrong place.
const BACK: f64 = 3_000.0;

/// What is measured, and on what.
pub struct Watched<'a> {
    /// Where what servers say is written.
    pub dir: &'a Path,
    /// The store that they stand on, for figures.
    pub on: &'static str,
    /// The database, as a server is told.
    pub url: String,
    /// Another one, with nothing in it.
    pub empty: String,
    /// The database as this process has it: servers hear of its commits as of those of any other process.
    pub store: &'a dyn Store,
    /// How many hosts there are.
    pub hosts: u32,
    /// How many watch, at most as many as there are hosts.
    pub many: u32,
    /// Commits of a round.
    pub commits: u32,
    /// Rounds of each figure.
    pub rounds: u32,
}

impl Watched<'_> {
    async fn begin(&self, server: &Server, many: u32) -> Result<Crowd> {
        let filters = (0..many).map(|n| Ok((n, one_host(n)?))).collect::<Result<_>>()?;
        Crowd::begin(&server.store()?, filters).await
    }

    fn figure(&self, name: &'static str, unit: &'static str, values: Vec<f64>) -> Figure {
        Figure::median(name, unit, values).hosts(self.hosts).on(self.on)
    }

    /// What a watcher costs the server, its connection included. In a server with nothing else, or it would use what loading let go of.
    ///
    /// # Errors
    /// Something does not run.
    pub async fn memory(&self) -> Result<()> {
        let dir = self.dir.join("empty");
        std::fs::create_dir(&dir).context("a folder")?;
        let server = Server::start(&dir, &self.empty)?;
        let first = self.begin(&server, 1).await?;
        let before = server.usage()?.resident;
        let crowd = self.begin(&server, self.many).await?;
        let memory = server.usage()?.resident.saturating_sub(before) as f64 / f64::from(self.many);
        drop((first, crowd));
        Figure::median("watcher_memory_server", "B", vec![memory])
            .on(self.on)
            .beside("watchers", f64::from(self.many))
            .print();
        Ok(())
    }

    /// Processor time of the server for a commit that concerns one of many, and the time until that one has it; beside, the same with one
    /// watcher alone. A commit that comes to anybody else is an error.
    ///
    /// # Errors
    /// Something does not run, or a commit came to the wrong one.
    pub async fn concerned(&self, server: &Server) -> Result<()> {
        let alone = self.costs(server, self.begin(server, 1).await?, 1, 100).await?;
        let among = self.costs(server, self.begin(server, self.many).await?, self.many, 200).await?;
        let one = Figure::median("", "us", alone.0).value;
        self.figure("commit_cpu_server_10k_watchers", "us", among.0)
            .beside("one watcher", one)
            .beside("watchers", f64::from(self.many))
            .goal(2.0 * one)
            .print();
        self.figure("commit_to_watcher_server_10k_watchers", "us", among.1)
            .beside("one watcher", Figure::median("", "us", alone.1).value)
            .print();
        Ok(())
    }

    /// Processor time of the server for each commit of this process, and the times until the watcher has it.
    async fn costs(
        &self,
        server: &Server,
        mut crowd: Crowd,
        many: u32,
        first: u32,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut cpu, mut times) = (Vec::new(), Vec::new());
        for round in first..first + self.rounds {
            let before = server.usage()?.cpu;
            times.extend(crowd.round(self.store, many, self.commits, round).await?.answered);
            let used = server.usage()?.cpu.saturating_sub(before);
            cpu.push(used.as_secs_f64() * 1e6 / f64::from(self.commits));
        }
        Ok((cpu, times))
    }

    /// What it costs to tell those whom nothing concerns how far the database is: how often, and processor time for each.
    ///
    /// # Errors
    /// Something does not run.
    pub async fn uptos(&self, server: &Server) -> Result<()> {
        let crowd = self.begin(server, self.many).await?;
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for round in 1_000..1_000 + self.rounds {
            let (told, cpu, began) = (crowd.uptos(), server.usage()?.cpu, Instant::now());
            for n in 0..20 {
                // Nobody watches the last host.
                self.store.commit(commit(vec![host(self.hosts - 1, round * 100 + n)?])).await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let told = (crowd.uptos() - told) as f64;
            costs.push(server.usage()?.cpu.saturating_sub(cpu).as_secs_f64() * 1e6 / told);
            rates.push(told / began.elapsed().as_secs_f64());
        }
        self.figure("uptos_of_10k_idle_watchers", "1/s", rates).print();
        self.figure("upto_cpu_server", "us", costs).print();
        Ok(())
    }

    /// The server is stopped and started again, with commits in between: how fast the watchers come back, and what each costs.
    ///
    /// # Errors
    /// Something does not run, or they do not all come back.
    pub async fn restart(&self, server: &mut Server) -> Result<()> {
        let crowd = self.begin(server, self.many).await?;
        server.stop()?;
        let lost = Instant::now();
        for n in 0..MISSED {
            self.store.commit(commit(vec![host(self.hosts - 1, 10_000 + n)?])).await?;
        }
        server.again()?;
        let (before, began) = (server.usage()?.cpu, Instant::now());
        let (mut come, mut all) = (Vec::new(), 0.0);
        while all < f64::from(self.many) {
            ensure!(began.elapsed() < PATIENCE, "only {all} watchers came back");
            let so_far = server.metric("shoal_hostdb_watchers")?;
            come.push((Instant::now(), so_far));
            all = so_far;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (took, back) = (lost.elapsed().as_secs_f64(), began.elapsed().as_secs_f64());
        // The most within one second.
        let most = come.iter().map(|(from, first)| {
            let within = come.iter().take_while(|(at, _)| *at <= *from + Duration::from_secs(1));
            within.last().map_or(0.0, |(_, last)| last - first)
        });
        let most = most.fold(0.0, f64::max);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let cpu = server.usage()?.cpu.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(self.many);
        self.figure("watchers_back_after_restart_most_in_a_second", "1/s", vec![most])
            .beside("seconds until all were", took)
            .beside("of them since the server was ready", back)
            .goal(BACK)
            .print();
        self.figure("resume_cpu_server_1k_commits_behind", "us", vec![cpu]).print();
        drop(crowd);
        Ok(())
    }

    /// The time from the acknowledgement until the last of so many that watch everything has the commit.
    ///
    /// # Errors
    /// Something does not run.
    pub async fn all(&self, server: &Server, watchers: u32) -> Result<()> {
        let all = Delivered::of(server, self.store, watchers, 100).await?;
        self.figure("commit_to_last_of_1k_watchers_of_all_server", "us", all.times)
            .beside("server's cpu for each", all.cpu)
            .print();
        Ok(())
    }
}

/// What it takes until everybody who watches everything has what was written.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    /// From each acknowledgement to the last who has it, in microseconds.
    pub times: Vec<f64>,
    /// Processor time of whoever tells them, for each of them and each write, in microseconds.
    pub cpu: f64,
}

impl Delivered {
    /// Makes so many commits, which so many hear of through this server, with a connection each.
    ///
    /// # Errors
    /// Something does not run, or a commit does not come.
    pub async fn of(server: &Server, store: &dyn Store, watchers: u32, commits: u32) -> Result<Self> {
        let filters = (0..watchers).map(|n| (n, Filter::all())).collect();
        let mut crowd = Crowd::begin(&server.store()?, filters).await?;
        let (mut times, before) = (Vec::new(), server.usage()?.cpu);
        for serial in 0..commits {
            store.commit(commit(vec![host(0, 50_000 + serial)?])).await?;
            let answered = Instant::now();
            let mut last = answered;
            for _ in 0..watchers {
                last = last.max(crowd.next().await?.1);
            }
            times.push((last - answered).as_secs_f64() * 1e6);
        }
        let cpu = server.usage()?.cpu.saturating_sub(before).as_secs_f64() * 1e6;
        let key = Key::host(&shape::host(0)?);
        ensure!(store.log(&Range::Key(key), None, 1).await?.len() == 1, "it was not written");
        Ok(Self { times, cpu: cpu / (f64::from(commits) * f64::from(watchers)) })
    }
}
