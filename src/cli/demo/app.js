"use strict";

// What the app itself sends. Anything else on an answer was put there by something in between.
const FROM_APP = new Set([
  "cache-control", "connection", "content-length", "content-type", "date", "keep-alive", "server",
  "transfer-encoding", "x-powered-by",
]);
const LIMITS = ["ratelimit", "ratelimit-policy", "retry-after", "retry-after-ms"];
const STATUS = "/auth/rate-limit-status";
const REMOVED = { "server": "demo-chat", "x-powered-by": "Demo" };

const by = (id) => document.getElementById(id);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(who, text) {
  const line = by("talk").appendChild(element("li", text, who));
  line.scrollIntoView({ block: "nearest" });
  return line;
}

const isLimit = (name) => LIMITS.includes(name) || name.startsWith("x-ratelimit-");

/// The one sentence of a refusal, in whichever of the three error shapes it came.
function reasonOf(text) {
  try {
    const body = JSON.parse(text);
    return body.detail || body.error?.message || body.error || text;
  } catch {
    return text;
  }
}

function record(label, response, refusal) {
  const entry = element("li");
  const head = entry.appendChild(element("div"));
  head.append(element("b", String(response.status), response.ok ? "good" : "bad"), ` ${label}`);
  const code = response.headers.get("x-tidegate-reason");
  if (code) head.append(" · refused by the gate: ", element("code", code));
  if (refusal) entry.append(element("div", refusal));

  const all = [...response.headers];
  const limits = all.filter(([name]) => isLimit(name));
  if (limits.length) entry.append(element("div", limits.map(([name, value]) => `${name}: ${value}`).join(" · ")));
  const gone = Object.keys(REMOVED).filter((name) => response.headers.get(name) !== REMOVED[name]);
  // What the gate answers by itself never was the app's, so nothing was taken from it.
  const own = code || response.url.endsWith(STATUS);
  if (gone.length && !own) entry.append(element("div", `taken away: ${gone.join(", ")}`));

  const added = all.filter(([name]) => !FROM_APP.has(name) && !isLimit(name));
  if (added.length) {
    const details = entry.appendChild(element("details"));
    details.append(element("summary", `${added.length} header fields added`));
    const list = details.appendChild(element("dl"));
    for (const [name, value] of added) list.append(element("dt", name), element("dd", value));
  } else {
    entry.append(element("div", "no header fields added"));
  }
  by("log").prepend(entry);
}

/// Sends one request and lists what came back. Answers with the response, or null if it was refused.
async function send(label, path, body, show = () => {}) {
  const init = body === undefined
    ? {}
    : { method: "POST", headers: { "content-type": "application/json" }, body };
  let response;
  try {
    response = await fetch(path, init);
  } catch {
    by("log").prepend(element("li", `No answer to ${label}: the connection failed.`));
    show("The connection failed.");
    return null;
  }
  if (response.ok) {
    record(label, response);
    return response;
  }
  const why = reasonOf(await response.text());
  record(label, response, why);
  const wait = response.headers.get("retry-after");
  show(`${response.status}: ${why}${wait ? ` Try again in ${wait} s.` : ""}`);
  return null;
}

const refused = (text) => say("no", text);

async function chat(message) {
  say("you", message);
  const response = await send("POST /api/chat", "/api/chat", JSON.stringify({ message }), refused);
  if (response) say("app", (await response.json()).reply);
}

async function stream(message) {
  say("you", message);
  const body = JSON.stringify({ model: "demo-words", stream: true, messages: [{ role: "user", content: message }] });
  const response = await send("POST /v1/chat/completions, streamed", "/v1/chat/completions", body, refused);
  if (!response) return;
  const line = say("app", "");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      // Lines that start with a colon are the gate's heartbeats.
      const data = event.split("\n").find((text) => text.startsWith("data: "))?.slice(6);
      if (data && data !== "[DONE]") line.textContent += JSON.parse(data).choices[0]?.delta.content ?? "";
    }
  }
}

const tries = {
  twice: () => send("the same key twice", "/api/chat", '{"message":"hello","message":"something else"}'),
  long: () => send("4,001 characters", "/api/chat", JSON.stringify({ message: "x".repeat(4001) })),
  deep: () => send("JSON 500 levels deep", "/api/chat", `{"message":${"[".repeat(500)}${"]".repeat(500)}}`),
  six: () => Promise.all([1, 2, 3, 4, 5, 6].map((n) =>
    send(`call ${n} of six`, "/api/chat", JSON.stringify({ message: `call ${n}` })))),
  limits: async () => {
    const response = await send(`GET ${STATUS}`, STATUS);
    const status = response && await response.json();
    for (const limit of status?.limits ?? []) {
      say("app", `${limit.name}: ${limit.remaining} of ${limit.limit} left in ${limit.window_s} s`);
    }
  },
};

/// Runs an act with its button out of use, so that one click is one request.
async function once(button, act) {
  button.disabled = true;
  try {
    await act();
  } catch {
    refused("The answer broke off.");
  } finally {
    button.disabled = false;
  }
}

function take() {
  const field = by("message");
  if (!field.reportValidity()) return null;
  const message = field.value;
  field.value = "";
  field.focus();
  return message;
}

by("chat").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = take();
  if (message) once(event.target.querySelector("[type=submit]"), () => chat(message));
});
by("stream").addEventListener("click", (event) => {
  const message = take();
  if (message) once(event.target, () => stream(message));
});
for (const button of document.querySelectorAll("[data-try]")) {
  button.addEventListener("click", () => once(button, tries[button.dataset.try]));
}

send("GET /health", "/health").then((response) => {
  const direct = response?.headers.get("server") === REMOVED.server;
  by("way").textContent = direct
    ? "There is no gate here: this is the app itself, as anyone could reach it."
    : response ? "You reach the app through the gate." : "The app does not answer.";
});
