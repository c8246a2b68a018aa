"use strict";
const $ = (id) => document.getElementById(id);
const FEWEST_AT_ONCE = 4, TEXTS_AT_ONCE = 32; // a file begins with few texts, since a slow model may score few in the server's time
const SECONDS_AT_ONCE = 2; // so that the progress moves
const BYTES_AT_ONCE = 500_000;
const MOST_TRIES = 30;
const MOST_ROWS = 100; // of a table

const state = {
  model: null, // what /v1/model says
  threshold: 0.5,
  shown: null, // result of the text that was checked
  batch: null, // {name, rows, stopped}
  queue: [], // texts that wait for a verdict
  done: [], // what was judged or skipped, the last one last
  busy: false,
};

// ---- the server

async function call(path, values, method = values ? "POST" : "GET") {
  const headers = {};
  if (values) headers["Content-Type"] = "application/json";
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: values && JSON.stringify(values) });
  } catch {
    throw new Error(word("unreachable"));
  }
  if (answer.status === 401) {
    await askToken();
    return call(path, values, method);
  }
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  const error = new Error(found.error || `${answer.status} ${answer.statusText}`);
  error.seconds = Number(answer.headers.get("Retry-After")) || 0;
  throw error;
}

// Waits as long as the server asks for, and says so.
async function pause(seconds) {
  showProblem(word("waiting", { seconds }));
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  showProblem("");
}

let asking = null;
function askToken() {
  asking ??= new Promise((resolve) => {
    $("token-dialog").showModal();
    $("token-form").onsubmit = () => {
      sessionStorage.setItem("token", $("token").value.trim());
      $("token").value = "";
      asking = null;
      resolve();
    };
  });
  return asking;
}
$("token-dialog").addEventListener("cancel", (event) => event.preventDefault());

function showProblem(sentence) {
  $("problem").textContent = sentence;
  $("problem").hidden = !sentence;
}

// Runs what a button does, and shows why it failed.
async function attempt(work) {
  showProblem("");
  try {
    return await work();
  } catch (error) {
    showProblem(error.message);
  }
}

// ---- numbers

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
function signed(value) {
  const size = Math.abs(value).toFixed(1);
  return size === "0.0" ? size : `${value < 0 ? "−" : "+"}${size}`;
}
const isFraud = (probability) => probability >= state.threshold;
const verdictWord = (probability) => word(isFraud(probability) ? "fraud" : "legitimate");

// A probability, never rounded to a certainty.
function shownProbability(probability) {
  if (probability > 0.999) return "> 99.9%";
  if (probability < 0.001) return "< 0.1%";
  return percent(probability);
}

// Wilson's interval of a share k/n, 95 %.
function interval(share, n) {
  const z = 1.96, centre = (share + z * z / (2 * n)) / (1 + z * z / n);
  const half = z * Math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n);
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

// ---- threshold

function showThreshold() {
  $("threshold").value = state.threshold;
  $("threshold-value").textContent = state.threshold.toFixed(3);
  $("threshold").setAttribute("aria-valuetext", state.threshold.toFixed(3));
  showFigures();
  showResult();
  showBatch();
}

function showFigures() {
  const valid = state.model?.valid;
  const known = Boolean(valid && valid.threshold);
  $("figures").hidden = !known;
  $("no-figures").hidden = known || !valid;
  if (valid?.missing) $("no-figures").textContent = word("no_figures", { reason: valid.missing });
  if (!known) return;
  const at = valid.threshold.findIndex((value) => value >= state.threshold);
  const recall = at < 0 ? 0 : valid.recall[at], rate = at < 0 ? 0 : valid.false_alarm_rate[at];
  const share = Math.min(100, Math.max(0, Number($("share").value))) / 100;
  const hits = share * recall, falseAlarms = (1 - share) * rate;
  $("precision").textContent = hits + falseAlarms ? percent(hits / (hits + falseAlarms)) : "–";
  $("recall").textContent = percent(recall);
  $("alarms").textContent = (1000 * (hits + falseAlarms)).toFixed(0);
  const [low, high] = interval(recall, valid.fraud);
  $("recall-range").textContent = word("recall_range", { low: percent(low, 0), high: percent(high, 0) });
  const [few, many] = interval(rate, valid.harmless).map((each) => (1000 * (1 - share) * each).toFixed(0));
  $("false-alarms").textContent = word("false_alarms", { number: (1000 * falseAlarms).toFixed(0), low: few, high: many });
  $("valid-note").textContent = word("valid_note", valid);
}

