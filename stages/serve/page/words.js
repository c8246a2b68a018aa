"use strict";
// The page's words in both languages. {name} is replaced by a value.
const WORDS = {
  en: {
    title: "Fraud or not", skip_to_content: "Skip to content", views: "Views",
    check: "Check", file: "File", review: "Review",
    text_label: "Text to check", text_placeholder: "Paste a message, a call transcript, a chat …",
    check_text: "Check text", choose_file: "Choose a file",
    check_hint: "Ctrl+Enter checks. A file can be dropped anywhere.",
    probability_of_fraud: "probability of fraud",
    cut: "The text is longer than the model reads. It was cut.",
    sentences: "What each sentence does", towards: "towards fraud", against: "against fraud",
    effect_unit: "in log-odds, by leaving the sentence out", as_table: "As a table", sentence: "Sentence",
    effect: "Effect",
    fraud: "Fraud", legitimate: "Legitimate", skip: "Skip", undo: "Undo",
    drop_here: "Drop a file here",
    formats: "JSON Lines with the key input, CSV with a column input or text, or a text file with one text.",
    stop: "Stop", download: "Download results", review_these: "Review these",
    row: "Row", probability: "Probability", verdict: "Verdict", text: "Text", progress: "Texts that are classified",
    batch_summary: "{done} of {total} texts, {flagged} called fraud at this threshold",
    batch_stopped: "Stopped. {summary}",
    batch_more: "The {shown} with the highest probability are shown. The download has all.",
    queue: "Which texts wait for a verdict", source: "Source", from_server: "Server", from_file: "The file of this page",
    low: "Probability from", high: "to", order: "Order", informative: "Nearest to the threshold first",
    newest: "Newest first", load: "Load", show_score: "Show the model's probability",
    queue_empty_server: "No text waits here. The server's queue has the files of --queue, and the audit log if it keeps texts.",
    queue_empty_file: "No text waits here. Classify a file first, or widen the bounds.",
    queue_done: "All of these texts are done.",
    no_review: "This server was started without review.",
    item_head: "{left} left · {source}", item_score: " · probability {probability}",
    your_verdict: "Your verdict",
    review_count: "{count} texts have a verdict", undone: "The last verdict was taken back.",
    judged_fraud: "Fraud.", judged_legitimate: "Legitimate.", judged_skip: "Skipped.",
    threshold: "Threshold", threshold_label: "A text is called fraud from this probability on",
    reset: "The model's own", share: "Share of fraud where it is used, %",
    precision: "Precision", precision_means: "share of the alarms that are fraud", recall: "Recall",
    recall_range: "share of the fraud that is found (95%: {low} to {high})",
    alarms: "Alarms per 1,000 texts", false_alarms: "{number} of them false (95%: {low} to {high})",
    valid_note: "From {fraud} fraud and {harmless} harmless texts of valid. The model's own threshold was chosen on them, so they flatter it slightly.",
    no_figures: "Without figures: {reason}",
    no_proof: "A verdict is a score, no proof: let a person decide what follows.",
    api: "API for programs", token_title: "This server asks for a token", token_label: "Token",
    token_note: "It is kept until this tab is closed.", enter: "Enter",
    model: "{kind} · {base} · {id}", loading: "The model is loading …",
    working: "Checking …", no_text: "Write or paste a text first.",
    unreachable: "The server can't be reached.", waiting: "The server is busy or slow. Trying again in {seconds} s, with fewer texts.",
    no_rows: "{name} has no text. Expected JSON Lines with the key input, CSV with a column input or text, or plain text.",
    too_long: "Left out, since they have more than {most} characters: {count} texts.", too_large: "{name} is larger than 50 MB. Use predict for it.",
    page: "this page",
  },
  zh: {
    title: "诈骗文本识别", skip_to_content: "跳到正文", views: "视图",
    check: "检测", file: "文件", review: "复核",
    text_label: "待检测的文本", text_placeholder: "粘贴短信、通话记录或聊天内容……",
    check_text: "检测文本", choose_file: "选择文件",
    check_hint: "按 Ctrl+Enter 检测，也可把文件拖到页面任意处。",
    probability_of_fraud: "诈骗概率",
    cut: "文本超过模型可读的长度，已被截断。",
    sentences: "各句的作用", towards: "指向诈骗", against: "指向正常",
    effect_unit: "对数几率，去掉该句后的变化", as_table: "以表格显示", sentence: "句子", effect: "作用",
    fraud: "诈骗", legitimate: "正常", skip: "跳过", undo: "撤销",
    drop_here: "把文件拖到这里",
    formats: "JSON Lines（键为 input）、CSV（列名为 input 或 text），或只含一段文本的纯文本文件。",
    stop: "停止", download: "下载结果", review_these: "复核这些文本",
    row: "行", probability: "概率", verdict: "判定", text: "文本", progress: "已检测的文本",
    batch_summary: "已检测 {done} / {total} 条，按当前阈值有 {flagged} 条判为诈骗",
    batch_stopped: "已停止。{summary}",
    batch_more: "这里显示概率最高的 {shown} 条，下载的结果包含全部。",
    queue: "待复核的文本", source: "来源", from_server: "服务器", from_file: "本页的文件",
    low: "概率从", high: "到", order: "顺序", informative: "最接近阈值的在前", newest: "最新的在前", load: "加载",
    show_score: "显示模型给出的概率",
    queue_empty_server: "没有待复核的文本。服务器的队列来自 --queue 指定的文件，以及保留原文的审计日志。",
    queue_empty_file: "没有待复核的文本。请先检测一个文件，或放宽概率范围。",
    queue_done: "这些文本已全部处理。",
    no_review: "此服务器未开启复核。",
    item_head: "剩余 {left} 条 · {source}", item_score: " · 概率 {probability}",
    your_verdict: "您的判定",
    review_count: "已有 {count} 条文本得到判定", undone: "已撤销上一条判定。",
    judged_fraud: "诈骗。", judged_legitimate: "正常。", judged_skip: "已跳过。",
    threshold: "阈值", threshold_label: "概率达到此值即判为诈骗",
    reset: "恢复模型的阈值", share: "实际使用中诈骗所占比例（%）",
    precision: "精确率", precision_means: "告警中确为诈骗的比例", recall: "召回率",
    recall_range: "诈骗文本被发现的比例（95%：{low} 至 {high}）",
    alarms: "每 1,000 条文本的告警数", false_alarms: "其中误报 {number} 条（95%：{low} 至 {high}）",
    valid_note: "依据验证集中的 {fraud} 条诈骗文本和 {harmless} 条正常文本。模型的阈值正是在其上选定的，数值略偏乐观。",
    no_figures: "没有数据：{reason}",
    no_proof: "判定只是分数，不是证据：如何处置应由人决定。",
    api: "程序接口（API）", token_title: "此服务器需要令牌", token_label: "令牌",
    token_note: "令牌保留到关闭此标签页为止。", enter: "确定",
    model: "{kind} · {base} · {id}", loading: "模型正在加载……",
    working: "正在检测……", no_text: "请先输入或粘贴文本。",
    unreachable: "无法连接服务器。", waiting: "服务器繁忙或较慢，{seconds} 秒后减少条数重试。",
    no_rows: "{name} 中没有文本。应为 JSON Lines（键为 input）、CSV（列名为 input 或 text）或纯文本。",
    too_long: "有 {count} 条文本超过 {most} 个字符，未检测。", too_large: "{name} 超过 50 MB，请改用 predict 命令。",
    page: "本页",
  },
};

const PAGE_TITLES = { en: "en", zh: "zh-CN" };

let language = startLanguage();

// A word with its values. Numbers are shown as they are given.
function word(name, values = {}) {
  return WORDS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

function showLanguage() {
  document.documentElement.lang = PAGE_TITLES[language];
  document.title = word("title");
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = word(node.dataset.placeholder);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", word(node.dataset.label));
  for (const node of document.querySelectorAll("[data-language]")) {
    node.setAttribute("aria-pressed", String(node.dataset.language === language));
  }
}
