// Runs before the page is drawn, so that a chosen theme does not flash. Without a choice the system's is taken.
"use strict";

const wszooTheme = {
  /** @returns {string} "light", "dark", or "" for the system's */
  chosen() {
    try {
      const theme = localStorage.getItem("wszoo-theme");
      return theme === "light" || theme === "dark" ? theme : "";
    } catch {
      return ""; // storage may be forbidden
    }
  },

  /** @returns {boolean} whether the page is dark now */
  isDark() {
    const theme = document.documentElement.dataset.theme;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  },

  /** @param {string} theme "light" or "dark" */
  choose(theme) {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("wszoo-theme", theme);
    } catch {
      // then it holds for this page
    }
  },
};

if (wszooTheme.chosen()) document.documentElement.dataset.theme = wszooTheme.chosen();
