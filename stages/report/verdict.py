"""The verdict in plain sentences, each made from the figures."""

from typing import Literal

from stages.report.rates import by_kind, categories, cheapest, costs, files, outstanding, points
from stages.report.read import Run
from stages.report.words import (
    WHEN,
    Words,
    count,
    feature,
    interval_of,
    label,
    percent,
    plain,
    say,
    short,
    signed,
    span,
)

Standing = Literal["ahead", "behind", "equal", "not shown", "unknown"]
RARE = 0.01  # a share of fraud as in daily traffic
DEARER = 5.0
MOST_NAME = 30  # characters of a name from the data

HEADLINES: dict[Standing, Words] = {
    "ahead": Words(
        "{system}优于最好的廉价系统（{cheap}）。", "The {system} is better than the best cheap system ({cheap})."
    ),
    "behind": Words(
        "{system}不如最好的廉价系统（{cheap}）。", "The {system} is worse than the best cheap system ({cheap})."
    ),
    "equal": Words(
        "{system}与最好的廉价系统（{cheap}）一样好，差别在容差 {margin} 之内。",
        "The {system} is as good as the best cheap system ({cheap}), within the margin of {margin}.",
    ),
    "not shown": Words(
        "尚不能说明{system}与最好的廉价系统（{cheap}）孰优孰劣。",
        "It is not shown whether the {system} or the best cheap system ({cheap}) is better.",
    ),
    "unknown": Words(
        "无法比较{system}与最好的廉价系统（{cheap}）：测试集只有一个类别，或单元太少，或没有分数。",
        "The {system} and the best cheap system ({cheap}) can't be compared: test has a single class, too few units, "
        "or no scores.",
    ),
}
ADVICE: dict[Standing, Words] = {
    "ahead": Words("在这些文本上，训练是值得的。", "On these texts, training pays."),
    "behind": Words(
        "建议使用廉价系统：把 select.system 设为 {name}，再运行 dvc repro。",
        "Use the cheap system: set select.system to {name} and run dvc repro.",
    ),
    "equal": Words("廉价系统成本更低，效果相当。", "The cheap system costs less and does as well."),
    "not shown": Words(
        "这个测试集看不出训练带来的好处，廉价系统成本更低。更多的测试文本会缩小区间。",
        "This test set shows no gain from training, and the cheap system costs less. "
        "More test texts narrow the interval.",
    ),
    "unknown": Words("请使用更大的测试集。", "Use a larger test set."),
}


def standing(run: Run) -> Standing:
    """Where the model stands against the best cheap system, by the interval of the difference."""
    ahead, margin = run.evaluate.get("ahead", {}).get(run.compared, {}), run.params.evaluate.equivalence_margin
    if "average_precision_low" not in ahead:
        return "unknown"
    low, high = ahead["average_precision_low"], ahead["average_precision_high"]
    if -margin < low and high < margin:
        return "equal"
    return "ahead" if low > 0 else "behind" if high < 0 else "not shown"


def headline(run: Run) -> Words:
    words = HEADLINES[standing(run)]
    margin = f"{run.params.evaluate.equivalence_margin:g}"
    return say(*words, system=label(run.compared), cheap=label(run.best_cheap), margin=margin)


def sentences(run: Run) -> list[Words]:
    """What follows the headline, the most important first."""
    parts = (comparison, advice, decisions, rarity, promise, kinds, leaks, shortcut, cut, dearer, elsewhere)
    return [words for part in parts for words in part(run)]


def comparison(run: Run) -> list[Words]:
    """By how much, and how sure."""
    system, cheap = (run.evaluate[name] for name in (run.compared, run.best_cheap))
    ahead = run.evaluate.get("ahead", {}).get(run.compared, {})
    if "average_precision" not in ahead:
        return []
    return [
        say(
            "平均精确率：{system} {own}，{cheap} {other}。差值 {less}{interval}。",
            "Average precision: {system} {own}, {cheap} {other}. The difference is {less}{interval}.",
            system=label(run.compared),
            cheap=label(run.best_cheap),
            own=f"{system['average_precision']:.3f}",
            other=f"{cheap['average_precision']:.3f}",
            less=signed(ahead["average_precision"]),
            interval=interval_of(ahead, "average_precision", 3, 1),
        )
    ]


def advice(run: Run) -> list[Words]:
    found = [say(*ADVICE[standing(run)], name=run.best_cheap)]
    if run.used != run.compared:
        found.append(say("predict 现用的系统是{used}。", "predict uses another system: {used}.", used=label(run.used)))
    return found


