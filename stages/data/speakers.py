"""Names of speakers in front of what they say.

In collected dialogues they give the label away: the tag of a transcriber appears in meetings only, 骗子 (swindler) and
受害者 (victim) in frauds only.
"""

import re

# The start of a line up to the first colon, short and without other punctuation: 发言人3:  王某：  Agent A:
SPEAKER = re.compile(
    r"^[ \t]*[^\s:：,，。.!！?？;；、【】\[\]][^:：\n,，。.!！?？;；、【】\[\]]{0,15}[:：](?!//)[ \t]*", re.MULTILINE
)


def remove_speakers(text: str) -> str:
    """The text without the name in front of each line. A text of names only stays as it is."""
    without = SPEAKER.sub("", text)
    return without if without.strip() else text
