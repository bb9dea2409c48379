// Everything works without this script. It shows moments in the visitor's zone, and fetches a page
// again when the server says that it is old. What a log has more, the server sends.
"use strict";

(() => {
  const local = (root, which = "time[datetime]") => {
    for (const time of root.querySelectorAll(which)) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      const passed = () => duration(Math.max(0, Date.now() - moment.getTime()) / 1000);
      if (time.classList.contains("ago")) {
        time.textContent = `${passed()} ago`;
      } else if (time.classList.contains("since")) {
        time.textContent = passed();
      } else {
        time.textContent = moment.toLocaleString(undefined, {
          year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
        });
      }
    }
  };

  // As the server writes it.
  const duration = (s) => {
    const two = (a, one, b, other) => (b ? `${a} ${one} ${b} ${other}` : `${a} ${one}`);
    s = Math.floor(s);
    if (s < 60) return `${s} s`;
    if (s < 3600) return two(Math.floor(s / 60), "min", s % 60, "s");
    if (s < 86400) return two(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
    return two(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
  };

  // A log only gets its new lines: what a person has marked or scrolled to stays.
  const grow = (log, more) => {
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    more();
    if (atEnd) log.scrollTop = log.scrollHeight;
  };

  const make = (log, has) => {
    const had = log.textContent;
    if (had === has) return;
    if (has.startsWith(had)) grow(log, () => log.append(has.slice(had.length)));
    else grow(log, () => { log.textContent = has; });
  };

  // Makes one element like another one, touching what differs and nothing else.
  const same = (before, after) => {
    if (before.isEqualNode(after)) return;
    if (before.nodeType !== Node.ELEMENT_NODE || before.nodeName !== after.nodeName) {
      before.replaceWith(after.cloneNode(true));
      return;
    }
    if (before.matches("[data-log]")) { make(before, after.textContent); return; }
    // What a person has opened or typed is theirs.
    if (before.matches("form.stacked, form.search")) return;
    if (before.matches("time")) { before.replaceWith(after.cloneNode(true)); return; }
    for (const { name } of [...before.attributes]) {
      if (name !== "open" && !after.hasAttribute(name)) before.removeAttribute(name);
    }
    for (const { name, value } of after.attributes) {
      if (name !== "open" && before.getAttribute(name) !== value) before.setAttribute(name, value);
    }
    const old = [...before.childNodes];
    const fresh = [...after.childNodes];
    const lists = ["SECTION", "TBODY", "DIV", "MAIN"].includes(before.nodeName);
    if (old.length !== fresh.length && !lists) {
      before.replaceChildren(...fresh.map((node) => node.cloneNode(true)));
      return;
    }
    // By id where there is one, else by place.
    const named = new Map(old.filter((node) => node.id).map((node) => [node.id, node]));
    const kept = [];
    let at = 0;
    for (const node of fresh) {
      const known = node.id ? named.get(node.id) : old[at];
      if (known && (node.id || !known.id) && known.nodeName === node.nodeName) {
        const next = known.nodeType === Node.ELEMENT_NODE && !known.matches("time");
        if (next) { same(known, node); kept.push(known); }
        else kept.push(known.isEqualNode(node) ? known : node.cloneNode(true));
      } else {
        kept.push(node.cloneNode(true));
      }
      at += 1;
    }
    const unchanged = kept.length === before.childNodes.length &&
      kept.every((node, index) => node === before.childNodes[index]);
    if (!unchanged) before.replaceChildren(...kept);
  };

  const live = () => {
    const main = document.querySelector("main[data-live]");
    if (!main || !window.EventSource) return;
    let source;
    const news = document.getElementById("live-news");
    const load = async () => {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      const fresh = new DOMParser().parseFromString(answer.ok ? await answer.text() : "", "text/html");
      const next = fresh.querySelector("main");
      if (!next) throw new Error("no page came");
      local(next);
      const stage = () => main.querySelector(".title .stage")?.textContent ?? "";
      const before = stage();
      const said = main.querySelector(":scope > .said");
      if (said) next.prepend(said.cloneNode(true));
      same(main, next);
      if (news) {
        const now = stage();
        news.textContent = now && now !== before ? `The stage is now ${now}.` : "";
      }
    };
    // Each page has an address for its news that says what it shows. So nobody listens while it is
    // fetched, and what is heard afterwards is about what was fetched: no line is lost or doubled.
    let loading = false;
    const refresh = async () => {
      if (loading) return;
      loading = true;
      source?.close();
      let pause = 0;
      await load().catch(() => { pause = 5000; });
      loading = false;
      setTimeout(open, pause);
    };
    const open = () => {
      source?.close();
      if (document.hidden || loading) return;
      source = new EventSource(main.dataset.live);
      source.addEventListener("changed", refresh);
      source.addEventListener("log", ({ data }) => {
        const told = JSON.parse(data);
        const log = main.querySelector(`[data-log="${CSS.escape(told.log)}"]`);
        if (!log) refresh();
        else if (told.add === undefined) make(log, told.all);
        else grow(log, () => log.append(told.add));
        local(main, "time.since");
      });
    };
    // A page that nobody sees asks for nothing.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) source?.close();
      else open();
    });
    window.addEventListener("pagehide", () => source?.close());
    open();
  };

  document.addEventListener("DOMContentLoaded", () => {
    local(document);
    live();
    setInterval(() => local(document), 30000);
  });
})();
