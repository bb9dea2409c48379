//! A console that listens, over the testkit's world.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pullre::config::{ConsoleConfig, Secret};
use pullre::domain::{InstanceState, PullNumber};
use pullre::store::{ConsoleUser, Role};
use pullre_console::password::hash_at_cost;
use pullre_console::{Console, Limit, RateLimit, Rhythm, Site, serve};
use testkit::fuse::Fuse;
use testkit::world::World;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

use crate::http::{self, Reply, base64, encoded};

pub struct Served {
    pub world: World,
    pub address: SocketAddr,
    pub wake: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

pub const OLGA: (&str, &str) = ("olga", "olga's: päss");
pub const RITA: (&str, &str) = ("rita", "rita may look");
pub const OTTO: (&str, &str) = ("otto", "otto's password");

fn cheap(password: &str) -> String {
    hash_at_cost(password, 8, 1).unwrap()
}

pub fn config() -> ConsoleConfig {
    ConsoleConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        trusted_proxies: Vec::new(),
        basic_user: Some(OLGA.0.into()),
        basic_password: Some(Secret::new(cheap(OLGA.1))),
        app_secret_key: None,
        webhook_secret: Some(Secret::new("hooked")),
        tick: None,
    }
}

/// Servers stg1 to stgN, running since a while, now being now.
pub fn world(servers: usize) -> World {
    with_users(World::new(servers))
}

pub fn with_users(mut world: World) -> World {
    world.now = Timestamp::now() - SignedDuration::from_mins(20);
    let mut store = world.store();
    for ((name, password), role) in [(RITA, Role::ReadOnly), (OTTO, Role::Operator)] {
        let user = ConsoleUser { name: name.into(), password: cheap(password), role };
        store.set_console_user(&user, world.now).unwrap();
    }
    world
}

/// With two environments that are ready and one that waits.
pub fn busy() -> World {
    let mut world = world(2);
    for author in ["dev1", "dev2", "dev1"] {
        world.hub.open(author, false, world.now);
    }
    world.minutes(6);
    world.now = Timestamp::now();
    // Their clients live.
    world.client_ticks(&Fuse::never(), |_| true);
    world.tick();
    world
}

impl Served {
    pub fn new() -> Served {
        Served::with(world(2), |_| {})
    }

    pub fn busy() -> Served {
        Served::with(busy(), |_| {})
    }

    pub fn with(world: World, change: impl FnOnce(&mut Site)) -> Served {
        let wake = Arc::new(Notify::new());
        let mut site = Site {
            config: config(),
            repository_url: "https://github.com/octo/app".into(),
            protocol: "http://".into(),
            domain: None,
            policy: world.policy.clone(),
            database: world.database(Fuse::never()),
            locks: world.locks(),
            compute: Arc::new(world.fleet.seen_by(Fuse::never())),
            local: false,
            wake: wake.clone(),
            rhythm: Rhythm::default(),
            github_limit: Limit::new(|_| RateLimit::default()),
        };
        change(&mut site);
        let console = Arc::new(Console::new(site).unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                serve(console, listener, async { drop(stopped.await) }).await.unwrap();
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        let address = address.recv().unwrap();
        Served { world, address, wake, stop: Some(stop), thread: Some(thread) }
    }

    /// Ends it, and returns when it has ended.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Asks it to end, without waiting.
    pub fn begin_to_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Whether a tick was asked for since the last time that this was asked.
    pub fn was_woken(&self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::ZERO, self.wake.notified()).await.is_ok()
        })
    }

    pub fn visitor(&self) -> Visitor {
        Visitor { address: self.address, login: None, headers: Vec::new(), cookie: None }
    }

    pub fn olga(&self) -> Visitor {
        self.visitor().login(OLGA)
    }

    pub fn rita(&self) -> Visitor {
        self.visitor().login(RITA)
    }

    pub fn events(&self) -> Vec<(String, String)> {
        let events = self.world.store().recent_events(200).unwrap();
        events.into_iter().map(|event| (event.actor, event.message)).collect()
    }

    pub fn number(&self, n: u32) -> PullNumber {
        PullNumber(n)
    }

    pub fn add_machine(&self, id: &str) {
        self.world.fleet.add(id, InstanceState::Stopped);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A browser: it keeps its password and its cookie.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub address: SocketAddr,
    pub login: Option<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub cookie: Option<String>,
}

impl Visitor {
    pub fn login(mut self, (name, password): (&str, &str)) -> Visitor {
        self.login = Some((name.into(), password.into()));
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Visitor {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn head(&self, method: &str, path: &str) -> String {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: pr.example.com\r\nConnection: close\r\n");
        if let Some((name, password)) = &self.login {
            head += &format!("Authorization: Basic {}\r\n", base64(&format!("{name}:{password}")));
        }
        if let Some(cookie) = &self.cookie {
            head += &format!("Cookie: other=1; {cookie}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head
    }

    pub fn send(&mut self, method: &str, path: &str, kind: &str, body: &str) -> Reply {
        let mut request = self.head(method, path);
        if method == "POST" || !body.is_empty() {
            request += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        request += body;
        let answer = http::raw(self.address, request.as_bytes());
        let reply = http::parse(&answer)
            .unwrap_or_else(|| panic!("no answer to {method} {path}: {answer:?}"));
        if let Some(cookie) = reply.header("set-cookie") {
            self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
        }
        reply
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.send("GET", path, "", "")
    }

    /// A form as it is, without a token that is not in `fields`.
    pub fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let body: Vec<_> =
            fields.iter().map(|(k, v)| format!("{}={}", encoded(k), encoded(v))).collect();
        self.send("POST", path, "application/x-www-form-urlencoded", &body.join("&"))
    }

    /// The token of the forms on a page; the master form of a new user is on none of a reader's.
    pub fn token(&mut self) -> String {
        let page = self.get("/master/git_hub_users/create");
        hidden(&page.body, "token").unwrap_or_default()
    }

    /// A form with the session's token, and the page that follows.
    pub fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let token = self.token();
        let mut fields = fields.to_vec();
        fields.push(("token", &token));
        let reply = self.post(path, &fields);
        match reply.header("location") {
            Some(to) if reply.status == 303 => {
                let to = to.to_owned();
                self.get(&to)
            }
            _ => reply,
        }
    }
}

/// The value of a hidden field.
pub fn hidden(page: &str, name: &str) -> Option<String> {
    let start = format!("name=\"{name}\" value=\"");
    let at = page.find(&start)? + start.len();
    Some(page[at..].split('"').next()?.to_owned())
}
