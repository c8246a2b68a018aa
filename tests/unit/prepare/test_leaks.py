"""Each kind of leak between sets is marked and listed."""

from stages.prepare.leaks import find_leaks
from stages.text.example import Example
from tests.unit.prepare.tables import PREPARE

LONG = "您好，这里是某银行客服中心，您的账户出现异常，请按照提示完成验证操作，否则将被冻结。"


def test_each_kind_of_leak_is_marked_and_listed():
    sets = {
        "train": [
            Example(LONG, True, source="a:1"),
            Example("完全不相干的一段文字，说的是天气和吃饭。", False, source="a:2"),
        ],
        "valid": [
            Example(f" {LONG}\n", True, source="b:1"),
            Example("另外一件事情，和前面的都没有关系。", False, source="b:2"),
        ],
        "test": [
            Example(LONG.replace("冻结", "注销"), True, source="c:1"),
            Example(LONG[:30], True, source="c:2"),
            Example("另外一件事情，和前面的都没有关系。", False, source="c:3"),
            Example("只在这里出现的句子，没有别的。", False, source="c:4"),
        ],
    }
    marked, leaks = find_leaks(sets, PREPARE)
    assert [e.leak for e in marked["train"]] == ["", ""]
    assert [e.leak for e in marked["valid"]] == ["verbatim", ""]
    assert [e.leak for e in marked["test"]] == ["near", "contained", "verbatim", ""]
    listed = {(leak.source, leak.kind, leak.other_set, leak.other_source) for leak in leaks}
    assert {("b:1", "verbatim", "train", "a:1"), ("c:2", "contained", "train", "a:1")} <= listed
    assert ("c:3", "verbatim", "valid", "b:2") in listed
    further = {"further": [Example("".join(e.input for rows in sets.values() for e in rows), True, source="d:1")]}
    again, _ = find_leaks(sets | further, PREPARE)
    assert {name: again[name] for name in sets} == marked  # no unit hangs on what another set holds
    assert {e.unit for e in marked["train"]}.isdisjoint(e.unit for e in marked["test"])


def test_a_case_in_both_train_and_valid_leaks():
    sets = {
        "train": [Example("甲乙丙丁戊己", True, group="a", source="x:1")],
        "valid": [Example("子丑寅卯辰巳", True, group="a", source="y:1")],
        "test": [Example("天地玄黄宇宙", True, group="b", source="z:1")],
        "further": [Example("日月盈昃辰宿", True, group="a", source="w:1")],
    }
    marked, leaks = find_leaks(sets, PREPARE)
    assert [(leak.source, leak.kind, leak.other_source) for leak in leaks] == [("y:1", "case", "x:1")]
    assert marked["valid"][0].leak == "case"
    assert marked["further"][0].leak == ""  # another file's case of that name is another case
