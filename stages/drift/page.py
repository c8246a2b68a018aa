"""drift.html: one file in Chinese and English that needs no network, made of the content of drift.json."""

from pathlib import Path
from typing import Any

from stages.classifier.shift import FEWEST_ROWS
from stages.report.charts import WIDTH, Drawing, axis, legend
from stages.report.html import card, document, paragraph, table
from stages.report.words import Words, percent, say, signed

TITLE = Words("诈骗分类器：新文本变了吗？", "Fraud classifier: have the texts changed?")
FEATURES = {
    "texts": Words("用词（两样本分类器）", "wording (two-sample classifier)"),
    "length": Words("长度", "length"),
    "vocabulary": Words("训练集中有的字对", "pairs of characters known to train"),
    "script": Words("英文字母的比例", "share of ASCII letters"),
    "score": Words("分数（对数几率）", "score (log-odds)"),
}
ALARM, CALM, FEW = Words("报警", "alarm"), Words("正常", "no alarm"), Words("文本太少", "too few texts")
NOTE = say(
    "p 是在什么都没变的情况下，从训练集或验证集按单元抽取同样多文本时，差距至少这么大的概率。"
    "报警看的是本次运行中校正过的最小 p。"
    "诈骗比例的估计假定诈骗文本和正常文本各自没变，只是比例变了；如果用词已变，这个估计不可靠。",
    "p: how often as many texts, drawn from train or valid in whole units, differ as much though nothing has changed. "
    "An alarm goes by the smallest p, corrected for all tests of the run. The share of fraud is estimated as if fraud "
    "and harmless texts looked as before and only their shares had changed. "
    "Where the wording has changed, don't trust it.",
)


def page(values: dict[str, Any]) -> str:
    """The whole file. values: content of drift.json."""
    details = [detail(name, each, values["valid"]) for name, each in values["files"].items() if each["compared"]]
    body = "\n".join([verdict(values), overview(values), *details, card(Words("说明", "Notes"), paragraph(NOTE))])
    return document(TITLE, body, Path(__file__).parent)


def verdict(values: dict[str, Any]) -> str:
    """The answer in a sentence."""
    alarms = sum(each["alarm"] for each in values["files"].values())
    known = {"files": str(values["files_compared"]), "level": percent(values["level"], 0), "alarms": str(alarms)}
    if not values["files_compared"]:
        words = say(
            "无法判断：没有文件含有 {fewest} 条不同的文本。",
            "Nothing can be said: no file has {fewest} different texts.",
            fewest=str(FEWEST_ROWS),
        )
    elif not alarms:
        words = say(
            "{files} 个文件都与训练集、验证集没有超出偶然的差别（误报率 {level}）。",
            "No file of {files} differs from train and valid by more than chance (level {level}).",
            **known,
        )
    else:
        words = say(
            "{files} 个文件中有 {alarms} 个与训练集、验证集的差别超出偶然（误报率 {level}）。",
            "{alarms} of {files} files differ from train and valid by more than chance (level {level}).",
            **known,
        )
    css = "alarm" if alarms else "calm" if values["files_compared"] else ""
    return card(Words("结论", "Verdict"), paragraph(words, "headline"), css=css)


def overview(values: dict[str, Any]) -> str:
    """A line for each file."""
    head = (
        Words("文件", "file"),
        Words("结论", "verdict"),
        Words("校正后的 p", "corrected p"),
        Words("文本数", "texts"),
        Words("判为诈骗", "called fraud"),
        Words("估计的诈骗比例", "estimated fraud"),
        Words("此时的精确率", "precision then"),
    )
    rows = [
        (
            name,
            ALARM if each["alarm"] else CALM if each["compared"] else FEW,
            "" if each["p_value"] is None else f"{each['p_value']:.4f}",
            str(each["texts"]),
            "–" if each["flagged"] is None else percent(each["flagged"]),
            interval(each["fraud"], "share", "low", "high"),
            interval(each["fraud"], "precision", "precision_low", "precision_high"),
        )
        for name, each in values["files"].items()
    ]
    valid = values["valid"]
    promised = valid["promised"]
    last = (
        Words("验证集（对照）", "valid, to compare"),
        "",
        "",
        str(valid["rows"]),
        percent(valid["flagged"]),
        percent(promised["fraud_fraction"], 0),
        percent(promised["precision"], 0),
    )
    return card(Words("各文件", "Files"), table(head, [*rows, last], right=2))


