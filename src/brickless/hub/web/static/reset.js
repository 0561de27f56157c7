// The token of the mail is behind the '#': it reaches no server's log.
"use strict";
const found = new URLSearchParams(location.hash.slice(1)).get("token");
const field = document.getElementById("token");
if (found && field) {
  field.value = found;
  field.closest("div").hidden = true;
  history.replaceState(null, "", location.pathname);
}
