// The login page. The token comes from the address, behind `#`, or the user types it.

const form = /** @type {HTMLFormElement} */ (document.getElementById("enter"));
const field = /** @type {HTMLInputElement} */ (document.getElementById("token"));
const message = /** @type {HTMLElement} */ (document.getElementById("message"));

/** @param {string} token */
async function logIn(token) {
  const response = await fetch("session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (response.ok) location.replace("./");
  else {
    message.classList.add("shown");
    message.textContent = "That is not the token. Copy it from the output of sweeper: it follows #token= in the address.";
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(field.value.trim());
});
const given = new URLSearchParams(location.hash.replace(/^#/, "")).get("token");
if (given !== null) {
  history.replaceState(null, "", location.pathname); // the browser's history must not keep the token
  logIn(given);
}
