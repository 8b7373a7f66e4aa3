// The entrance of a live view that asks for a token: from behind the `#` of the address, or from whoever types it.
"use strict";

(function () {
  const form = document.getElementById("enter");
  const field = document.getElementById("token");
  const said = document.getElementById("said");

  async function enter(token) {
    const answer = await fetch("session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    });
    if (answer.ok) location.replace("./");
    else {
      said.classList.add("shown");
      said.textContent = "That is not the token.";
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    enter(field.value.trim());
  });
  const given = new URLSearchParams(location.hash.replace(/^#/, "")).get("token");
  if (given !== null) {
    history.replaceState(null, "", location.pathname); // it stands in no history
    enter(given);
  }
})();
