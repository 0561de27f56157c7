// Keeps the table live: rows arrive as rendered HTML over server-sent events, times are told anew every few seconds.
"use strict";

const rows = document.getElementById("rows");
const live = document.getElementById("live");
const announce = document.getElementById("announce");
const filter = document.getElementById("filter");
const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function ago(ms) {
  const seconds = Math.round((Date.now() - ms) / 1000);
  if (seconds < 10) return "now";
  if (seconds < 60) return words.format(-seconds, "second");
  if (seconds < 3600) return words.format(-Math.round(seconds / 60), "minute");
  if (seconds < 86400) return words.format(-Math.round(seconds / 3600), "hour");
  return words.format(-Math.round(seconds / 86400), "day");
}

function tellTime(time) {
  const ms = Number(time.dataset.ms);
  if (!ms) return;
  time.textContent = ago(ms);
  time.dateTime = new Date(ms).toISOString();
  time.title = new Date(ms).toLocaleString();
}

function applyFilter() {
  const wanted = filter.value.trim().toLowerCase();
  for (const row of rows.children) row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
}

function place(row) {
  const nick = row.querySelector(".nick").textContent;
  const after = [...rows.children].find((other) => other.querySelector(".nick").textContent > nick);
  rows.insertBefore(row, after ?? null);
}

function showRow({ id, html }) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const row = template.content.firstElementChild;
  const old = document.getElementById(`d-${id}`);
  tellTime(row.querySelector("time"));
  if (old && old.dataset.status === row.dataset.status && old.textContent === row.textContent) return;
  const nick = row.querySelector(".nick").textContent;
  if (!old || old.dataset.status !== row.dataset.status) announce.textContent = `${nick}: ${row.dataset.status || "claimed"}`;
  if (old && old.querySelector(".nick").textContent === nick) old.replaceWith(row);
  else {
    old?.remove();
    place(row);
  }
  row.classList.add("fresh");
  document.getElementById("none").hidden = true;
  applyFilter();
}

function connect() {
  const source = new EventSource("/dash-ui/events");
  source.addEventListener("open", () => {
    live.textContent = "live";
    live.classList.add("on");
  });
  source.addEventListener("error", () => {
    live.textContent = "connection lost, trying again";
    live.classList.remove("on");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
  });
  source.addEventListener("row", (event) => showRow(JSON.parse(event.data)));
  source.addEventListener("gone", (event) => document.getElementById(`d-${JSON.parse(event.data).id}`)?.remove());
  source.addEventListener("seen", (event) => {
    for (const [id, ms] of Object.entries(JSON.parse(event.data))) {
      const time = document.querySelector(`#d-${id} time`);
      if (time) time.dataset.ms = ms;
    }
    document.querySelectorAll("#rows time").forEach(tellTime);
  });
}

document.querySelectorAll("#rows time").forEach(tellTime);
filter.addEventListener("input", applyFilter);
connect();
