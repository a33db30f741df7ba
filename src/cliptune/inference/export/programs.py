"""The programs that go into exported folders, each one file that needs nothing of this package.

Where photos show any number of the classes, the class `Exported` of `label_runner` or
`label_classify` stands in the file behind the one that it is made from.
"""

from __future__ import annotations

from pathlib import Path

_OF_ONE, _OF_SEVERAL = "class Exported:", "class Exported(OneLabel):"
_MAIN = 'if __name__ == "__main__":'


def program(name: str, *, several: bool) -> str:
    """The text of `name`, which is runner.py or classify.py; `several`: labels to a photo."""
    text = _text(name)
    if not several:
        return text
    of_one, main, call = text.replace(_OF_ONE, "class OneLabel:").partition(_MAIN)
    _, start, added = _text(f"label_{name}").partition(_OF_SEVERAL)
    assert main
    assert start
    return f"{of_one}{start}{added}\n\n{main}{call}"


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
