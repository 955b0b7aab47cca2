// The dashboard in the browser. The server renders every screen; this script asks for it again over
// a web socket, puts what changed into the page, and makes links, filters and keys work without
// loading a document.

const SHARED = ["service", "peer", "range", "from", "to"];
const TYPING_PAUSE = 180;
const main = document.getElementById("main");
const role = (name) => document.querySelector(`[data-role="${name}"]`);
const address = () => location.pathname + location.search;

// --- from text to nodes ----------------------------------------------------------------------

// The only HTML that is ever parsed is what this server sends, where every text is escaped.
const policy = window.trustedTypes?.createPolicy("tracesock", { createHTML: (html) => html });

function parse(html) {
  const text = policy ? policy.createHTML(html) : html;
  return new DOMParser().parseFromString(text, "text/html").body;
}

// Makes the children of `old` equal to those of `fresh`, keeping the nodes that are the same: so
// focus, scroll position, open details and selected text survive an update.
function morphChildren(old, fresh) {
  const byId = new Map();
  for (const child of old.children) if (child.id) byId.set(child.id, child);
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const known = wanted.id ? byId.get(wanted.id) : undefined;
    if (known && known.nodeName === wanted.nodeName) {
      byId.delete(wanted.id);
      if (known === at) at = at.nextSibling;
      else old.insertBefore(known, at);
      morph(known, wanted);
      continue;
    }
    const same = wanted.id ? null : nextLike(wanted, at);
    if (same) {
      // What stands before it is wanted no more. The node itself must not move: it may have focus.
      while (at !== same) at = removed(at);
      at = at.nextSibling;
      morph(same, wanted);
    } else {
      old.insertBefore(document.importNode(wanted, true), at);
    }
  }
  while (at) at = removed(at);
}

// The first node from `at` on, before any with an id, that may become `wanted`.
function nextLike(wanted, at) {
  for (let node = at; node && !node.id; node = node.nextSibling) {
    if (node.nodeName === wanted.nodeName) return node;
  }
  return null;
}

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function morph(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  const keeps = old.nodeName === "DETAILS" ? "open" : null;
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== keeps) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, fresh);
  if (old === document.activeElement) return;
  if (old.nodeName === "INPUT" && old.value !== (fresh.getAttribute("value") ?? "")) {
    old.value = fresh.getAttribute("value") ?? "";
  } else if (old.nodeName === "SELECT") {
    const chosen = fresh.querySelector("option[selected]")?.value ?? "";
    if (old.value !== chosen) old.value = chosen;
  }
}

// --- times in the viewer's zone --------------------------------------------------------------

const clock = { hour: "2-digit", minute: "2-digit", hour12: false };
const formats = {
  second: { ...clock, second: "2-digit", fractionalSecondDigits: 3 },
  other: { month: "short", day: "numeric", ...clock, second: "2-digit" },
  clock: { ...clock, second: "2-digit" },
  minute: clock,
  day: { month: "short", day: "numeric", ...clock },
  full: { dateStyle: "medium", timeStyle: "long" },
};
const formatters = Object.fromEntries(
  Object.entries(formats).map(([name, options]) => [
    name,
    new Intl.DateTimeFormat(undefined, options),
  ]),
);

function localTimes(root) {
  const today = new Date().toDateString();
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.getAttribute("datetime"));
    let form = time.dataset.form ?? "second";
    if (form === "second" && moment.toDateString() !== today) form = "other";
    time.textContent = formatters[form].format(moment);
    time.title = `${formatters.full.format(moment)}, ${time.getAttribute("datetime")}`;
  }
}

// --- the page --------------------------------------------------------------------------------

