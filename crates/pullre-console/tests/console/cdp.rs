//! Drives a headless Chromium over a pair of pipes, by its DevTools protocol.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// Only so that a test that hangs ends.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Browser {
    child: Child,
    pipe: Option<ChildStdin>,
    messages: Receiver<Value>,
    events: VecDeque<Value>,
    next: u64,
    session: String,
    _home: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Browser {
        let home = tempfile::tempdir().unwrap();
        // The protocol is on 3 and 4; Chromium's own words go to a file.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>\"$HOME/log\"", "sh"])
            .args(["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--disable-extensions"])
            .args(["--disable-background-networking", "--no-proxy-server", "--lang=en-GB"])
            .args(["--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
            .env("HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromium; `scripts/setup test` installs it");
        let pipe = child.stdin.take();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (send, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                if send.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Browser {
            child,
            pipe,
            messages,
            events: VecDeque::new(),
            next: 0,
            session: String::new(),
            _home: home,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn message(&mut self) -> Value {
        match self.messages.recv_timeout(PATIENCE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => panic!("chromium says nothing"),
            Err(RecvTimeoutError::Disconnected) => panic!("chromium is gone"),
        }
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut request = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            request["sessionId"] = self.session.as_str().into();
        }
        let pipe = self.pipe.as_mut().unwrap();
        pipe.write_all(request.to_string().as_bytes()).unwrap();
        pipe.write_all(&[0]).unwrap();
        loop {
            let message = self.message();
            if message["id"] == json!(self.next) {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push_back(message);
        }
    }

    /// Until something of this name happens; what happened before counts too.
    fn wait(&mut self, method: &str) {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["method"] == method) {
                self.events.remove(at);
                return;
            }
            let message = self.message();
            self.events.push_back(message);
        }
    }

    fn forget(&mut self, method: &str) {
        self.events.retain(|event| event["method"] != method);
    }

    pub fn goto(&mut self, url: &str) {
        self.forget("Page.loadEventFired");
        self.call("Page.navigate", json!({ "url": url }));
        self.wait("Page.loadEventFired");
    }

    /// Does something that leads to another page, and waits for that.
    pub fn follow(&mut self, script: &str) {
        self.forget("Page.loadEventFired");
        self.eval(&format!("{{ {script}; undefined }}"));
        self.wait("Page.loadEventFired");
    }

    /// A key that leads to another page.
    pub fn follow_key(&mut self, key: &str) {
        self.forget("Page.loadEventFired");
        self.key(key);
        self.wait("Page.loadEventFired");
    }

    pub fn eval(&mut self, script: &str) -> Value {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let done = self.call("Runtime.evaluate", params);
        assert!(done["exceptionDetails"].is_null(), "{script}: {}", done["exceptionDetails"]);
        done["result"]["value"].clone()
    }

    /// Until a script says true.
    pub fn until(&mut self, script: &str) {
        let params = json!({
            "expression": format!("new Promise(done => {{ const look = () => ({script}) ? done(true) : setTimeout(look, 50); look(); }})"),
            "awaitPromise": true,
            "returnByValue": true,
        });
        self.call("Runtime.evaluate", params);
    }

    pub fn text(&mut self) -> String {
        self.eval("document.querySelector('main').innerText")
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn key(&mut self, key: &str) {
        let code = if key == "Enter" { 13 } else { 9 };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    pub fn size(&mut self, width: u32, height: u32) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    pub fn colours(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    pub fn screenshot(&mut self, name: &str) {
        let shot = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
        std::fs::create_dir_all(&folder).unwrap();
        let bytes = decoded(shot["data"].as_str().unwrap());
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// What the page complained about since this was asked last.
    pub fn complaints(&mut self) -> Vec<String> {
        // What is on its way arrives before the answer.
        self.eval("1");
        let is_complaint = |event: &Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => {
                matches!(event["params"]["entry"]["level"].as_str(), Some("error" | "warning"))
            }
            Some("Runtime.consoleAPICalled") => {
                matches!(event["params"]["type"].as_str(), Some("error" | "warning"))
            }
            _ => false,
        };
        let found = self.events.iter().filter(|event| is_complaint(event)).map(|e| e.to_string());
        let found = found.collect();
        self.events.retain(|event| !is_complaint(event));
        found
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of the pipe is its end; only one that hangs is killed.
        drop(self.pipe.take());
        for _ in 0..50 {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn decoded(text: &str) -> Vec<u8> {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let word = group.iter().fold(0u32, |word, b| word << 6 | u32::from(digit(*b)));
        let word = word << (6 * (4 - group.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}
