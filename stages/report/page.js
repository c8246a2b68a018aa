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

// Few false alarms say little about their rate: then it is its upper bound.
const isFew = ([threshold, , fp]) => fp < 10 && threshold <= 1;

function mostFalse(point) {
  const fp = point[2], share = fp / data.harmless, n = data.units, z = 1.644854;
  if (!isFew(point)) return share;
  if (!fp) return 1 - 0.05 ** (1 / n);
  const half = z * Math.sqrt(share * (1 - share) / n + z * z / (4 * n * n));
  return Math.min(1, (share + z * z / (2 * n) + half) / (1 + z * z / n));
}

function costs(tp, rate, share, falseAlarm, miss) {
  const hits = 1000 * share * (tp / data.fraud), falseAlarms = 1000 * (1 - share) * rate;
  const misses = 1000 * share - hits;
  return { alarms: hits + falseAlarms, falseAlarms, misses, cost: falseAlarm * falseAlarms + miss * misses };
}

const inputs = ["share", "false-alarm", "miss"];

function settings() {
  const [share, falseAlarm, miss] = inputs.map((id) => Number($(id).value) || 0);
  return [share / 100, falseAlarm, miss];
}

// A number outside its range is put on the edge, in the field too.
function clamp(event) {
  const field = event.target, value = Number(field.value);
  if (field.value !== "" && (value < Number(field.min) || value > Number(field.max))) {
    field.value = value < Number(field.min) ? field.min : field.max;
  }
  if (event.type === "change" && field.value === "") field.value = field.defaultValue;
  show();
}

const curve = () => data.systems[$("system").value];

function show() {
  const point = curve().points[Number($("threshold").value)], [threshold, tp, fp] = point;
  const found = costs(tp, mostFalse(point), ...settings());
  const shown = threshold > 1 ? "> 1" : threshold.toFixed(3);
  $("threshold-value").textContent = shown;
  $("threshold").setAttribute("aria-valuetext", shown);
  for (const node of document.querySelectorAll(".bound")) node.hidden = !isFew(point);
  $("alarms").textContent = found.alarms.toFixed(1);
  $("false-alarms").textContent = found.falseAlarms.toFixed(1);
  $("misses").textContent = found.misses.toFixed(1);
  $("cost").textContent = found.cost.toFixed(1);
  const correct = found.alarms ? 1 - found.falseAlarms / found.alarms : 1;
  $("right").textContent = tp + fp ? `${(100 * correct).toFixed(1)}\u00a0%` : "–";
  $("found").textContent = `${(100 * tp / data.fraud).toFixed(1)}\u00a0%`;
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
  $("threshold").addEventListener("input", show);
  for (const id of inputs) for (const event of ["input", "change"]) $(id).addEventListener(event, clamp);
  $("system").addEventListener("change", () => moveTo(curve().own));
  $("own").addEventListener("click", () => moveTo(curve().own));
  $("cheapest").addEventListener("click", () => {
    const every = curve().points.map(([, tp, fp]) => costs(tp, fp / data.harmless, ...settings()).cost);
    moveTo(every.lastIndexOf(Math.min(...every)));
  });
  show();
}
