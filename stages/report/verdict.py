"""The verdict in plain sentences: is the model better, by how much, how sure, and what does its threshold do."""

from typing import Any, Literal

from stages.report.read import Run, figure
from stages.report.words import Words, count, interval_of, label, percent, say, signed

Standing = Literal["ahead", "behind", "equal", "not shown", "unknown"]

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
    "behind": Words("这样训练出的模型不值得使用。", "Trained like this, the model does not pay."),
    "equal": Words("廉价系统成本更低，效果相当。", "The cheap system costs less and does as well."),
    "not shown": Words(
        "这个测试集看不出训练带来的好处，而廉价系统成本更低。更多的测试文本会缩小区间。",
        "This test set shows no gain from training, and the cheap system costs less. "
        "More test texts narrow the interval.",
    ),
    "unknown": Words(
        "请使用更大、含两个类别的测试集，并设 evaluate.mode 为 score。",
        "Use a larger test set with both classes, and evaluate.mode: score.",
    ),
}


def standing(ahead: dict[str, float], margin: float) -> Standing:
    """Where one system stands against another, by the interval of their difference in average precision.

    ahead: their differences with intervals. margin: differences within it count as none.
    """
    if "average_precision_low" not in ahead:
        return "unknown"
    low, high = ahead["average_precision_low"], ahead["average_precision_high"]
    if -margin < low and high < margin:
        return "equal"
    return "ahead" if low > 0 else "behind" if high < 0 else "not shown"


def ahead_of(run: Run) -> dict[str, float]:
    """The compared system minus the best cheap one."""
    return run.evaluate.get("ahead", {}).get(run.compared, {})


def standing_of(run: Run) -> Standing:
    """Where the compared system stands against the best cheap one."""
    return standing(ahead_of(run), run.params.evaluate.equivalence_margin)


def headline(run: Run) -> Words:
    words = HEADLINES[standing_of(run)]
    margin = f"{run.params.evaluate.equivalence_margin:g}"
    return say(*words, system=label(run.compared), cheap=label(run.best_cheap), margin=margin)


def sentences(run: Run) -> list[Words]:
    """What follows the headline, the most important first."""
    parts = advice(run)
    joined = Words("".join(part.zh for part in parts), " ".join(part.en for part in parts))
    return [*comparison(run), *decisions(run), joined]


def comparison(run: Run) -> list[Words]:
    """By how much, and how sure."""
    ahead = ahead_of(run)
    if "average_precision" not in ahead:
        return []
    return [
        say(
            "平均精确率：{system} {own}，{cheap} {other}。差值 {less}{interval}。",
            "Average precision: {system} {own}, {cheap} {other}. The difference is {less}{interval}.",
            system=label(run.compared),
            cheap=label(run.best_cheap),
            own=f"{run.evaluate[run.compared]['average_precision']:.3f}",
            other=f"{run.evaluate[run.best_cheap]['average_precision']:.3f}",
            less=signed(ahead["average_precision"]),
            interval=interval_of(ahead, "average_precision", "."),
        )
    ]


def decisions(run: Run) -> list[Words]:
    """What the system in use finds and flags at its threshold."""
    block = run.evaluate[run.used]
    found, flagged = figure(block, "recall"), figure(block, "false_alarms_per_1000")
    parts = []
    if found is not None:
        share: dict[str, str | Words] = {"recall": percent(found), "interval": interval_of(block, "recall")}
        parts.append(say("找出 {recall} 的诈骗文本{interval}", "finds {recall} of the fraud{interval}", **share))
    if flagged is not None:
        alarms: dict[str, str | Words] = {
            "alarms": count(flagged),
            "interval": interval_of(block, "false_alarms_per_1000", ""),
        }
        parts.append(
            say(
                "每 1,000 条正常文本误报 {alarms} 条{interval}",
                "flags {alarms} of 1,000 harmless texts{interval}",
                **alarms,
            )
        )
    return [
        say(
            "{at}{used}{what}。",
            "{at}he {used} {what}.",
            at=threshold_words(block),
            used=label(run.used),
            what=Words("，".join(part.zh for part in parts), " and ".join(part.en for part in parts)),
        )
    ]


def threshold_words(block: dict[str, Any]) -> Words:
    """The start of a sentence about decisions. Written answers have no threshold, nor has a test of one class."""
    if block.get("threshold") is None:
        return Words("", "T")
    return say("阈值 {at} 时，", "At its threshold of {at}, t", at=f"{block['threshold']:.3f}")


def advice(run: Run) -> list[Words]:
    """What to do, and which system predict uses if it is not the one that the headline is about."""
    kind, chosen = standing_of(run), run.select["system"]
    found = [ADVICE[kind]]
    if chosen != run.compared:
        found.append(say("predict 现用的系统是{used}。", "predict uses another system: {used}.", used=label(chosen)))
    elif kind in ("behind", "equal", "not shown"):
        found.append(
            say(
                "要改用廉价系统，请把 select.system 设为 {name}，再运行 dvc repro。",
                "To use the cheap system, set select.system to {name} and run dvc repro.",
                name=run.best_cheap,
            )
        )
    if chosen != run.used:
        found.append(
            say(
                "它在这里没有分数，以下是{judged}的数字。",
                "It has no scores here: what follows is of the {judged}.",
                judged=label(run.used),
            )
        )
    return found
