// What every page can do: change the theme, copy a command.
"use strict";

(() => {
  /** Say something to who listens to the page instead of seeing it. @param {string} text */
  const say = (text) => {
    document.getElementById("said").textContent = text;
  };

  const theme = document.getElementById("theme");
  const showTheme = () => theme.setAttribute("aria-pressed", String(wszooTheme.isDark()));
  theme.addEventListener("click", () => {
    wszooTheme.choose(wszooTheme.isDark() ? "light" : "dark");
    showTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();
  theme.hidden = false;

  // Pages in a store's own folder know its address; else who copies a command has to.
  if (document.body.hasAttribute("data-beside") && location.protocol.startsWith("http")) {
    const store = new URL("../..", location.href).href.replace(/\/$/, "");
    for (const id of ["pull", "lock"]) {
      const code = document.getElementById(id)?.firstElementChild;
      if (code) code.textContent = code.textContent.replace(/--from REMOTE$/, `--from '${store.replaceAll("'", "%27")}'`);
    }
  }

  /** @param {HTMLElement} source @returns {Promise<boolean>} whether its text is on the clipboard */
  const copy = async (source) => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      return true;
    } catch {
      // Without HTTPS there is no clipboard API; the old way needs a selection.
      getSelection().selectAllChildren(source);
      return document.execCommand("copy");
    }
  };

  for (const button of document.querySelectorAll("button[data-copy]")) {
    const source = document.getElementById(button.dataset.copy);
    const label = button.firstChild;
    button.addEventListener("click", async () => {
      const done = await copy(source);
      label.textContent = done ? "Copied" : "Selected";
      say(done ? "Copied to the clipboard" : "Selected: press Ctrl and C to copy");
      setTimeout(() => { label.textContent = "Copy"; }, 2000);
    });
    // On the text itself, Enter copies too.
    source.addEventListener("keydown", (event) => {
      if (event.key === "Enter") button.click();
    });
    button.hidden = false;
  }
})();
