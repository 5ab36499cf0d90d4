//! A backend on a free port that answers with its name. Asked for `/hold`, it answers when it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A backend; its threads live as long as the test.
pub(crate) struct Backend {
    pub(crate) port: u16,
    held: Arc<AtomicUsize>,
    released: Arc<AtomicBool>,
}

impl Backend {
    pub(crate) fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let backend = Self { port, held: Arc::default(), released: Arc::default() };
        let (name, held, released) = (name.to_owned(), backend.held.clone(), backend.released.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (name, held, released) = (name.clone(), held.clone(), released.clone());
                std::thread::spawn(move || serve(&stream, &name, &held, &released));
            }
        });
        backend
    }

    /// How many requests it holds.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Answers what it holds.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }
}

fn serve(stream: &TcpStream, name: &str, held: &AtomicUsize, released: &AtomicBool) {
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
            held.fetch_add(1, Ordering::SeqCst);
            while !released.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        let mut writer = stream;
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