def decisions(run: Run) -> list[Words]:
    """What is found and flagged at the threshold of the system in use."""
    block = run.evaluate[run.used]
    at = f"{block['threshold']:.3f}" if block.get("threshold") is not None else "–"
    found = []
    if block["tp"] + block["fn"]:
        found.append(
            say(
                "阈值 {at} 时，{used}找出 {recall} 的诈骗文本{interval}。",
                "At its threshold of {at}, the {used} finds {recall} of the fraud{interval}.",
                at=at,
                used=label(run.used),
                recall=percent(block["recall"]),
                interval=interval_of(block, "recall"),
            )
        )
    if block["fp"] + block["tn"]:
        found.append(
            say(
                "每 1,000 条正常文本中误报 {alarms} 条{interval}。",
                "Of 1,000 harmless texts it flags {alarms}{interval}.",
                alarms=count(block["false_alarms_per_1000"]),
                interval=interval_of(block, "false_alarms_per_1000", 0, 1),
            )
        )
    return found


def promise(run: Run) -> list[Words]:
    """Whether the threshold keeps on test what it promised on valid."""
    promised, kept = run.evaluate.get("promised") or {}, run.evaluate.get("kept", {}).get("test")
    if not kept or promised.get("precision") is None:
        return []
    return [
        say(
            "验证集给出的承诺：精确率 {precision}，召回率 {recall}。测试集实得：{kept_precision}，{kept_recall}。",
            "Valid promised precision {precision} and recall {recall}. Test gives {kept_precision} and {kept_recall}.",
            precision=percent(promised["precision"]),
            recall=percent(promised["recall"]),
            kept_precision=percent(kept["precision"]),
            kept_recall=percent(kept["recall"]),
        )
    ]


def rarity(run: Run) -> list[Words]:
    """Of 100 alarms how many are right, here and where fraud is rare."""
    block = run.evaluate[run.used]
    if not (block["tp"] + block["fn"] and block["fp"] + block["tn"]) or not block["tp"] + block["fp"]:
        return []
    hits, false = RARE * block["recall"], (1 - RARE) * block["false_alarms_per_1000"] / 1000
    return [
        say(
            "测试集中 {share} 是诈骗，告警有 {here} 属实。若 100 条中只有 1 条诈骗，属实的告警只占 {rare}。",
            "In test {share} of the texts are fraud, and {here} of the alarms are right. "
            "Where 1 of 100 texts is fraud, {rare} would be.",
            share=percent(run.evaluate["size"]["fraud_fraction"], 0),
            here=percent(block["precision"]),
            rare=percent(hits / (hits + false)),
        )
    ]


def kinds(run: Run) -> list[Words]:
    """Which fraud is missed most, and which harmless kind is flagged most."""
    found, labels = [], run.labels
    if missed := outstanding(by_kind(run, categories(run), labels), most=False):
        found.append(
            say(
                "漏掉最多的诈骗类别是“{name}”：{rows} 条中找出 {hits} 条（{interval}）。",
                "The kind of fraud missed most is “{name}”: {hits} of {rows} are found ({interval}).",
                name=short(plain(missed.name), MOST_NAME),
                rows=count(missed.rows),
                hits=count(missed.happened),
                interval=span(missed.low, missed.high),
            )
        )
    harmless = by_kind(run, categories(run), ~labels)
    if len(harmless) < 2:  # one kind says nothing
        harmless = by_kind(run, files(run), ~labels)
    if flagged := outstanding(harmless, most=True):
        found.append(
            say(
                "误报最多的正常类别是“{name}”：{rows} 条中误报 {hits} 条（{interval}）。",
                "The harmless kind flagged most is “{name}”: {hits} of {rows} are flagged ({interval}).",
                name=short(plain(flagged.name), MOST_NAME),
                rows=count(flagged.rows),
                hits=count(flagged.happened),
                interval=span(flagged.low, flagged.high),
            )
        )
    return found


def leaks(run: Run) -> list[Words]:
    """How many rows of test training has seen, and what that changes."""
    rows, leaking = len(run.test), sum(bool(row.leak) for row in run.test)
    if not leaking:
        return [
            Words(
                "没有泄漏：测试集的文本都没有在训练集或验证集中出现。",
                "Nothing leaks: no text of test appears in train or valid.",
            )
        ]
    share = {"leaking": count(leaking), "rows": count(rows), "percent": percent(leaking / rows)}
    found = [
        say(
            "有泄漏：测试集 {rows} 条中有 {leaking} 条（{percent}）在训练集或验证集中出现过。",
            "Leaks: {leaking} of {rows} texts of test ({percent}) appear in train or valid.",
            **share,
        )
    ]
    clean = run.evaluate.get("clean", {}).get(run.compared, {})
    if "average_precision" in clean:
        found.append(
            say(
                "去掉这些文本，平均精确率为 {clean}，不是 {all}。",
                "Without them the average precision is {clean}, not {all}.",
                clean=f"{clean['average_precision']:.3f}",
                all=f"{run.evaluate[run.compared]['average_precision']:.3f}",
            )
        )
    return found


