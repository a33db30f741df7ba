"""Search in Chinese text, offline: each two neighbouring characters are a word.

A dictionary's words are not those that readers type, and the browser would need the dictionary,
too. Pairs of characters are found whatever words they belong to, by the same rule on both sides.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.search import languages
from sphinx.search.en import SearchEnglish

_RUNS = re.compile(r"[㐀-鿿]+|[^\W㐀-鿿]+")

_SPLITTER = """
var splitQuery = (query) =>
  (query.match(/[\\u3400-\\u9fff]+|[\\p{L}\\p{N}_]+/gu) || []).flatMap((run) =>
    /^[\\u3400-\\u9fff]{3,}$/.test(run)
      ? Array.from({ length: run.length - 1 }, (_, at) => run.slice(at, at + 2))
      : [run]);
"""


class SearchChinesePairs(SearchEnglish):
    """Pairs of Chinese characters, and single ones; English words as in English text."""

    lang = "zh-bigrams"
    language_name = "English"  # of the stemmer
    js_splitter_code = _SPLITTER

    def split(self, input: str) -> list[str]:
        words = []
        for run in _RUNS.findall(input):
            if "㐀" <= run[0] <= "鿿":
                words += [*run, *(run[at : at + 2] for at in range(len(run) - 1))]
            else:
                words.append(run)
        return words


def setup(app: Sphinx) -> dict[str, Any]:
    languages[SearchChinesePairs.lang] = SearchChinesePairs
    return {"parallel_read_safe": True}
