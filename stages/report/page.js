"use strict";
// The slider. Sums are those of stages/report/rates.py.
const $ = (id) => document.getElementById(id);

function showLanguage(language) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-language]")) {
    node.setAttribute("aria-pressed", String(node.dataset.language === language));
  }
  for (const node of document.querySelectorAll("option")) node.textContent = node.dataset[language];
}
for (const node of document.querySelectorAll("[data-language]")) {
  node.addEventListener("click", () => {
    keepLanguage(node.dataset.language);
    showLanguage(node.dataset.language);
  });
}
showLanguage(startLanguage());

const data = JSON.parse($("data").textContent);

function costs([, tp, fp], share, falseAlarm, miss) {
  const hits = 1000 * share * (tp / data.fraud), falseAlarms = 1000 * (1 - share) * (fp / data.harmless);
  const misses = 1000 * share - hits;
  return { alarms: hits + falseAlarms, falseAlarms, misses, cost: falseAlarm * falseAlarms + miss * misses, hits };
}

function settings() {
  const number = (id, most) => Math.min(most, Math.max(0, Number($(id).value) || 0));
  return [number("share", 100) / 100, number("false-alarm", 1e9), number("miss", 1e9)];
}

const curve = () => data.systems[$("system").value];

function show() {
  const point = curve().points[Number($("threshold").value)], [threshold, tp, fp] = point;
  const found = costs(point, ...settings());
  const shown = threshold > 1 ? "> 1" : threshold.toFixed(3);
  $("threshold-value").textContent = shown;
  $("threshold").setAttribute("aria-valuetext", shown);
  $("alarms").textContent = found.alarms.toFixed(1);
  $("false-alarms").textContent = found.falseAlarms.toFixed(1);
  $("misses").textContent = found.misses.toFixed(1);
  $("cost").textContent = found.cost.toFixed(1);
  $("right").textContent = found.alarms ? `${(100 * found.hits / found.alarms).toFixed(1)} %` : "–";
  $("found").textContent = `${(100 * tp / data.fraud).toFixed(1)} %`;
  const mark = $("mark"), [left, right] = mark.dataset.x.split(" ").map(Number), [low, high] = mark.dataset.y.split(" ").map(Number);
  mark.setAttribute("cx", tp + fp ? left + (right - left) * tp / data.fraud : -20);
  mark.setAttribute("cy", tp + fp ? low + (high - low) * tp / (tp + fp) : -20);
}

function moveTo(index) {
  $("threshold").max = curve().points.length - 1;
  $("threshold").value = index;
  show();
}

if (data) {
  for (const id of ["share", "false-alarm", "miss", "threshold"]) $(id).addEventListener("input", show);
  $("system").addEventListener("change", () => moveTo(curve().own));
  $("own").addEventListener("click", () => moveTo(curve().own));
  $("cheapest").addEventListener("click", () => {
    const every = curve().points.map((point) => costs(point, ...settings()).cost);
    moveTo(every.indexOf(Math.min(...every)));
  });
  show();
}
