// @ts-check
// The theme of a page: the system's, light or dark. Every page of an address has the same.

const THEMES = ["auto", "light", "dark"];
const KEY = "sweeper:theme";

/** The choice of the theme, as three buttons of which one is pressed. It applies at once, and is remembered if the browser allows it. */
export function createSwitch() {
  const node = document.createElement("div");
  node.className = "segment";
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", "Theme");
  const buttons = THEMES.map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => apply(name, true));
    return button;
  });
  node.append(...buttons);

  /** @param {string} chosen @param {boolean} isKept */
  function apply(chosen, isKept) {
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(THEMES[index] === chosen)));
    try {
      if (isKept) localStorage.setItem(KEY, chosen);
    } catch {
      /* then it lasts as long as the page */
    }
  }

  let saved = null;
  try {
    saved = localStorage.getItem(KEY);
  } catch {
    /* then it follows the system */
  }
  apply(saved !== null && THEMES.includes(saved) ? saved : "auto", false);
  return node;
}