$("threshold").addEventListener("input", (event) => {
  state.threshold = Number(event.target.value);
  showThreshold();
});
$("threshold-reset").addEventListener("click", () => {
  if (state.model?.threshold == null) return;
  state.threshold = state.model.threshold;
  showThreshold();
});
$("share").addEventListener("input", showFigures);

// ---- check a text

$("check-form").addEventListener("submit", (event) => {
  event.preventDefault();
  checkText();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) checkText();
});

function checkText() {
  const input = $("text").value;
  if (!input.trim()) return showProblem(word("no_text"));
  const button = $("check-form").querySelector("[type=submit]");
  if (button.disabled) return;
  button.disabled = true;
  button.textContent = word("working");
  attempt(async () => {
    const answer = await call("/v1/classify", { input, explain: true });
    state.shown = answer.results[0];
    showResult();
  }).finally(() => {
    button.disabled = false;
    button.textContent = word("check_text");
  });
}

function showResult() {
  const shown = state.shown;
  $("result").hidden = !shown;
  if (!shown) return;
  const tone = isFraud(shown.probability) ? "fraud" : "legitimate";
  $("badge").className = `badge ${tone}`;
  $("badge").textContent = word(tone);
  $("probability").textContent = shownProbability(shown.probability);
  $("bar-value").parentElement.className = `bar ${tone}`;
  $("bar-value").style.setProperty("--value", shown.probability);
  $("bar-threshold").style.setProperty("--value", state.threshold);
  $("cut").hidden = !shown.truncated;
  const most = Math.max(1, ...shown.sentences.map((each) => Math.abs(each.effect)));
  $("sentences").replaceChildren(...shown.sentences.flatMap((each) => markSentence(each, most)));
  const sorted = [...shown.sentences].sort((one, other) => Math.abs(other.effect) - Math.abs(one.effect));
  $("effects").replaceChildren(...sorted.map((each) => tableRow([each.text.trim(), signed(each.effect)], ["text", "right"])));
}

// A sentence coloured by its effect, with the number behind it. `most`: the effect of full colour.
function markSentence(sentence, most) {
  const mark = document.createElement("mark"), number = document.createElement("sup");
  const [, before, body, after] = sentence.text.match(/^(\s*)([\s\S]*?)(\s*)$/);
  mark.textContent = body;
  mark.className = `${sentence.effect > 0 ? "towards" : "against"}${Math.abs(sentence.effect) < 0.05 ? " faint" : ""}`;
  mark.title = `${word(sentence.effect > 0 ? "towards" : "against")}: ${signed(sentence.effect)}`;
  mark.style.setProperty("--strength", Math.abs(sentence.effect) / most);
  number.textContent = `\u2060${signed(sentence.effect)}`; // a joiner: the number stays on the sentence's line
  return [before, mark, number, after];
}

function tableRow(cells, classes) {
  const row = document.createElement("tr");
  row.append(...cells.map((cell, index) => {
    const found = document.createElement("td");
    found.textContent = cell;
    found.className = classes[index];
    return found;
  }));
  return row;
}

// ---- a file

for (const button of document.querySelectorAll(".pick")) button.addEventListener("click", () => $("picker").click());
$("picker").addEventListener("change", () => {
  if ($("picker").files[0]) openFile($("picker").files[0]);
  $("picker").value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
});

function openFile(file) {
  attempt(async () => {
    if (file.size > MOST_BYTES) throw new Error(word("too_large", { name: file.name }));
    const rows = readRows(file.name, await file.text());
    if (!rows.length) throw new Error(word("no_rows", { name: file.name }));
    if (rows.length === 1) {
      choose("check");
      $("text").value = rows[0].input;
      checkText();
    } else await classifyRows(file.name, rows);
  });
}

