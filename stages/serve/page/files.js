"use strict";
// Reads the texts of a file in the browser: JSON Lines, CSV or plain text.
const TEXT_COLUMNS = ["input", "text", "content", "文本", "内容"];
const GROUP_COLUMNS = ["group", "case"];
const MOST_BYTES = 50e6;

// Rows {input, group, source, row} of a file. A plain text is one row.
function readRows(name, content) {
  const text = content.replace(/^\ufeff/, "");
  let rows;
  if (/\.(jsonl|json|ndjson)$/i.test(name)) rows = readJsonLines(text);
  else if (/\.csv$/i.test(name)) rows = readTable(text);
  else rows = [{ input: text.trim(), group: "", row: 1 }];
  return rows.filter((row) => row.input.trim()).map((row) => ({ ...row, source: `${name}:${row.row}` }));
}

function readJsonLines(text) {
  const rows = [];
  text.split("\n").forEach((line, index) => {
    try {
      const found = JSON.parse(line);
      if (found && typeof found.input === "string") rows.push({ input: found.input, group: nameOf(found.group), row: index + 1 });
    } catch { /* a line that is no JSON holds no text */ }
  });
  return rows;
}

function readTable(text) {
  const [head, ...lines] = readCsv(text);
  if (!head) return [];
  const names = head.map((cell) => cell.trim().toLowerCase());
  const column = names.findIndex((name) => TEXT_COLUMNS.includes(name));
  const group = names.findIndex((name) => GROUP_COLUMNS.includes(name));
  if (column < 0) return [];
  return lines.map((cells, index) => ({ input: cells[column] || "", group: nameOf(cells[group]), row: index + 2 }));
}

function nameOf(value) {
  return typeof value === "string" ? value.trim() : Number.isInteger(value) ? String(value) : "";
}

// Cells of a CSV table (RFC 4180): quotes may hold commas, line ends and doubled quotes.
function readCsv(text) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (quoted && letter === '"' && text[at + 1] === '"') { cell += '"'; at++; }
    else if (quoted) { if (letter === '"') quoted = false; else cell += letter; }
    else if (letter === '"' && !cell) quoted = true;
    else if (letter === ",") { row.push(cell); cell = ""; }
    else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && text[at + 1] === "\n") at++;
      rows.push([...row, cell]); row = []; cell = "";
    } else cell += letter;
  }
  if (cell || row.length) rows.push([...row, cell]);
  return rows.filter((cells) => cells.some((each) => each));
}
