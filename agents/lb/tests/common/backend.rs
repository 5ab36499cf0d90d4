//! A backend on a free port that answers with its name. Asked for `/hold`, it answers when it is told to; asked for `/health`, it says how it is.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A backend; its threads live as long as the test.
pub(crate) struct Backend {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    held: AtomicUsize,
    released: AtomicBool,
    sick: AtomicBool,
}

impl Backend {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_at("127.0.0.1", name)
    }

    /// Starts it at another address of this machine.
    pub(crate) fn start_at(address: &str, name: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let backend = Self { port, state: Arc::default() };
        let (name, state) = (name.to_owned(), backend.state.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (name, state) = (name.clone(), state.clone());
                std::thread::spawn(move || serve(&stream, &name, &state));
            }
        });
        backend
    }

    /// How many requests it holds.
    pub(crate) fn held(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }

    /// Answers what it holds.
    pub(crate) fn release(&self) {
        self.state.released.store(true, Ordering::SeqCst);
    }

    /// Whether it says from now on that it is not well. It answers all the same.
    pub(crate) fn sicken(&self, sick: bool) {
        self.state.sick.store(sick, Ordering::SeqCst);
    }
}

fn serve(stream: &TcpStream, name: &str, state: &State) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            line.clear();
        }
        if request.contains("/hold") {
            state.held.fetch_add(1, Ordering::SeqCst);
            while !state.released.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let sick = request.contains("/health") && state.sick.load(Ordering::SeqCst);
        let status = if sick { "503 Service Unavailable" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        let mut writer = stream;
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
