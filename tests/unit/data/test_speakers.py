"""Names in front of lines."""

import pytest

from stages.data.speakers import remove_speakers


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("发言人3: 您好。\n王某：好的", "您好。\n好的"),
        ("Agent A: yes: no", "yes: no"),
        ("请打开 https://a.cn", "请打开 https://a.cn"),
        ("https://a.cn", "https://a.cn"),
        ("您好，价格: 5 元", "您好，价格: 5 元"),
        ("王某:", "王某:"),
        ("没有名字", "没有名字"),
    ],
)
def test_names_in_front_of_lines_are_removed(text, without):
    assert remove_speakers(text) == without
