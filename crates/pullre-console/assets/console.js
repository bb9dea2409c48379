// Everything works without this script. It shows moments in the visitor's zone, and fetches a page
// again when the server says that it is old.
"use strict";

(() => {
  const local = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      if (time.classList.contains("ago")) {
        time.textContent = `${ago(Math.max(0, Date.now() - moment.getTime()) / 1000)} ago`;
      } else {
        time.textContent = moment.toLocaleString(undefined, {
          year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
        });
      }
    }
  };

  // As the server writes it.
  const ago = (s) => {
    const two = (a, one, b, other) => (b ? `${a} ${one} ${b} ${other}` : `${a} ${one}`);
    s = Math.floor(s);
    if (s < 60) return `${s} s`;
    if (s < 3600) return two(Math.floor(s / 60), "min", s % 60, "s");
    if (s < 86400) return two(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
    return two(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
  };

  // A log only gets its new lines: what a person has marked or scrolled to stays.
  const log = (before, after) => {
    const had = before.textContent;
    const has = after.textContent;
    if (had === has) return;
    const atEnd = before.scrollTop + before.clientHeight >= before.scrollHeight - 8;
    if (has.startsWith(had)) before.append(has.slice(had.length));
    else before.textContent = has;
    if (atEnd) before.scrollTop = before.scrollHeight;
  };

  // Makes one element like another one, touching what differs and nothing else.
  const same = (before, after) => {
    if (before.isEqualNode(after)) return;
    if (before.nodeType !== Node.ELEMENT_NODE || before.nodeName !== after.nodeName) {
      before.replaceWith(after.cloneNode(true));
      return;
    }
    if (before.matches("[data-log]")) { log(before, after); return; }
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
    const refresh = async () => {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = fresh.querySelector("main");
      if (!next) return;
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
    const open = () => {
      source = new EventSource(main.dataset.live);
      source.addEventListener("changed", () => { refresh().catch(() => {}); });
    };
    // A page that nobody sees asks for nothing.
    document.addEventListener("visibilitychange", () => {
      source?.close();
      if (!document.hidden) open();
    });
    window.addEventListener("pagehide", () => source?.close());
    if (!document.hidden) open();
  };

  document.addEventListener("DOMContentLoaded", () => {
    local(document);
    live();
    setInterval(() => local(document), 30000);
  });
})();
