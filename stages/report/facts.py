"""What else to know before the figures are trusted, as sentences, each under a few words that say what it answers."""

from typing import Any

from stages.report.rates import (
    Rate,
    by_kind,
    categories,
    cheapest,
    costs,
    files,
    most_false,
    outstanding,
    points,
    up_to,
)
from stages.report.read import Run
from stages.report.verdict import does, joined
from stages.report.words import WHEN, Words, count, feature, label, percent, plain, say, short, span

Fact = tuple[Words, Words]  # what it answers, and the answer
DEARER = 5.0
MOST_NAME = 30  # characters of a name from the data
MOST_FILES = 6  # that are named
SHIPPED = {"data/sample/pool.jsonl", "data/sample/pool-2.jsonl"}
RULES = {  # of select.threshold
    "max_f1": Words(
        "使校准后的概率所预期的 F1 最高，其值为这个 F1 的一半",
        "where the F1 that the calibrated probabilities lead one to expect is highest, which is at half of that F1",
    ),
    "max_f1_on_valid": Words("取验证集上 F1 最高的阈值", "the one with the best F1 on valid"),
    "precision_at_least": Words(
        "在精确率至少为 {precision} 的阈值中取召回率最高的",
        "the one that finds most fraud among those with a precision of at least {precision}",
    ),
    "min_cost": Words(
        "取代价最低的阈值，误报代价 {fp}，漏报代价 {fn}",
        "the one with the lowest cost, where a false alarm costs {fp} and a miss {fn}",
    ),
    "fixed": Words("固定为 0.5", "0.5, whatever the texts are"),
}
OTHERS = {  # params of one rule each
    "precision_at_least": Words("select.min_precision（{precision}）", "select.min_precision ({precision})"),
    "min_cost": Words("select.cost（误报 {fp}，漏报 {fn}）", "select.cost (false alarm {fp}, miss {fn})"),
}
SHIFTED = {
    "length": Words("长度", "length"),
    "vocabulary": Words("用词", "vocabulary"),
    "script": Words("文字", "script"),
    "score": Words("分数", "scores"),
}


def facts(run: Run) -> list[Fact]:
    """All that these figures can tell, in the order in which a reader asks."""
    parts = (rule, promise, dearer, missed, flagged, leaks, shortcut, cut, elsewhere, data, made_from)
    return [fact for part in parts for fact in part(run)]


def rule(run: Run) -> list[Fact]:
    """By which rule the threshold was chosen, and which params of other rules had no part in it."""
    select = run.params.select
    if run.scores(run.used) is None:
        return []
    how = RULES.get(select.threshold, Words(select.threshold, select.threshold))
    values = {"precision": f"{select.min_precision:g}", "fp": f"{select.cost['fp']:g}", "fn": f"{select.cost['fn']:g}"}
    idle = [say(*words, **values) for rule, words in OTHERS.items() if rule != select.threshold]
    return [
        (
            Words("阈值如何选定", "How the threshold was chosen"),
            say(
                "在验证集上按规则 {name}（select.threshold）选定：{how}{share}。只用于其他规则的参数：{idle}。",
                "On valid, by the rule {name} (select.threshold): {how}{share}. Other rules alone use {idle}.",
                name=select.threshold,
                how=say(*how, **values),
                share=Words("", "") if select.fraud_fraction is None else for_share(select.fraud_fraction),
                idle=Words("、".join(words.zh for words in idle), " and ".join(words.en for words in idle)),
            ),
        )
    ]


def for_share(share: float) -> Words:
    """For which share of fraud the threshold was chosen."""
    return say("，诈骗占比按 {share} 计", ", for texts of which {share} are fraud", share=percent(share))


def dearer(run: Run) -> list[Fact]:
    """What a dear false alarm would change."""
    every, share = points(run, run.used), run.evaluate["size"]["fraud_fraction"]
    if not every or not 0 < share < 1:
        return []
    best = cheapest(run, every, share, DEARER, 1)
    own = next(point for point in every if point.threshold == run.evaluate[run.used]["threshold"])
    now, then = (costs(run, point, share, DEARER, 1, bound=True) for point in (own, best))
    return [
        (
            Words("若一次误报相当于 5 次漏报", "If a false alarm cost 5 misses"),
            say(
                "{system}的阈值宜为 {at}：找出 {recall} 的诈骗，每 1,000 条正常文本误报 {alarms} 条。"
                "诈骗占 {share} 时，每 1,000 条文本的代价从 {now} 次漏报降到 {then} 次。该阈值选自测试集，略偏乐观。",
                "The best threshold of the {system} would be {at}: {recall} of the fraud found, {alarms} of 1,000 "
                "harmless texts flagged. Where {share} of the texts are fraud, 1,000 texts would then cost as much as "
                "{then} misses instead of {now}. It is chosen on test, which flatters it slightly.",
                system=label(run.used),
                share=percent(share),
                at="> 1" if best.threshold > 1 else f"{best.threshold:.3f}",
                recall=percent(best.tp / int(run.labels.sum())),
                alarms=up_to(best, count(1000 * most_false(run, best))),
                now=count(now.cost),
                then=count(then.cost),
            ),
        )
    ]