async function classifyRows(name, all) {
  if (state.batch) state.batch.stopped = true;
  const most = state.model?.limits.max_characters ?? Infinity;
  const rows = all.filter((row) => [...row.input].length <= most);
  const batch = { name, rows, done: 0, stopped: false };
  state.batch = batch;
  choose("file");
  showBatch();
  if (rows.length < all.length) showProblem(word("too_long", { most, count: all.length - rows.length }));
  let size = FEWEST_AT_ONCE, tries = 0;
  while (batch.done < rows.length && !batch.stopped) {
    const part = nextPart(rows, batch.done, size), begun = performance.now();
    try {
      const answer = await call("/v1/classify", { input: part.map((row) => row.input) });
      part.forEach((row, index) => Object.assign(row, answer.results[index]));
      batch.done += part.length;
      tries = 0;
      if (performance.now() - begun < 1000 * SECONDS_AT_ONCE) size = Math.min(2 * size, TEXTS_AT_ONCE);
    } catch (error) {
      if (error.seconds && ++tries < MOST_TRIES && !batch.stopped) {
        size = Math.max(1, Math.floor(part.length / 2));
        await pause(error.seconds);
        continue;
      }
      batch.stopped = true;
      showBatch();
      throw error;
    }
    showBatch();
  }
}

// The next rows, at most so many, within the server's limits.
function nextPart(rows, start, texts = TEXTS_AT_ONCE) {
  const most = Math.min(texts, state.model?.limits.max_texts ?? texts);
  const limit = Math.min(BYTES_AT_ONCE, (state.model?.limits.max_body_bytes ?? BYTES_AT_ONCE) / 2);
  let end = start, bytes = 0;
  while (end < rows.length && end - start < most) {
    bytes += 4 * rows[end].input.length;
    if (end > start && bytes > limit) break;
    end++;
  }
  return rows.slice(start, end);
}

function showBatch() {
  const batch = state.batch;
  $("batch").hidden = !batch;
  if (!batch) return;
  const scored = batch.rows.slice(0, batch.done), running = batch.done < batch.rows.length && !batch.stopped;
  $("batch-name").textContent = batch.name;
  $("batch-progress").max = batch.rows.length;
  $("batch-progress").value = batch.done;
  const summary = word("batch_summary", {
    done: batch.done, total: batch.rows.length, flagged: scored.filter((row) => isFraud(row.probability)).length,
  });
  const stopped = batch.stopped && batch.done < batch.rows.length;
  $("batch-summary").textContent = stopped ? word("batch_stopped", { summary }) : summary;
  $("batch-stop").hidden = !running;
  $("batch-save").disabled = $("batch-review").disabled = !batch.done;
  $("batch-review").hidden = state.model ? !state.model.review : false;
  const top = scored.sort((one, other) => other.probability - one.probability).slice(0, MOST_ROWS);
  $("batch-rows").replaceChildren(...top.map((row) => tableRow(
    [row.row, shownProbability(row.probability), verdictWord(row.probability), shorten(row.input)],
    ["right", "right", isFraud(row.probability) ? "is-fraud" : "is-legitimate", "text"],
  )));
  $("batch-more").hidden = batch.done <= MOST_ROWS;
  $("batch-more").textContent = word("batch_more", { shown: MOST_ROWS });
}

function shorten(text) {
  const letters = [...text];
  return letters.length > 160 ? `${letters.slice(0, 160).join("")}…` : text;
}

