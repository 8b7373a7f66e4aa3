// The login page. The token comes from the address, behind `#`, or the user types it.

import { byId, postJson } from "./dom.js";

const field = /** @type {HTMLInputElement} */ (byId("token"));
const message = byId("message");

/** @param {string} token */
async function logIn(token) {
  const response = await postJson("session", { token });
  if (response.ok) location.replace("./");
  else {
    message.classList.add("shown");
    message.textContent = "That is not the token. Copy it from the output of sweeper: it follows #token= in the address.";
  }
}

byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(field.value.trim());
});
const given = new URLSearchParams(location.hash.replace(/^#/, "")).get("token");
if (given !== null) {
  history.replaceState(null, "", location.pathname); // the browser's history must not keep the token
  logIn(given);
}
