// The forms of the interface's page call this hub, with the token that was typed, and show what it answers.
"use strict";
const token = document.getElementById("token");

function address(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  for (const field of form.querySelectorAll("input[data-in]")) {
    if (field.dataset.in === "path") path = path.replace(`{${field.name}}`, encodeURIComponent(field.value));
    else if (field.value) query.append(field.name, field.value);
  }
  return query.size ? `${path}?${query}` : path;
}

async function call(form) {
  const shown = form.querySelector("output");
  const body = form.querySelector("textarea");
  const headers = token.value ? { Authorization: `Bearer ${token.value.trim()}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(address(form), { method: form.dataset.method, headers, body: body ? body.value : undefined });
  const text = await answer.text();
  let pretty = text;
  try { pretty = JSON.stringify(JSON.parse(text), null, 2); } catch { /* no JSON: as it is */ }
  shown.textContent = `${answer.status} ${answer.statusText}\n${pretty.slice(0, 100000)}`;
  // A login is what the other forms need.
  if (form.dataset.path === "/auth/login" && answer.ok) token.value = JSON.parse(text).token;
}

for (const form of document.querySelectorAll("form[data-path]")) {
  form.querySelector("button").hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    call(form).catch((error) => { form.querySelector("output").textContent = String(error); });
  });
}
