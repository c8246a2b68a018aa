function showLanguage(language) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-language]")) {
    node.setAttribute("aria-pressed", String(node.dataset.language === language));
  }
}
for (const node of document.querySelectorAll("[data-language]")) {
  node.addEventListener("click", () => {
    keepLanguage(node.dataset.language);
    showLanguage(node.dataset.language);
  });
}
showLanguage(startLanguage());
