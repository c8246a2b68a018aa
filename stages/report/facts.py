"""What else to know before the figures are trusted, as sentences, each under a few words that say what it answers."""

from stages.report.rates import Rate, by_kind, categories, cheapest, costs, files, outstanding, points
from stages.report.read import Run, figure
from stages.report.words import WHEN, Words, count, feature, label, percent, plain, say, short, span

Fact = tuple[Words, Words]  # what it answers, and the answer
RARE = 0.01  # a share of fraud as in daily traffic
DEARER = 5.0
MOST_NAME = 30  # characters of a name from the data
SHIFTED = {
    "length": Words("长度", "length"),
    "vocabulary": Words("用词", "vocabulary"),
    "script": Words("文字", "script"),
    "score": Words("分数", "score"),
}


def facts(run: Run) -> list[Fact]:
    """All that these figures can tell, in the order in which a reader asks."""
    parts = (rarity, dearer, promise, missed, flagged, leaks, shortcut, cut, elsewhere, made_from)
    return [fact for part in parts for fact in part(run)]


def rarity(run: Run) -> list[Fact]:
    """How many alarms are right, here and where fraud is rare."""
    block, share = run.evaluate[run.used], run.evaluate["size"]["fraud_fraction"]
    right, false = figure(block, "precision"), figure(block, "false_alarms_per_1000")
    if right is None or false is None or not RARE < share < 1:
        return []
    hits, others = RARE * block["recall"], (1 - RARE) * false / 1000
    return [
        (
            Words("告警属实", "Alarms that are right"),
            say(
                "测试集中 {share} 是诈骗，告警有 {here} 属实。若 100 条中只有 1 条诈骗，属实的告警只占 {rare}。",
                "{here} in test, where {share} of the texts are fraud. Where 1 text in 100 is fraud, only {rare} would "
                "be right.",
                share=percent(share, 0),
                here=percent(right),
                rare=percent(hits / (hits + others)),
            ),
        )
    ]


def dearer(run: Run) -> list[Fact]:
    """What a dear false alarm would change."""
    every, share = points(run, run.used), run.evaluate["size"]["fraud_fraction"]
    if not every or not 0 < share < 1:
        return []
    best = cheapest(run, every, share, DEARER, 1)
    own = next(point for point in every if point.threshold == run.evaluate[run.used]["threshold"])
    now, then = (costs(run, point, share, DEARER, 1) for point in (own, best))
    fraud, harmless = int(run.labels.sum()), int((~run.labels).sum())
    return [
        (
            Words("若一次误报相当于 5 次漏报", "If a false alarm cost 5 misses"),
            say(
                "阈值宜为 {at}：找出 {recall} 的诈骗，每 1,000 条正常文本误报 {alarms} 条。"
                "每 1,000 条文本的代价从 {now} 次漏报降到 {then} 次。该阈值选自测试集，略偏乐观。",
                "The best threshold would be {at}: {recall} of the fraud found, {alarms} of 1,000 harmless "
                "texts flagged. 1,000 texts would then cost as much as {then} misses instead of {now}. "
                "It is chosen on test, which flatters it slightly.",
                at="> 1" if best.threshold > 1 else f"{best.threshold:.3f}",
                recall=percent(best.tp / fraud),
                alarms=count(1000 * best.fp / harmless),
                now=count(now.cost),
                then=count(then.cost),
            ),
        )
    ]


def promise(run: Run) -> list[Fact]:
    """Whether the threshold keeps on test what it promised on valid."""
    promised, kept = run.evaluate.get("promised") or {}, run.evaluate.get("kept", {}).get("test")
    if not kept or promised.get("precision") is None:
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
    """What becomes of the threshold on each further set."""
    found = []
    for name, block in sorted(run.evaluate.get("further", {}).items()):
        own = block[run.used]
        recall, alarms = figure(own, "recall"), figure(own, "false_alarms_per_1000")
        shifted = [key for key, each in block.get("shift", {}).items() if isinstance(each, dict) and each["shifted"]]
        kinds = [SHIFTED.get(key, Words(key, key)) for key in shifted]
        how = Words("、".join(kind.zh for kind in kinds), ", ".join(kind.en for kind in kinds))
        title = short(plain(name), MOST_NAME)
        words = say(
            "{rows} 条：召回率 {recall}，每 1,000 条正常文本误报 {alarms} 条。{unlike}",
            "{rows} texts: recall {recall}, {alarms} of 1,000 harmless texts flagged.{unlike}",
            rows=count(block["size"]["rows"]),
            recall="–" if recall is None else percent(recall),
            alarms="–" if alarms is None else count(alarms),
            unlike=say("与验证集不同：{how}。", " Unlike valid in {how}.", how=how) if shifted else Words("", ""),
        )
        found.append((say("数据集“{name}”", "On “{name}”", name=title), words))
    return found


def made_from(run: Run) -> list[Fact]:
    """Data, model and method; the hashes and all params stand at the end of the page."""
    base = run.record["base"]
    return [
        (
            Words("来历", "Made from"),
            say(
                "数据集 {data}，基础模型 {base}，方法 {method}。哈希与参数见页末。",
                "Data set {data}, base model {base}, method {method}. Hashes and parameters stand at the end.",
                data=run.params.dataset_name,
                base=base["id"],
                method=run.record["method_name"],
            ),
        )
    ]
