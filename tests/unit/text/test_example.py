"""Examples and their files."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.text.example import Example, read_examples, write_examples


@given(st.lists(st.builds(Example, input=st.text(min_size=1), label=st.booleans(), group=st.text()), max_size=5))
@settings(max_examples=100, deadline=None)
def test_examples_survive_their_file(tmp_path_factory, examples):
    file = tmp_path_factory.mktemp("examples") / "rows.jsonl"
    write_examples(file, examples)
    assert read_examples(file) == examples
