//! A slow and unreliable line: a TCP proxy that delays what passes, lets only so much pass, and cuts
//! connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Passed on at once, and by turns where the rate is limited.
const PIECE_BYTES: usize = 16 << 10;
/// Under way each way of a connection, 4 MiB: TCP has windows, too, and a fast server would otherwise leave all
/// that a client wants in this process.
const MOST_PIECES: usize = 256;

/// See the module.
pub struct Proxy {
    port: u16,
    line: Arc<Line>,
}

/// What all connections share.
struct Line {
    target: u16,
    latency: Duration,
    /// Bytes a second each way, of all connections together; 0: no limit.
    rate: AtomicU64,
    /// How many bytes of a client a connection lets pass before it is cut, and the random numbers
    /// that choose.
    cuts: Option<(std::ops::Range<u64>, Mutex<fastrand::Rng>)>,
    there: Way,
    back: Way,
    ended: AtomicBool,
    connections: AtomicUsize,
    most_connections: AtomicUsize,
    cut: AtomicUsize,
    under_way: AtomicU64,
    most_under_way: AtomicU64,
    open: Mutex<Vec<Ends>>,
    requests: Mutex<Vec<String>>,
}

/// One direction of the line.
#[derive(Default)]
struct Way {
    bytes: AtomicU64,
    /// When what was let in until now has left, where the rate is limited.
    free_at: Mutex<Option<Instant>>,
}

impl Way {
    /// Waits until `count` bytes more have had their turn.
    fn wait_for_turn(&self, count: usize, bytes_a_second: u64) {
        let takes = Duration::from_secs_f64(count as f64 / bytes_a_second as f64);
        let done_at = {
            let mut free_at = self.free_at.lock().expect("a time");
            let now = Instant::now();
            let done_at = free_at.map_or(now, |free_at| free_at.max(now)) + takes;
            *free_at = Some(done_at);
            done_at
        };
        thread::sleep(done_at.saturating_duration_since(Instant::now()));
    }
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
            rate: AtomicU64::new(0),
            cuts,
            there: Way::default(),
            back: Way::default(),
            ended: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            most_connections: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            under_way: AtomicU64::new(0),
            most_under_way: AtomicU64::new(0),
            open: Mutex::default(),
            requests: Mutex::default(),
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

    /// From now on no more than so many bytes a second pass each way; `None`: as many as can.
    pub fn limit(&self, bytes_a_second: Option<NonZeroU64>) {
        let rate = bytes_a_second.map_or(0, NonZeroU64::get);
        self.line.rate.store(rate, Ordering::SeqCst);
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
        self.line.there.bytes.load(Ordering::SeqCst)
    }

    /// Bytes that the server sent until now.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.line.back.bytes.load(Ordering::SeqCst)
    }

    /// First lines of the HTTP requests since the last call, without the protocol: "GET /repo/index/".
    ///
    /// # Panics
    /// When a thread of the proxy panicked.
    #[must_use]
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.line.requests.lock().expect("requests"))
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

/// A client sends nothing before the answer, so that a request begins where it was read from.
fn first_line_of_request(sent: &[u8]) -> Option<String> {
    let line = sent.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.strip_suffix(" HTTP/1.1").map(str::to_owned)
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
        is_client: bool,
    ) {
        let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(MOST_PIECES);
        let (line, target) = (Arc::clone(self), Arc::clone(to));
        let delivery = thread::spawn(move || line.deliver(&receiver, &target, is_client));
        let way = if is_client { &self.there } else { &self.back };
        let mut buffer = vec![0; PIECE_BYTES];
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
            match self.rate.load(Ordering::SeqCst) {
                0 => {}
                rate => way.wait_for_turn(count, rate),
            }
            way.bytes.fetch_add(count as u64, Ordering::SeqCst);
            if is_client {
                let request = first_line_of_request(&buffer[..count]);
                self.requests.lock().expect("requests").extend(request);
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

    fn deliver(&self, pieces: &Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream, is_client: bool) {
        let mut works = true;
        for (due, piece) in pieces {
            if works {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                works = to.write_all(&piece).is_ok();
            }
            if is_client {
                self.under_way
                    .fetch_sub(piece.len() as u64, Ordering::SeqCst);
            }
        }
    }
}
