// Asks the router with the key that was typed in. The key lives in this module's memory and nowhere else, and all that
// comes from a server is shown as text.
import { events } from "./events.js";

const REASONS = {
  keyword: "its keywords or domains are in the prompt",
  examples: "the prompt is like its examples",
  hybrid: "its keywords are in the prompt, and its examples are like it",
  conversation: "the conversation stays with it",
  fallback: "no expert fits, and it is the fallback",
  pinned: "it was named",
  base: "the service was named, without an expert",
};
const $ = (id) => document.getElementById(id);
let key = "";
let asking = null;

function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// An answer of the router; what it refuses is thrown with its own message.
async function call(path, options = {}) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    // No cookie, no cache: the key is all that says who asks.
    response = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The router cannot be reached.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const later = response.headers.get("retry-after");
  const message = body.error?.message ?? `The router answered ${response.status}.`;
  throw new Error(later ? `${message} (try again in ${later} s)` : message);
}

function showExperts(list) {
  const pinned = $("model").value;
  const known = list.data.filter((model) => model.id !== "auto");
  const unready = list.largeforge?.unready ?? [];
  $("model").replaceChildren(...[{ id: "auto" }, ...known].map((model) => {
    const option = element("option", model.id);
    option.value = model.id;
    option.selected = model.id === pinned;
    return option;
  }));
  const row = (name, about, state, className) => {
    const made = document.createElement("tr");
    const domains = about?.domains?.join(", ") || "–";
    made.append(element("td", name), element("td", domains), element("td", about?.version ?? "–"), element("td", state, className));
    return made;
  };
  const kind = (model) => (model.largeforge?.kind === "InferenceService" ? "ready (base model)" : "ready");
  const fallback = (model) => (model.largeforge?.fallback ? `${kind(model)}, fallback` : kind(model));
  $("experts").replaceChildren(
    ...known.map((model) => row(model.id, model.largeforge, fallback(model), "ready")),
    ...unready.map((each) => row(each.id, each, each.message, "unready")),
  );
  $("nobody").textContent = known.length ? "" : "No expert is ready.";
}

async function loadExperts() {
  try {
    const response = await call("v1/models");
    showExperts(await response.json());
    $("notice").textContent = "";
  } catch (error) {
    $("notice").textContent = key ? error.message : "Type a client's key to begin.";
  }
}

function showRoute(route) {
  const after = route.runner_up ? ` After it comes ${route.runner_up}.` : "";
  $("rule").textContent = `${route.expert}: ${REASONS[route.reason] ?? route.reason}.${after}`;
  $("scores").replaceChildren(...route.scores.map((each) => {
    const item = element("li", "", each.expert === route.expert ? "won" : "");
    const bar = document.createElement("meter");
    bar.value = each.score;
    bar.textContent = each.score.toFixed(2);
    item.append(element("span", each.expert, "name"), bar, element("span", each.score.toFixed(2), "number"));
    const parts = Object.entries(each.parts).filter(([, value]) => value).map(([part, value]) => `${part} ${value.toFixed(2)}`);
    if (each.score < each.threshold) parts.push(`below its threshold, ${each.threshold.toFixed(2)}`);
    item.append(element("span", parts.join(", "), "parts"));
    return item;
  }));
  const ignored = (route.ignored ?? []).map((each) => element("li", `${each.expert ?? each.part}: ${each.why}`));
  $("ignored").replaceChildren(...ignored);
}

async function explain(body, signal) {
  const response = await call("v1/route", { method: "POST", body, signal });
  showRoute(await response.json());
}

async function stream(body, signal) {
  const response = await call("v1/chat/completions", { method: "POST", body, signal });
  const said = (name) => response.headers.get(`x-largeforge-${name}`);
  $("chosen").textContent = `${said("expert")} answers (${said("reason")}, score ${said("score")})`;
  if (!(await show(response.body))) throw new Error("The answer was cut off.");
}

// Appends what the events say; whether they came to their end.
async function show(body) {
  let whole = false;
  try {
    for await (const data of events(body)) {
      if (data === "[DONE]") {
        whole = true;
        continue;
      }
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      $("answer").append(event.choices?.[0]?.delta?.content ?? "");
    }
  } catch (error) {
    // What a broken connection throws while a body is read.
    if (!(error instanceof TypeError)) throw error;
  }
  return whole;
}

async function ask(prompt, model) {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  for (const id of ["answer", "chosen", "problem", "rule", "scores", "ignored"]) $(id).replaceChildren();
  $("stop").disabled = false;
  const messages = [{ role: "user", content: prompt }];
  try {
    const body = (more) => JSON.stringify({ model, messages, ...more });
    const both = [explain(body({}), mine.signal), stream(body({ stream: true }), mine.signal)];
    const failed = (await Promise.allSettled(both)).find((result) => result.status === "rejected" && result.reason.name !== "AbortError");
    if (failed && asking === mine) $("problem").textContent = failed.reason.message;
  } finally {
    if (asking === mine) {
      asking = null;
      $("stop").disabled = true;
    }
  }
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  loadExperts();
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask($("prompt").value, $("model").value);
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
$("stop").addEventListener("click", () => asking?.abort());
loadExperts();
