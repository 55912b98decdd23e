// Says light or dark before anything is drawn: as was chosen in this browser, or else as the system has it.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // A browser that keeps nothing.
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const set = (theme) => {
    document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new Event("theme"));
  };
  set(chosen === "dark" || chosen === "light" ? chosen : dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => chosen === null && set(dark.matches ? "dark" : "light"));
  window.changeTheme = () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // It holds for this tab then.
    }
    set(chosen);
  };
})();