def promise(run: Run) -> list[Fact]:
    """Whether the threshold keeps on test what it promised on valid."""
    promised, kept = run.evaluate.get("promised") or {}, run.evaluate.get("kept", {}).get("test")
    if not kept or "precision" not in kept or promised.get("precision") is None:
        return []
    return [
        (
            Words("承诺与兑现", "Promised and kept"),
            say(
                "验证集承诺精确率 {precision}、召回率 {recall}。测试集为 {kept_precision} 和 {kept_recall}。",
                "Valid promised precision {precision} and recall {recall}. Test gives {kept_precision} and "
                "{kept_recall}.",
                precision=percent(promised["precision"]),
                recall=percent(promised["recall"]),
                kept_precision=percent(kept["precision"]),
                kept_recall=percent(kept["recall"]),
            ),
        )
    ]


def missed(run: Run) -> list[Fact]:
    """Which kind of fraud is missed most."""
    rates = by_kind(run, categories(run), run.labels)
    return named(
        outstanding(rates, most=False) if len(rates) > 1 else None,
        Words("漏掉最多的诈骗", "Fraud missed most"),
        Words("“{name}”：{rows} 条中找出 {hits} 条", "“{name}”: {hits} of {rows} are found"),
    )


def flagged(run: Run) -> list[Fact]:
    """Which harmless kind is flagged most; by file where the texts have one category only."""
    rates = by_kind(run, categories(run), ~run.labels)
    if len(rates) < 2:
        rates = by_kind(run, files(run), ~run.labels)
    return named(
        outstanding(rates, most=True) if len(rates) > 1 else None,
        Words("误报最多的正常文本", "Harmless texts flagged most"),
        Words("“{name}”：{rows} 条中误报 {hits} 条", "“{name}”: {hits} of {rows} are flagged"),
    )


def named(rate: Rate | None, title: Words, words: Words) -> list[Fact]:
    """Says a rate of a kind.

    Args:
        rate: None where there is no kind to name.
        title: what it answers.
        words: of the rate; its name, hits and rows are filled in.
    """
    if rate is None:
        return []
    return [
        (
            title,
            say(
                words.zh + "（{share}，{interval}）。",
                words.en + " ({share}, {interval}).",
                name=short(plain(rate.name), MOST_NAME),
                rows=count(rate.rows),
                hits=count(rate.happened),
                share=percent(rate.share, 0),
                interval=span(rate.low, rate.high),
            ),
        )
    ]


def leaks(run: Run) -> list[Fact]:
    """How many rows of test training has seen, and what that changes."""
    title = Words("泄漏", "Leaks")
    rows, leaking = len(run.test), sum(bool(row.leak) for row in run.test)
    if not leaking:
        return [
            (
                title,
                Words(
                    "没有：测试集的文本未在训练集或验证集中出现。", "None: no text of test appears in train or valid."
                ),
            )
        ]
    found = say(
        "测试集 {rows} 条中有 {leaking} 条（{percent}）在训练集或验证集中出现过。",
        "{leaking} of {rows} texts of test ({percent}) appear in train or valid.",
        leaking=count(leaking),
        rows=count(rows),
        percent=percent(leaking / rows),
    )
    clean = run.evaluate.get("clean", {}).get(run.compared, {})
    if "average_precision" not in clean:
        return [(title, found)]
    without = say(
        "去掉这些文本，{system}的平均精确率为 {clean}，不是 {all}。",
        " Without them the average precision of the {system} is {clean}, not {all}.",
        system=label(run.compared),
        clean=f"{clean['average_precision']:.3f}",
        all=f"{run.evaluate[run.compared]['average_precision']:.3f}",
    )
    return [(title, Words(found.zh + without.zh, found.en + without.en))]


def shortcut(run: Run) -> list[Fact]:
    """The single feature that gives the label away best."""
    shortcuts = run.data.get("shortcuts") or {}
    first = shortcuts.get("first")
    if not first:
        return []
    strong = first["of_the_way"] >= run.params.prepare.shortcut_warning
    return [
        (
            Words("最强的捷径", "Strongest shortcut"),
            say(
                "“{name}”，{when}时判为诈骗：验证集 F1 {f1}，全部判为诈骗则为 {always}。{strong}",
                "“{name}”, fraud if {when}: F1 {f1} on valid, where calling everything fraud has {always}. {strong}",
                name=Words(*(short(plain(name), MOST_NAME + 20) for name in feature(first["feature"]))),
                when=WHEN[first["fraud_if"]],
                f1=f"{first['f1']:.3f}",
                always=f"{shortcuts['always_fraud_f1']:.3f}",
                strong=Words("很强：结果可能只反映了它。", "That is strong: the figures may reflect it alone.")
                if strong
                else Words("很弱。", "That is weak."),
            ),
        )
    ]


