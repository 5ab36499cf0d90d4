//! DNS on the wire, read by hand, so that nothing that is under test is used to check it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Record sets by owner (wire octets in lower case) and type.
pub(crate) type Sets = BTreeMap<(Vec<u8>, u16), Set>;

/// The records of one set. A start of authority has no serial here: each server counts its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) ttl: u32,
    pub(crate) data: BTreeSet<Vec<u8>>,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u8,
    pub(crate) authoritative: bool,
    pub(crate) answer: Sets,
    pub(crate) authority: Sets,
}

/// A name without escapes as wire octets.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.trim_end_matches('.').split('.') {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend(label.to_ascii_lowercase().bytes());
    }
    wire.push(0);
    wire
}

/// For people.
pub(crate) fn text(name: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some((&len, tail)) = rest.split_first().filter(|(len, _)| **len > 0) {
        let (label, tail) = tail.split_at(len.into());
        text += &format!("{}.", label.escape_ascii());
        rest = tail;
    }
    text
}

/// The name itself and every name above it, the root left out.
pub(crate) fn above(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(name), |&name| {
        let rest = &name[1 + usize::from(name[0])..];
        (rest.len() > 1).then_some(rest)
    })
}

fn add(sets: &mut Sets, mut owner: Vec<u8>, rtype: u16, ttl: u32, mut data: Vec<u8>) {
    owner.make_ascii_lowercase();
    if rtype == 6 {
        // Five numbers at the end, the serial first.
        let at = data.len() - 20;
        data[at..at + 4].fill(0);
    }
    let set = sets.entry((owner, rtype)).or_default();
    set.ttl = ttl;
    set.data.insert(data);
}

struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        self.at += len;
        &self.all[self.at - len..self.at]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    /// A name, pointers followed.
    fn name(&mut self) -> Vec<u8> {
        let mut name = Vec::new();
        loop {
            let len = self.take(1)[0];
            if len >= 0xc0 {
                let at = usize::from(u16::from_be_bytes([len & 0x3f, self.take(1)[0]]));
                assert!(at < self.at - 2, "a pointer leads forward");
                name.extend(Reader { all: self.all, at }.name());
                return name;
            }
            name.push(len);
            name.extend(self.take(len.into()));
            if len == 0 {
                return name;
            }
        }
    }

    /// Data with its names uncompressed; only the oldest types may have compressed ones.
    fn data(&mut self, rtype: u16, len: usize) -> Vec<u8> {
        let end = self.at + len;
        let mut data = Vec::new();
        let (before, names) = match rtype {
            2 | 5 | 7..=9 | 12 => (0, 1),
            6 | 14 | 17 => (0, 2),
            15 | 18 | 21 => (2, 1),
            _ => (0, 0),
        };
        data.extend(self.take(before));
        for _ in 0..names {
            data.extend(self.name());
        }
        data.extend(self.take(end - self.at));
        data
    }

    fn section(&mut self, count: u16) -> Sets {
        let mut sets = Sets::new();
        for _ in 0..count {
            let owner = self.name();
            let (rtype, _class, ttl, len) = (self.u16(), self.u16(), self.u32(), self.u16());
            let data = self.data(rtype, len.into());
            add(&mut sets, owner, rtype, ttl, data);
        }
        sets
    }
}

/// BIND's own form of a zone (`-F raw`).
pub(crate) fn raw(octets: &[u8]) -> Sets {
    let mut reader = Reader { all: octets, at: 0 };
    let (format, version) = (reader.u32(), reader.u32());
    assert_eq!((format, version), (2, 1));
    reader.take(16);
    let mut sets = Sets::new();
    while reader.at < octets.len() {
        let (_len, _class, rtype, _covers) = (reader.u32(), reader.u16(), reader.u16(), reader.u16());
        let (ttl, count, len) = (reader.u32(), reader.u32(), reader.u16());
        let owner = reader.take(len.into()).to_vec();
        for _ in 0..count {
            let len = reader.u16();
            add(&mut sets, owner.clone(), rtype, ttl, reader.take(len.into()).to_vec());
        }
    }
    sets
}

/// A connection to a server, for one question after the other.
pub(crate) struct Connection {
    stream: TcpStream,
    at: SocketAddr,
}

impl Connection {
    pub(crate) fn open(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, at }
    }

    fn exchange(&mut self, message: &[u8]) -> std::io::Result<Vec<u8>> {
        self.stream.write_all(message)?;
        let mut len = [0; 2];
        self.stream.read_exact(&mut len)?;
        let mut reply = vec![0; u16::from_be_bytes(len).into()];
        self.stream.read_exact(&mut reply)?;
        Ok(reply)
    }

    /// A connection to a server that has this version of a zone. NSD's earlier process goes on for a moment after a reload.
    pub(crate) fn to_version(at: SocketAddr, zone: &str, serial: u32) -> Self {
        for _ in 0..1000 {
            let mut connection = Self::open(at);
            if connection.serial(zone) == Some(serial) {
                return connection;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{at} does not come to serve {zone} {serial}");
    }

    /// The serial of a zone, if that is answered.
    fn serial(&mut self, zone: &str) -> Option<u32> {
        let reply = self.reply(&name(zone), 6);
        let mut reader = Reader { all: &reply, at: 6 };
        if reader.u16() == 0 {
            return None;
        }
        reader.take(4);
        reader.name();
        reader.take(4);
        reader.name();
        reader.take(10);
        reader.name();
        reader.name();
        Some(reader.u32())
    }

    fn reply(&mut self, name: &[u8], rtype: u16) -> Vec<u8> {
        let mut query = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(name);
        query.extend(rtype.to_be_bytes());
        query.extend([0, 1]);
        let mut message = u16::try_from(query.len()).unwrap().to_be_bytes().to_vec();
        message.extend(query);
        // NSD answers with another process after a reload, and the earlier one's connections end.
        let reply = self.exchange(&message).or_else(|_| {
            *self = Self::open(self.at);
            self.exchange(&message)
        });
        reply.unwrap()
    }

    pub(crate) fn ask(&mut self, name: &[u8], rtype: u16) -> Answer {
        let reply = self.reply(name, rtype);
        let mut reader = Reader { all: &reply, at: 2 };
        let (flags, questions, answers, authorities) =
            (reader.u16(), reader.u16(), reader.u16(), reader.u16());
        reader.u16();
        assert_eq!((questions, flags & 0x0200), (1, 0), "one question and nothing cut");
        reader.name();
        reader.u32();
        Answer {
            code: u8::try_from(flags & 15).unwrap(),
            authoritative: flags & 0x0400 != 0,
            answer: reader.section(answers),
            authority: reader.section(authorities),
        }
    }
}
