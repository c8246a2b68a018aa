"""The verdict in plain sentences: use the model or not, by how much, how sure, and what do the thresholds do."""

from typing import Any, Literal

from stages.report.rates import Point, costs, is_few
from stages.report.read import Run, figure
from stages.report.words import Words, count, interval_of, label, percent, say, signed

Standing = Literal["ahead", "behind", "equal", "not shown", "unknown"]

RARE = 0.01  # a share of fraud as in daily traffic

HEADLINES: dict[Standing, Words] = {
    "ahead": Words("请使用{system}。", "Use the {system}."),
    "behind": Words("不要上线{system}：{cheap}更好。", "Do not ship the {system}: {cheap} is better."),
    "equal": Words("一个廉价系统就一样好：{cheap}。", "A cheap system does as well: {cheap}."),
    "not shown": Words(
        "就这个测试集看，一个廉价系统就一样好：{cheap}。",
        "As far as this test can show, a cheap system does as well: {cheap}.",
    ),
    "unknown": Words("无法判断是否该上线{system}。", "It is not known whether to ship the {system}."),
}
STANDINGS: dict[Standing, Words] = {
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
    "equal": Words("廉价系统成本更低。", "The cheap system costs less."),
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
    """Whether to use the model, by rule."""
    return in_words(run, HEADLINES)


def in_words(run: Run, words: dict[Standing, Words]) -> Words:
    margin = f"{run.params.evaluate.equivalence_margin:g}"
    return say(*words[standing_of(run)], system=label(run.compared), cheap=label(run.best_cheap), margin=margin)


def sentences(run: Run) -> list[Words]:
    """What follows the headline, the most important first."""
    return [joined([in_words(run, STANDINGS), *comparison(run)]), *decisions(run), joined(advice(run))]


def joined(parts: list[Words]) -> Words:
    """Sentences as one paragraph."""
    return Words("".join(part.zh for part in parts), " ".join(part.en for part in parts))


def comparison(run: Run) -> list[Words]:
    """By how much, and how sure."""
    ahead = ahead_of(run)
    if "average_precision" not in ahead:
        return []
    own, other = (f"{run.evaluate[name]['average_precision']:.3f}" for name in (run.compared, run.best_cheap))
    less = signed(ahead["average_precision"])
    agrees = less == signed(float(own) - float(other))
    return [
        say(
            "平均精确率：{system} {own}，{cheap} {other}。差值 {less}{interval}{rounded}。",
            "Average precision: {system} {own}, {cheap} {other}. The difference is {less}{interval}{rounded}.",
            system=label(run.compared),
            cheap=label(run.best_cheap),
            own=own,
            other=other,
            less=less,
            interval=interval_of(ahead, "average_precision", "."),
            rounded=Words("", "") if agrees else Words("，按未取整的数字计算", ", from the figures before rounding"),
        )
    ]


def decisions(run: Run) -> list[Words]:
    """What the system in use and the best cheap one find and flag at their thresholds."""
    return [decided(run, system) for system in dict.fromkeys((run.used, run.best_cheap))]


def decided(run: Run, system: str) -> Words:
    """What a system does at its threshold, and how many of its alarms are right where fraud is rare."""
    block = run.evaluate[system]
    return say(
        "{at}{system}{does}。{rare}",
        "{at}he {system} {does}.{rare}",
        at=threshold_words(block),
        system=label(system),
        does=does(block),
        rare=rarity(run, block),
    )


def does(block: dict[str, Any]) -> Words:
    """The shares that a system finds and flags, with their intervals. block: its figures."""
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
    return Words("，".join(part.zh for part in parts), " and ".join(part.en for part in parts))


def rarity(run: Run, block: dict[str, Any]) -> Words:
    """How many alarms are right where fraud is rare; empty where test is as rare, or has a single class.

    block: a system's figures.
    """
    if not RARE < run.evaluate["size"]["fraud_fraction"] < 1 or not block["tp"] + block["fp"]:
        return Words("", "")
    point = Point(0.0, block["tp"], block["fp"])  # its threshold does not matter here
    return say(
        "若 100 条中只有 1 条诈骗，其告警{least} {right} 属实。",
        " Where 1 text in 100 is fraud, {least}{right} of its alarms are right.",
        least=Words("至少", "at least ") if is_few(point) else Words("有", ""),
        right=percent(costs(run, point, RARE, 1, 1, bound=True).right),
    )


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