def cut(run: Run) -> list[Fact]:
    """How many texts are longer than the model reads."""
    train, size = run.train["facts"], run.evaluate["size"]
    return [
        (
            Words("被截断的文本", "Texts cut"),
            say(
                "超过 {most} 个词元者：测试集 {rows} 条中 {test} 条，训练集 {train_rows} 条中 {train} 条。",
                "At {most} tokens: {test} of {rows} in test, {train} of {train_rows} in train.",
                most=count(run.record["prompt"]["max_length"]),
                test="–" if size["rows_truncated"] is None else count(size["rows_truncated"]),
                rows=count(size["rows"]),
                train=count(train["rows_truncated"]),
                train_rows=count(train["rows"]),
            ),
        )
    ]


def elsewhere(run: Run) -> list[Fact]:
    """What becomes of the thresholds on each further set: of the system in use and of the best cheap one."""
    return [
        (say("数据集“{name}”", "On “{name}”", name=short(plain(name), MOST_NAME)), on_set(run, block))
        for name, block in sorted(run.evaluate.get("further", {}).items())
    ]


def on_set(run: Run, block: dict[str, Any]) -> Words:
    """The rows of a further set, what two systems do on it, and how its texts differ."""
    systems = [system for system in dict.fromkeys((run.used, run.best_cheap)) if system in block]
    parts = [
        say("{rows} 条，{kind}。", "{rows} texts, {kind}.", rows=count(block["size"]["rows"]), kind=made_of(block))
    ]
    parts += [
        say("{system}{does}。", "The {system} {does}.", system=label(system), does=does(block[system]))
        for system in systems
    ]
    shifted = [key for key, each in block.get("shift", {}).items() if isinstance(each, dict) and each["shifted"]]
    if shifted:
        kinds = [SHIFTED.get(key, Words(key, key)) for key in shifted]
        first, last = kinds[:-1], kinds[-1]
        how = Words(
            "、".join(kind.zh for kind in kinds),
            (", ".join(kind.en for kind in first) + " and " if first else "") + last.en,
        )
        parts.append(say("这些文本与验证集有别：{how}。", "The texts differ from those of valid in {how}.", how=how))
    return joined(parts)


def made_of(block: dict[str, Any]) -> Words:
    """Which classes a further set holds. block: its figures by system."""
    each = next(figures for figures in block.values() if "tp" in figures)
    fraud, harmless = each["tp"] + each["fn"], each["fp"] + each["tn"]
    if not fraud:
        return Words("全部是正常文本", "all of them harmless")
    if not harmless:
        return Words("全部是诈骗", "all of them fraud")
    share = percent(fraud / (fraud + harmless))
    return say("其中 {share} 是诈骗", "{share} of them fraud", share=share)


def data(run: Run) -> list[Fact]:
    """The files that the texts come from, with their rows, and how they were split."""
    names = list(run.files)
    listed = [
        say(
            "{name}（{rows} 条）",
            "{name} ({rows} rows)",
            name=short(plain(name), MOST_NAME),
            rows=count(run.files[name]),
        )
        for name in names[:MOST_FILES]
    ]
    if rest := len(names) - len(listed):
        listed.append(say("另外 {n} 个文件", "{n} more files", n=count(rest)))
    written = Words(
        "由语言模型为本项目所写，见 data/sample/README.md。",
        " Language models wrote them for this project: see data/sample/README.md.",
    )
    pools = run.params.dataset.pools
    return [
        (
            Words("数据", "Data"),
            say(
                "数据集 {data}：{files}。{written}训练集 {train} 条，验证集 {valid} 条，测试集 {test} 条。",
                "Data set {data}: {files}.{written} {train} rows are train, {valid} valid, {test} test.",
                data=run.params.dataset_name,
                files=Words("、".join(each.zh for each in listed), ", ".join(each.en for each in listed)),
                written=written if pools and set(pools) <= SHIPPED else Words("", ""),
                **{name: count(rows) for name, rows in run.rows.items()},
            ),
        )
    ]


def made_from(run: Run) -> list[Fact]:
    """Model and method; the hashes and all params stand at the end of the page."""
    return [
        (
            Words("模型来历", "Model made from"),
            say(
                "基础模型 {base}，方法 {method}。哈希与参数见页末。",
                "Base model {base}, method {method}. Hashes and parameters stand at the end.",
                base=run.record["base"]["id"],
                method=run.record["method_name"],
            ),
        )
    ]
