"use strict";
// The language that was chosen before, or the first one of the browser that the pages know.
function startLanguage() {
  let kept = null;
  try {
    kept = localStorage.getItem("language");
  } catch { /* a browser may keep nothing for a file */ }
  if (kept === "zh" || kept === "en") return kept;
  const first = (navigator.languages ?? [navigator.language]).find((name) => /^(zh|en)/i.test(name)) ?? "en";
  return /^zh/i.test(first) ? "zh" : "en";
}

function keepLanguage(language) {
  try {
    localStorage.setItem("language", language);
  } catch { /* then it holds until the page is closed */ }
}