function show(answer) {
  const path = location.pathname;
  const fresh = parse(answer.html);
  localTimes(fresh);
  applyFolds(fresh);
  const active = document.activeElement;
  morphChildren(main, fresh);
  // A node that was moved, as a row that is sorted anew, has lost the focus on the way.
  if (active !== document.activeElement && active?.isConnected) {
    active.focus({ preventScroll: true });
  }
  document.title = `${answer.title} · tracesock`;
  document.body.dataset.section = answer.section;
  for (const link of document.querySelectorAll("nav [data-path]")) {
    if (link.dataset.path === answer.section) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (path !== shownPath) {
    window.scrollTo(0, 0);
    // A new screen: the reading position begins at its content.
    main.focus({ preventScroll: true });
    shownPath = path;
  }
  document.documentElement.dataset.shown = answer.url;
}

let shownPath = location.pathname;
let askedAddress = address();

function sharedSearch() {
  const now = new URLSearchParams(location.search);
  const kept = new URLSearchParams();
  for (const name of SHARED) if (now.get(name)) kept.set(name, now.get(name));
  return kept.size ? `?${kept}` : "";
}

function go(url, replace = false) {
  if (url === address()) return;
  history[replace ? "replaceState" : "pushState"](null, "", url);
  moved();
}

// The address is another one. The way to the other screens follows it at once, not with the answer.
function moved() {
  askedAddress = address();
  for (const link of document.querySelectorAll("nav [data-path], .brand")) {
    link.setAttribute("href", (link.dataset.path ?? "/") + sharedSearch());
  }
  document.documentElement.dataset.shown = "";
  ask();
}

// --- the web socket --------------------------------------------------------------------------

let socket;
let wait = 500;
let paused = false;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/live`);
  socket.addEventListener("open", () => {
    wait = 500;
    tell("");
    ask();
  });
  socket.addEventListener("message", ({ data }) => {
    const answer = JSON.parse(data);
    if (answer.url !== address()) return;
    // Sent before the server knew: only an address that was asked for since is still wanted.
    if (paused && document.documentElement.dataset.shown === answer.url) return;
    if (answer.missing) {
      // The document around the page was made for another address, or says so already.
      if (document.documentElement.dataset.shown === "") location.reload();
    } else if (answer.same) document.documentElement.dataset.shown = answer.url;
    else show(answer);
  });
  socket.addEventListener("close", () => {
    if (wait > 500) tell("The dashboard does not answer. Trying again …");
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 5000);
    liveState();
  });
}

function ask() {
  if (socket?.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ url: address(), paused: paused || document.hidden }));
  } else if (document.documentElement.dataset.shown === "") {
    location.reload();
  }
  liveState();
}

function tell(text) {
  const status = role("status");
  status.textContent = text;
  status.classList.toggle("shown", text !== "");
}

function liveState() {
  const open = socket?.readyState === WebSocket.OPEN;
  const button = role("live");
  const state = paused ? "paused" : open ? "live" : "lost";
  button.dataset.state = state;
  button.setAttribute("aria-pressed", String(!paused));
  role("live-text").textContent = { paused: "Paused", live: "Live", lost: "Offline" }[state];
}

function togglePause() {
  paused = !paused;
  ask();
}

// --- links and filters -----------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    navigator.clipboard.writeText(copy.dataset.copy).then(() => {
      tell("Copied");
      setTimeout(() => tell(""), 1500);
    });
    return;
  }
  const fold = event.target.closest('[data-role="fold"]');
  if (fold) {
    toggleFold(fold.closest("li"));
    return;
  }
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0) return;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.getAttribute("href"), location.href);
  if (link.hasAttribute("download") || url.origin !== location.origin || url.hash) return;
  event.preventDefault();
  go(url.pathname + url.search);
});

function submit(form, replace) {
  const values = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (value && value !== form.elements[name].dataset?.default) values.set(name, value);
  }
  if (form.elements.range && form.elements.range.value !== "custom") {
    values.delete("from");
    values.delete("to");
  }
  go(form.getAttribute("action") + (values.size ? `?${values}` : ""), replace);
}

let typing;
document.addEventListener("input", (event) => {
  const form = event.target.closest("[data-filters]");
  if (!form) return;
  clearTimeout(typing);
  if (event.target.nodeName === "SELECT") submit(form, false);
  else typing = setTimeout(() => submit(form, true), TYPING_PAUSE);
});
document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-filters]");
  if (!form) return;
  event.preventDefault();
  clearTimeout(typing);
  submit(form, false);
});
// A jump within the page, as to its content, is told of in the same way.
window.addEventListener("popstate", () => {
  if (address() !== askedAddress) moved();
});
document.addEventListener("visibilitychange", ask);

// --- folding the spans of a trace -------------------------------------------------------------

const folded = new Set();

function applyFolds(root) {
  let hiddenBelow = Infinity;
  for (const row of root.querySelectorAll(".wf-rows > li")) {
    const depth = Number(row.dataset.depth);
    if (depth <= hiddenBelow) hiddenBelow = Infinity;
    row.toggleAttribute("hidden", depth > hiddenBelow);
    const isFolded = folded.has(row.id);
    row.querySelector(".fold")?.setAttribute("aria-expanded", String(!isFolded));
    if (isFolded && hiddenBelow === Infinity) hiddenBelow = depth;
  }
}

function toggleFold(row, fold = !folded.has(row.id)) {
  if (fold && row.querySelector(".fold")) folded.add(row.id);
  else folded.delete(row.id);
  applyFolds(main);
}

// --- keys -------------------------------------------------------------------------------------

function stepFocus(event, list, step) {
  const rows = list.filter((row) => row.offsetParent !== null);
  const next = rows[rows.indexOf(document.activeElement) + step];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const active = document.activeElement;
  if (event.key === "Escape") {
    if (active?.matches("input")) active.blur();
    else role("close")?.click();
    return;
  }
  if (active?.matches("input, select, textarea") || role("help").closest("dialog[open]")) return;
  const up = event.key === "ArrowUp";
  if (up || event.key === "ArrowDown") {
    if (active?.matches(".wf-rows a, .row-link")) {
      const list = [...main.querySelectorAll(active.matches(".row-link") ? ".row-link" : ".wf-rows a")];
      stepFocus(event, list, up ? -1 : 1);
    } else if (active === main || active === document.body) {
      const first = main.querySelector(".wf-rows a, .row-link");
      if (first && !up) {
        event.preventDefault();
        first.focus();
      }
    }
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const row = active?.closest?.(".wf-rows > li");
    if (row) toggleFold(row, event.key === "ArrowLeft");
  } else if (event.key === "/") {
    event.preventDefault();
    main.querySelector('input[type="search"]')?.focus();
  } else if (event.key === "p") togglePause();
  else if (event.key === "t") nextTheme();
  else if (event.key === "?") document.getElementById("keys").showModal();
  else if (/^[1-6]$/.test(event.key)) {
    document.querySelectorAll("nav [data-path]")[Number(event.key) - 1]?.click();
  }
});

// --- theme and tools ----------------------------------------------------------------------------

const THEMES = ["system", "light", "dark"];

function nextTheme() {
  const now = document.documentElement.dataset.theme ?? "system";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("tracesock-theme", next);
  } catch {
    // It lasts as long as the page then.
  }
  themeText();
}

function themeText() {
  const now = document.documentElement.dataset.theme ?? "system";
  role("theme-text").textContent = { system: "System", light: "Light", dark: "Dark" }[now];
}

role("live").addEventListener("click", togglePause);
role("theme").addEventListener("click", nextTheme);
role("help").addEventListener("click", () => document.getElementById("keys").showModal());

themeText();
localTimes(document);
// A link to a span leads to its row.
main.querySelector(".wf-rows .selected")?.scrollIntoView({ block: "center" });
document.documentElement.dataset.shown = address();
connect();