def interval(block: dict[str, Any] | None, *names: str) -> str:
    """A share with its 95 % interval. names: of the share and of both ends."""
    if block is None or block[names[0]] is None:
        return "–"
    value, low, high = (percent(block[name], 0) for name in names)
    return f"{value} ({low} – {high})"


def detail(name: str, each: dict[str, Any], valid: dict[str, Any]) -> str:
    """What is known about a file.

    Args:
        name: of the file.
        each: its block of drift.json.
        valid: the block of valid.
    """
    head = (
        Words("比较", "compared"),
        Words("新文本平均", "mean of new texts"),
        Words("验证集平均", "mean of valid"),
        Words("差距", "distance"),
        Words("偶然的平均", "mean by chance"),
        Words("p", "p"),
    )
    rows = [
        (
            FEATURES[feature],
            shown(feature, test["mean"]),
            shown(feature, test["mean_on_valid"]),
            f"{test['distance']:.3f}",
            f"{test['expected']:.3f}",
            f"{test['p_value']:.4f}",
        )
        for feature, test in each["tests"].items()
    ]
    found = each["classifier"]
    auc = say(
        "把新文本与训练集分开的 AUC：{auc}；偶然的平均是 {mean}，97.5 % 的抽样低于 {high}。",
        "AUC of telling new texts from train: {auc}. By chance it is {mean} on average, and below {high} in 97.5 % of "
        "draws.",
        auc=f"{found['auc']:.3f}",
        mean=f"{found['auc_by_chance']:.3f}",
        high=f"{found['auc_by_chance_high']:.3f}",
    )
    sides = (("new", "在新文本中更多", "More in new texts"), ("train", "在训练集中更多", "More in train"))
    ngrams = [
        paragraph(say(f"{zh}：{{found}}", f"{en}: {{found}}", found=listed(each["ngrams"][side])), "ngrams")
        for side, zh, en in sides
    ]
    return card(
        Words(name, name),
        table(head, rows),
        histogram(each["scores"], valid["scores"]),
        paragraph(auc),
        *ngrams,
        css="alarm" if each["alarm"] else "calm",
    )


def shown(feature: str, mean: float | None) -> str:
    """The mean of a feature as people read it."""
    if mean is None:
        return ""
    return {"length": f"{mean:.0f}", "score": signed(mean, 2)}.get(feature) or percent(mean)


def listed(ngrams: dict[str, float]) -> str:
    """N-grams with a mark in place of a line end, which nobody would see."""
    return " · ".join(ngrams).replace("\n", "⏎") if ngrams else "–"


def histogram(new: dict[str, float], valid: dict[str, float]) -> str:
    """The share of texts by tenth of the probability, new ones beside valid. Both: shares by lower end."""
    drawing, most = Drawing(), max(*new.values(), *valid.values())
    across, up = axis(0, len(new), 44, WIDTH - 16), axis(0, most, 180, 30)
    for share in (0, most / 2, most):
        drawing.line([(across(0), up(share)), (across(len(new)), up(share))], "")
        drawing.text(38, up(share) + 4, percent(share, 0), "small", "end")
    width = (across(1) - across(0)) * 0.4
    for number, low in enumerate(new):
        for offset, shares, css in ((0.1, new, "new"), (0.5, valid, "valid")):
            top = up(shares[low])
            drawing.bar(across(number + offset), top, (width, up(0) - top), css)
        drawing.text(across(number), up(0) + 16, low, "small", "middle")
    drawing.text(across(len(new)), up(0) + 34, Words("诈骗概率", "probability of fraud"), "small", "end")
    names = [("new", Words("新文本", "new texts")), ("valid", Words("验证集", "valid"))]
    return drawing.svg(220, Words("分数分布", "scores")) + legend(names)