def shortcut(run: Run) -> list[Words]:
    """The single feature that gives the label away best."""
    shortcuts = run.data.get("shortcuts") or {}
    first = shortcuts.get("first")
    if not first:
        return []
    strong = first["of_the_way"] >= run.params.prepare.shortcut_warning
    return [
        say(
            "最强的捷径是单个特征“{name}”（{when}时判为诈骗）：验证集 F1 为 {f1}，全部判为诈骗为 {always}。{strong}",
            "The strongest shortcut is “{name}” (fraud if {when}): F1 {f1} on valid, where calling everything fraud "
            "has {always}. {strong}",
            name=Words(*(short(plain(name), MOST_NAME + 20) for name in feature(first["feature"]))),
            when=WHEN[first["fraud_if"]],
            f1=f"{first['f1']:.3f}",
            always=f"{shortcuts['always_fraud_f1']:.3f}",
            strong=Words(
                "这个捷径很强，结果可能只反映了它。", "That is a strong one: the figures may reflect it alone."
            )
            if strong
            else Words("这个捷径很弱。", "That is a weak one."),
        )
    ]


def cut(run: Run) -> list[Words]:
    """How many texts are longer than the model reads."""
    train, size = run.train["facts"], run.evaluate["size"]
    return [
        say(
            "超过 {most} 个词元而被截断的文本：测试集 {rows} 条中 {test} 条，训练集 {train_rows} 条中 {train} 条。",
            "Texts cut at {most} tokens: {test} of {rows} in test, {train} of {train_rows} in train.",
            most=count(run.record["prompt"]["max_length"]),
            test=count(size["rows_truncated"] or 0),
            rows=count(size["rows"]),
            train=count(train["rows_truncated"]),
            train_rows=count(train["rows"]),
        )
    ]


def dearer(run: Run) -> list[Words]:
    """What a dear false alarm would change."""
    every, share = points(run, run.used), run.evaluate["size"]["fraud_fraction"]
    if not every or not 0 < share < 1:
        return []
    best = cheapest(run, every, share, DEARER, 1)
    own = next(point for point in every if point.threshold == run.evaluate[run.used]["threshold"])
    now, then = (costs(run, point, share, DEARER, 1) for point in (own, best))
    fraud, harmless = int(run.labels.sum()), len(run.test) - int(run.labels.sum())
    at = "> 1" if best.threshold > 1 else f"{best.threshold:.3f}"
    return [
        say(
            "若一次误报的代价是一次漏报的 5 倍，阈值宜改为 {at}：找出 {recall} 的诈骗，"
            "每 1,000 条正常文本误报 {alarms} 条，"
            "每 1,000 条的成本从 {now} 降到 {then}。该阈值选自测试集，略偏乐观。",
            "If a false alarm cost five times as much as a miss, {at} would be the threshold: {recall} of the fraud "
            "found, {alarms} of 1,000 harmless texts flagged, cost per 1,000 texts {then} instead of {now}. "
            "It is chosen on test, which flatters it slightly.",
            at=at,
            recall=percent(best.tp / fraud),
            alarms=count(1000 * best.fp / harmless),
            now=count(now.cost),
            then=count(then.cost),
        )
    ]


def elsewhere(run: Run) -> list[Words]:
    """What becomes of the threshold on each further set."""
    found = []
    for name, block in sorted(run.evaluate.get("further", {}).items()):
        own = block[run.used]
        shifted = [key for key, each in block.get("shift", {}).items() if isinstance(each, dict) and each["shifted"]]
        found.append(
            say(
                "在“{name}”上（{rows} 条）：召回率 {recall}，每 1,000 条正常文本误报 {alarms} 条。{unlike}",
                "On “{name}” ({rows} texts): recall {recall}, {alarms} of 1,000 harmless texts flagged.{unlike}",
                name=short(plain(name), MOST_NAME),
                rows=count(block["size"]["rows"]),
                recall=percent(own["recall"]) if own.get("recall") is not None else "–",
                alarms=count(own["false_alarms_per_1000"]) if own.get("false_alarms_per_1000") is not None else "–",
                unlike=say("与验证集不同：{how}。", " Unlike valid in {how}.", how=", ".join(shifted))
                if shifted
                else Words("", ""),
            )
        )
    return found
