//! A slow and unreliable line: a TCP proxy that delays what passes and cuts connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// See the module.
pub struct Proxy {
    port: u16,
    line: Arc<Line>,
}

/// What all connections share.
struct Line {
    target: u16,
    latency: Duration,
    /// How many bytes of a client a connection lets pass before it is cut, and the random numbers
    /// that choose.
    cuts: Option<(std::ops::Range<u64>, Mutex<fastrand::Rng>)>,
    ended: AtomicBool,
    connections: AtomicUsize,
    most_connections: AtomicUsize,
    cut: AtomicUsize,
    sent: AtomicU64,
    under_way: AtomicU64,
    most_under_way: AtomicU64,
    open: Mutex<Vec<Ends>>,
}

impl Proxy {
    /// A line to a port of this host on which everything takes `latency` longer each way.
    #[must_use]
    pub fn slow(target: u16, latency: Duration) -> Self {
        Self::start(target, latency, None)
    }

    /// The same, and every connection is cut after so many bytes of the client, chosen at random.
    #[must_use]
    pub fn cutting(
        target: u16,
        latency: Duration,
        after_bytes: std::ops::Range<u64>,
        seed: u64,
    ) -> Self {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        Self::start(target, latency, Some((after_bytes, random)))
    }

    fn start(
        target: u16,
        latency: Duration,
        cuts: Option<(std::ops::Range<u64>, Mutex<fastrand::Rng>)>,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for a proxy");
        let port = listener.local_addr().expect("an address").port();
        let line = Arc::new(Line {
            target,
            latency,
            cuts,
            ended: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            most_connections: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            most_under_way: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let shared = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { port, line }
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all connections there are; new ones may be made.
    ///
    /// # Panics
    /// When a thread of the proxy panicked.
    pub fn cut_all(&self) {
        let mut open = self.line.open.lock().expect("connections");
        open.drain(..).for_each(|ends| ends.cut());
    }

    /// Bytes that clients sent until now.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.line.sent.load(Ordering::SeqCst)
    }

    /// Connections that it cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.line.cut.load(Ordering::SeqCst)
    }

    /// Most connections that were open at the same time.
    #[must_use]
    pub fn most_connections(&self) -> usize {
        self.line.most_connections.load(Ordering::SeqCst)
    }

    /// Most bytes that were on their way to the server at the same time.
    #[must_use]
    pub fn most_bytes_under_way(&self) -> u64 {
        self.line.most_under_way.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// One connection, both of its ends.
#[derive(Clone)]
struct Ends {
    client: Arc<TcpStream>,
    server: Arc<TcpStream>,
}

impl Ends {
    fn cut(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl Line {
    fn serve(self: Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target)) else {
            return;
        };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let open = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_connections.fetch_max(open, Ordering::SeqCst);
        let budget = self
            .cuts
            .as_ref()
            .map(|(range, random)| random.lock().expect("random numbers").u64(range.clone()));
        let ends = Ends {
            client: Arc::new(client),
            server: Arc::new(server),
        };
        self.open.lock().expect("connections").push(ends.clone());
        let (there, back) = (ends.clone(), ends);
        let line = Arc::clone(&self);
        let other =
            thread::spawn(move || line.pass(&back.server, &back.client, &back, None, false));
        self.pass(&there.client, &there.server, &there, budget, true);
        let _ = other.join();
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }

    /// Passes on what one end says until it has ended or the connection is cut.
    fn pass(
        self: &Arc<Self>,
        mut from: &TcpStream,
        to: &Arc<TcpStream>,
        ends: &Ends,
        mut budget: Option<u64>,
        is_counted: bool,
    ) {
        let (sender, receiver) = channel::<(Instant, Vec<u8>)>();
        let (line, target) = (Arc::clone(self), Arc::clone(to));
        let delivery = thread::spawn(move || line.deliver(&receiver, &target, is_counted));
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = from.read(&mut buffer) {
            if count == 0 {
                break;
            }
            if let Some(left) = &mut budget {
                if (count as u64) >= *left {
                    self.cut.fetch_add(1, Ordering::SeqCst);
                    ends.cut();
                    break;
                }
                *left -= count as u64;
            }
            if is_counted {
                self.sent.fetch_add(count as u64, Ordering::SeqCst);
                let under_way = self.under_way.fetch_add(count as u64, Ordering::SeqCst);
                self.most_under_way
                    .fetch_max(under_way + count as u64, Ordering::SeqCst);
            }
            let due = Instant::now() + self.latency;
            if sender.send((due, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
        drop(sender);
        let _ = delivery.join();
        let _ = to.shutdown(Shutdown::Write);
    }

    fn deliver(&self, pieces: &Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream, is_counted: bool) {
        let mut works = true;
        for (due, piece) in pieces {
            if works {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                works = to.write_all(&piece).is_ok();
            }
            if is_counted {
                self.under_way
                    .fetch_sub(piece.len() as u64, Ordering::SeqCst);
            }
        }
    }
}
