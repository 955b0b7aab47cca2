// In the head, before the style sheet: the chosen theme applies to the first paint.
"use strict";
try {
  const theme = localStorage.getItem("tracesock-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is switched off: the system's theme it is.
}
