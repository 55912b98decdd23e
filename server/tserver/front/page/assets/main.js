// Which view is shown, how often it asks, and what is said when nobody answers.

import { Away, Refused, SignIn, hasToken, useToken } from "./api.js";
import { h, put } from "./format.js";
import { Model, Models } from "./models.js";
import { Overview } from "./overview.js";
import { Errors, Requests } from "./requests.js";
import { Session, Sessions, Tensor } from "./sessions.js";

const EVERY_MS = 2000;
const SLOWEST_MS = 16000;
const content = document.getElementById("content");
const state = document.getElementById("state");
const signIn = document.getElementById("sign-in");
const identity = document.getElementById("identity");

let view = null;
let timer = 0;
let running = null;
let failures = 0;

function viewOf(path) {
  const [section = "", ...names] = path.replace(/^#?\/?/, "").split("/").map(decodeURIComponent);
  if (section === "sessions") {
    if (names.length === 2) return ["sessions", new Tensor(...names)];
    return ["sessions", names.length === 1 ? new Session(names[0]) : new Sessions()];
  }
  if (section === "models") return ["models", names.length === 2 ? new Model(...names) : new Models()];
  if (section === "requests") return ["requests", new Requests()];
  if (section === "errors") return ["errors", new Errors()];
  return ["overview", new Overview()];
}

function say(kind, text) {
  state.className = `pill ${kind}`;
  put(state, text);
}

function open() {
  running?.abort();
  view?.close?.();
  const [section, made] = viewOf(location.hash);
  view = made;
  document.title = `${view.title} – Tensor Compute Server`;
  for (const link of document.querySelectorAll("#sections a")) {
    if (link.dataset.section === section) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  content.replaceChildren(h("p", { id: "trouble", class: "card bad", role: "alert", hidden: true }), view.element);
  window.scrollTo(0, 0);
  failures = 0;
  refresh();
}

function trouble(text) {
  const place = document.getElementById("trouble");
  put(place, text);
  place.hidden = !text;
  view.element.classList.toggle("stale", Boolean(text));
}

async function refresh() {
  clearTimeout(timer);
  running?.abort();
  if (document.hidden || signIn.open) {
    if (document.hidden) say("", "Paused");
    return;
  }
  const asked = (running = new AbortController());
  let wait = EVERY_MS;
  try {
    await view.update(asked.signal);
    if (running !== asked) return;
    failures = 0;
    say("good", "Live");
    trouble("");
  } catch (error) {
    if (error.name === "AbortError" || running !== asked) return;
    if (error instanceof SignIn) {
      say("warn", "Token needed");
      askForToken(hasToken() ? error.message : "");
      return;
    }
    failures += 1;
    wait = Math.min(SLOWEST_MS, EVERY_MS * 2 ** failures);
    if (error instanceof Refused) {
      say("warn", "Refused");
      trouble(error.message);
    } else {
      say("bad", "Disconnected");
      const lost = error instanceof Away ? error.message : `The page failed: ${error.message}`;
      trouble(`${lost} It is asked again in ${Math.round(wait / 1000)} s; what is shown is what it said last.`);
    }
  }
  timer = setTimeout(refresh, wait);
}

function askForToken(text) {
  useToken("");
  put(document.getElementById("sign-in-error"), text);
  if (!signIn.open) signIn.showModal();
}

signIn.addEventListener("close", () => {
  const field = document.getElementById("token");
  useToken(field.value);
  field.value = "";
  identity.hidden = !hasToken();
  put(identity, "Sign out");
  refresh();
});
signIn.addEventListener("cancel", (event) => event.preventDefault());
identity.hidden = !hasToken();
put(identity, "Sign out");
identity.addEventListener("click", () => {
  askForToken("");
  identity.hidden = true;
  view.close?.();
  content.replaceChildren();
  location.reload();
});
document.getElementById("theme").addEventListener("click", () => window.changeTheme());
document.getElementById("help").addEventListener("click", () => document.getElementById("keys").showModal());

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey;
  if (isTyping || document.querySelector("dialog[open]")) {
    if (event.key === "Escape" && event.target.matches("input")) event.target.blur();
    return;
  }
  const sections = document.querySelectorAll("#sections a");
  if (event.key >= "1" && event.key <= "5") sections[Number(event.key) - 1].click();
  else if (event.key === "/") content.querySelector("input[type=search]:not([hidden])")?.focus();
  else if (event.key === "u") [...content.querySelectorAll("a[data-up]")].at(-1)?.click();
  else if (event.key === "t") window.changeTheme();
  else if (event.key === "?") document.getElementById("keys").showModal();
  else if (event.key === "n" || event.key === "p") content.querySelector(`button[data-key="${event.key}"]`)?.click();
  else return;
  event.preventDefault();
});

addEventListener("hashchange", () => {
  if (location.hash === "#content") {
    content.focus();
    return;
  }
  open();
  content.focus({ preventScroll: true });
});
document.addEventListener("visibilitychange", refresh);
open();
