"""A feature that gives the label away is found."""

import random
from dataclasses import replace

from stages.data.speakers import remove_speakers
from stages.prepare.shortcuts import find_shortcuts
from stages.text.example import Example


def test_a_planted_shortcut_comes_first_and_removing_speakers_removes_it():
    rng = random.Random(0)

    def text(label):
        said = "".join(rng.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张", k=rng.randint(10, 40)))
        return f"{'王某' if label or rng.random() < 0.1 else '发言人' + str(rng.randint(1, 9))}: {said}"

    rows = [Example(text(n % 2 == 0), n % 2 == 0) for n in range(600)]
    first = find_shortcuts(rows[:400], rows[400:])[0]
    assert "发言人" in first.feature or "王某" in first.feature
    assert first.f1 > 0.9
    bare = [replace(row, input=remove_speakers(row.input)) for row in rows]
    assert find_shortcuts(bare[:400], bare[400:])[0].f1 < 0.75
