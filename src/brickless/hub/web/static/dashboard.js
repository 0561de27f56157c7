// Keeps pages live: what the server rendered is fetched again when it tells of something that a region shows.
// Without this script every page works and stands still.
"use strict";

const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const live = document.getElementById("live");
const announce = document.getElementById("announce");
/** Two looks at the same page are at least this far apart, however much happens. */
const REST_MS = 1000;

function ago(ms) {
  const seconds = Math.round((ms - Date.now()) / 1000);
  if (Math.abs(seconds) < 10) return "now";
  const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size);
  return words.format(Math.round(seconds / size), unit);
}

function tellTimes(root) {
  for (const time of root.querySelectorAll("time[data-ms]")) {
    const moment = new Date(Number(time.dataset.ms));
    time.textContent = "clock" in time.dataset ? moment.toLocaleString() : ago(moment.getTime());
    time.title = moment.toLocaleString();
  }
}

/** Replaces a region's content, unless a person is in the middle of something there. */
function replace(region, content) {
  if (region.contains(document.activeElement) && document.activeElement !== region) return;
  if (region.querySelector(":popover-open")) return;
  if (region.dataset.shown === content) return;
  const before = region.textContent;
  region.innerHTML = content;
  region.dataset.shown = content;
  tellTimes(region);
  if (before !== region.textContent && !region.hasAttribute("data-poll")) {
    region.classList.remove("fresh");
    void region.offsetWidth;
    region.classList.add("fresh");
  }
}

async function fetched(address) {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(`the hub answered ${answer.status}`);
  return answer.text();
}

async function refresh(regions) {
  const page = new DOMParser().parseFromString(await fetched(location.href), "text/html");
  for (const region of regions) {
    const now = page.getElementById(region.id);
    if (now) replace(region, now.innerHTML);
  }
}

const stale = new Set();
let resting = false;

async function look() {
  if (resting || stale.size === 0) return;
  resting = true;
  const regions = [...stale];
  stale.clear();
  try {
    await refresh(regions);
  } catch (error) {
    say(`not live: ${error.message}`, false);
  }
  setTimeout(() => {
    resting = false;
    look();
  }, REST_MS);
}

function wants(region, kind, subject) {
  if (region.dataset.subject && region.dataset.subject !== subject) return false;
  return region.dataset.live.split(" ").some((one) => one === "*" || one === kind || (one.endsWith(".*") && kind.startsWith(one.slice(0, -1))));
}

function happened(kind, subject) {
  for (const region of document.querySelectorAll("[data-live]")) if (wants(region, kind, subject)) stale.add(region);
  look();
}

function say(text, on) {
  if (!live) return;
  live.textContent = text;
  live.classList.toggle("on", on);
}

/** Lines of a device as it sends them; a person who reads further up stays there. */
function append(region, content) {
  const atEnd = region.scrollTop + region.clientHeight >= region.scrollHeight - 8;
  region.querySelector("p.faint")?.remove();
  region.insertAdjacentHTML("beforeend", content);
  while (region.childElementCount > Number(region.dataset.lines)) region.firstElementChild.remove();
  tellTimes(region);
  if (atEnd) region.scrollTop = region.scrollHeight;
}

function connect(address) {
  const source = new EventSource(address);
  source.addEventListener("open", () => say("live", true));
  source.addEventListener("error", () => {
    say("connection lost, trying again", false);
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000, address);
  });
  source.addEventListener("lines", (event) => {
    // Should the browser give this connection up, the next one goes on behind these lines.
    const next = new URL(address, location.href);
    next.searchParams.set("line", event.lastEventId);
    address = next.pathname + next.search;
    append(document.getElementById("logs"), JSON.parse(event.data));
  });
  source.addEventListener("change", (event) => {
    const { kind, subject, text } = JSON.parse(event.data);
    if (text && document.querySelector(`[data-subject="${CSS.escape(subject)}"]`)) announce.textContent = text;
    happened(kind, subject);
  });
}

async function poll(region) {
  try {
    if (!document.hidden) {
      if (region.dataset.src) replace(region, await fetched(region.dataset.src));
      else await refresh([region]);
    }
  } catch (error) {
    say(`not live: ${error.message}`, false);
  }
  setTimeout(poll, Number(region.dataset.poll), region);
}

tellTimes(document);
setInterval(tellTimes, 10000, document);
for (const region of document.querySelectorAll("[data-poll]")) poll(region);
for (const region of document.querySelectorAll("[role=log]")) region.scrollTop = region.scrollHeight;
if (document.body.dataset.events) connect(document.body.dataset.events);
const invited = document.getElementById("token");
if (invited && location.hash.length > 1) invited.value = decodeURIComponent(location.hash.slice(1));