$("batch-stop").addEventListener("click", () => {
  state.batch.stopped = true;
  showBatch();
});
$("batch-save").addEventListener("click", () => {
  const lines = state.batch.rows.slice(0, state.batch.done).map((row) => JSON.stringify({
    input: row.input, ...(row.group && { group: row.group }), source: row.source, label: isFraud(row.probability),
    probability: row.probability, log_odds: row.log_odds, truncated: row.truncated,
  }));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "application/x-ndjson" }));
  link.download = `${state.batch.name.replace(/\.\w+$/, "")}-classified.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
$("batch-review").addEventListener("click", () => {
  choose("review");
  $("queue-source").value = "file";
  loadQueue();
});

// ---- review

$("queue-form").addEventListener("submit", (event) => {
  event.preventDefault();
  loadQueue();
});
$("show-score").addEventListener("change", showItem);

function loadQueue() {
  return attempt(async () => {
    const low = Number($("queue-low").value), high = Number($("queue-high").value), order = $("queue-order").value;
    const fromServer = $("queue-source").value === "server";
    state.queue = fromServer
      ? (await call(`/v1/queue?low=${low}&high=${high}&order=${order}`)).texts
      : await queueOfFile(low, high, order);
    const empty = fromServer ? "queue_empty_server" : "queue_empty_file";
    showItem(state.queue.length ? "queue_done" : empty);
    if (state.queue.length) $("item-text").focus();
  });
}

async function queueOfFile(low, high, order) {
  const scored = state.batch ? state.batch.rows.slice(0, state.batch.done) : [];
  const seen = new Set();
  const once = scored.filter((row) => !seen.has(row.input) && seen.add(row.input))
    .filter((row) => row.probability >= low && row.probability <= high);
  const fresh = [];
  for (let start = 0; start < once.length; ) {
    const part = nextPart(once, start);
    const { labels } = await call("/v1/verdicts/known", { input: part.map((row) => row.input) });
    fresh.push(...part.filter((_, index) => labels[index] === null));
    start += part.length;
  }
  const distance = (row) => Math.abs(row.log_odds - Math.log(state.threshold / (1 - state.threshold)));
  return order === "informative" ? fresh.sort((one, other) => distance(one) - distance(other)) : fresh.reverse();
}

let emptyWord = "queue_empty_server";
function showItem(empty) {
  if (typeof empty === "string") emptyWord = empty;
  const item = state.queue[0];
  $("item").hidden = !item;
  $("queue-empty").hidden = Boolean(item);
  $("queue-empty").textContent = word(emptyWord);
  $("undo").disabled = !state.done.length;
  if (!item) return;
  const score = $("show-score").checked ? word("item_score", { probability: shownProbability(item.probability) }) : "";
  $("item-head").textContent = word("item_head", { left: state.queue.length, source: item.source }) + score;
  $("item-text").textContent = item.input;
  $("item-text").scrollTop = 0;
}

async function judge(verdict) {
  const item = state.queue[0];
  if (!item || state.busy) return;
  state.busy = true;
  await attempt(async () => {
    let count = "";
    if (verdict !== "skip") {
      const { input, source, group, probability } = item;
      const answer = await call("/v1/verdicts", { input, label: verdict === "fraud", source, group: group || "", probability });
      count = word("review_count", { count: answer.verdicts });
    }
    state.queue.shift();
    state.done.push({ item, verdict });
    $("review-count").textContent = `${word(`judged_${verdict}`)} ${count}`;
    showItem();
  });
  state.busy = false;
}

async function undo() {
  if (!state.done.length || state.busy) return;
  state.busy = true;
  await attempt(async () => {
    const { item, verdict } = state.done.at(-1);
    if (verdict !== "skip") await call("/v1/verdicts", { input: item.input }, "DELETE");
    state.done.pop();
    state.queue.unshift(item);
    $("review-count").textContent = word("undone");
    showItem();
  });
  state.busy = false;
}

for (const button of document.querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => judge(button.dataset.verdict));
}
$("undo").addEventListener("click", undo);
const KEYS = { f: () => judge("fraud"), l: () => judge("legitimate"), s: () => judge("skip"), u: undo };
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]):not([type=range]), textarea, select, dialog");
  if ($("review").hidden || typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const act = KEYS[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});

// ---- views and language

const TABS = ["check", "file", "review"];
function choose(name, focus = false) {
  for (const each of TABS) {
    const tab = $(`tab-${each}`), on = each === name;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(each).hidden = !on;
    if (on && focus) tab.focus();
  }
}
TABS.forEach((name, index) => {
  $(`tab-${name}`).addEventListener("click", () => {
    choose(name);
    if (name === "review" && !state.queue.length && !state.done.length) loadQueue();
  });
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) $(`tab-${TABS[(index + step + TABS.length) % TABS.length]}`).click();
    if (step) choose(TABS[(index + step + TABS.length) % TABS.length], true);
  });
});

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    language = button.dataset.language;
    keepLanguage(language);
    showAll();
  });
}

function showAll() {
  showLanguage();
  showModel();
  showThreshold();
  showItem();
}

function showModel() {
  const model = state.model;
  $("model").textContent = model?.ready ? word("model", model) : word("loading");
  $("tab-review").hidden = model ? !model.review : false;
}

async function start() {
  showAll();
  for (;;) {
    await attempt(async () => {
      state.model = await call("/v1/model");
    });
    if (state.model?.ready) break;
    showModel();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  state.threshold = state.model.threshold;
  if (state.model.valid.fraud_fraction) $("share").value = Number((100 * state.model.valid.fraud_fraction).toPrecision(3));
  showAll();
}
start();
