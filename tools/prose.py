"""How long the sentences of the pages are: median, and the share above 40 words.

python -m tools.prose [PAGE...]    (default: README*.md and docs/*.md)

Exits with 1 where an English page is above a bar. Tables, code, headings, pictures and comments don't count. A list
item is a sentence of its own, and so is a paragraph's last line without a full stop. Inline code is one word.
"""

import argparse
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MEDIAN, LONG, SHARE = 17, 40, 0.05  # words, words, share of sentences longer than LONG

NO_PROSE = (
    re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL),  # fenced code
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"^[ \t]*\|.*$", re.MULTILINE),  # tables
    re.compile(r"^#+ .*$", re.MULTILINE),  # headings
    re.compile(r"^ {0,3}(-{3,}|\*{3,})[ \t]*$", re.MULTILINE),  # rules
    re.compile(r"!\[[^\]]*\]\([^)]*\)"),  # pictures
)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])")
TAG = re.compile(r"</?[a-zA-Z][^>]*>")
ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]+|^[ \t]*>[ \t]?", re.MULTILINE)
END = re.compile(r"(?<=[.!?])[*_\")\]]*\s+(?=[*_\"(\[]*[A-Z0-9`])")
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|approx)\.")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def paragraphs(page: str) -> list[str]:
    """The prose of a page: its paragraphs and list items, without marks."""
    for pattern in NO_PROSE:
        page = pattern.sub("\n\n", page)
    page = CODE.sub("CODE", page)  # before list items: code may begin with a dash
    page = TAG.sub(" ", LINK.sub(r"\1", page))
    page = ITEM.sub("\n\n", page)
    return [" ".join(part.split()) for part in re.split(r"\n[ \t]*\n", page) if re.search(r"\w", part)]


def sentences(page: str) -> list[str]:
    """The sentences of a page.

    >>> sentences("# Title\\n\\nOne `a b`. Two of them:\\n\\n- torch 2.11 is\\n  here\\n- b\\n\\n| no | prose |\\n")
    ['One CODE.', 'Two of them:', 'torch 2.11 is here', 'b']
    """
    whole = [ABBREVIATION.sub(r"\1", paragraph) for paragraph in paragraphs(page)]
    return [sentence for paragraph in whole for sentence in END.split(paragraph) if re.search(r"\w", sentence)]


def words(sentence: str) -> int:
    """Words of a sentence: what spaces part and has a letter or a digit."""
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def is_english(page: str) -> bool:
    """Whether fewer than a tenth of a page's prose is Chinese."""
    text = "".join(paragraphs(page))
    return len(CHINESE.findall(text)) * 10 < len(text)


def figures(page: str) -> tuple[float, float, int]:
    """Median of the sentences' words, share of sentences above LONG words, and the number of sentences."""
    lengths = [words(sentence) for sentence in sentences(page)] or [0]
    return statistics.median(lengths), sum(length > LONG for length in lengths) / len(lengths), len(lengths)


def is_within(median: float, share: float) -> bool:
    return median <= MEDIAN and share <= SHARE


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("README*.md")), *sorted(ROOT.glob("docs/*.md"))]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.prose", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="default: README*.md and docs/*.md")
    parser.add_argument("--long", action="store_true", help=f"also print the sentences above {LONG} words")
    options = parser.parse_args()
    texts = {path: path.read_text(encoding="utf-8") for path in options.pages or pages()}
    english = {path: text for path, text in texts.items() if is_english(text)}
    found = {str(path): figures(text) for path, text in english.items()}
    found["in all"] = figures("\n\n".join(english.values()))
    print(f"{'page':42} median  over {LONG}  sentences")
    for name, (median, share, number) in found.items():
        mark = "" if is_within(median, share) else f"  above {MEDIAN} words or {SHARE:.0%}"
        print(f"{name.removeprefix(f'{ROOT}/'):42} {median:6.1f} {share:8.1%} {number:10}{mark}")
    for path in texts.keys() - english.keys():
        print(f"{str(path).removeprefix(f'{ROOT}/'):42} no English: not measured")
    if options.long:
        for text in english.values():
            print(*(f"\n{words(each)}: {each}" for each in sentences(text) if words(each) > LONG), sep="")
    sys.exit(not all(is_within(median, share) for median, share, _ in found.values()))


if __name__ == "__main__":
    main()
