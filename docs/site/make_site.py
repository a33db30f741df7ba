"""`make docs`: the English and the Chinese site side by side under build/docs, warnings as errors.

Texts live in `docs/` as pairs, `page.md` and `page.zh-CN.md`, so that they read and link the same
where the repository is browsed. For each language the builder lays out one tree with the pages of
that language under the same names, and hands it to Sphinx. What has no pair (the measured results,
CHANGELOG.md, ...) stands in both trees as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = {"en": "English", "zh": "简体中文"}
ZH = ".zh-CN.md"

# The tutorial's two chapters keep their places in Chinese; on the site they stand with their twins.
CHAPTERS = {
    "docs/02-模型微调技术/01-微调理论基础.md": "docs/tutorial/01-foundations.md",
    "docs/02-模型微调技术/02-LoRA微调实践.md": "docs/tutorial/02-lora-in-practice.md",
}
# Beside docs/: pages, and files that pages link to.
PAGES = ("benchmarks/results.md", "benchmarks/results/*.md", "CHANGELOG.md", "CONTRIBUTING.md",
         "SECURITY.md", "CODE_OF_CONDUCT.md")  # fmt: skip
FILES = ("deploy/**/*", "code/**/*.yaml", "benchmarks/results/*.json", "LICENSE")

GO_THERE = """<!doctype html>
<meta charset="utf-8">
<title>cliptune</title>
<meta http-equiv="refresh" content="0; url=en/docs/index.html">
<script>
  const zh = navigator.languages.concat(["en"]).find((each) => /^(en|zh)/.test(each));
  location.replace((zh.startsWith("zh") ? "zh" : "en") + "/docs/index.html");
</script>
<a href="en/docs/index.html">English</a> · <a href="zh/docs/index.html">简体中文</a>
"""


def pages_of(language: str) -> dict[str, Path]:
    """Each page's place on the site, and the file with its text in `language` ("en" or "zh")."""
    pages = {str(path.relative_to(ROOT)): path for part in PAGES for path in ROOT.glob(part)}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        name = path.relative_to(ROOT).as_posix()
        if name in CHAPTERS:
            if language == "zh":
                pages[CHAPTERS[name]] = path
        elif name.endswith(ZH):
            if language == "zh":
                pages[name.removesuffix(ZH) + ".md"] = path
        elif name not in CHAPTERS.values() or language == "en":
            pages.setdefault(name, path)
    return pages


def with_site_names(text: str) -> str:
    """`text` with its links to Chinese pages as they are called on the site."""
    text = re.sub(r"(\]\([^)\s]*?)\.zh-CN\.md", r"\1.md", text)
    for source, place in CHAPTERS.items():
        folder, name = source.split("/")[1:]
        text = text.replace(f"{folder}/{name}", place.removeprefix("docs/"))
        text = text.replace(f"]({name}", f"]({Path(place).name}")
    # A line that leads to the other language: each page has a switch for it.
    return re.sub(r"\A(# .*\n)\n(?:\[English\]|\[中文\]|\[简体中文\])\([^)]*\)\n", r"\1", text)


# Between Chinese characters a broken line is no space, and none stands after their punctuation.
_CODE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_CHARACTER = "\u3000-\u303f\u4e00-\u9fff\uff01-\uff5e"
_BROKEN = re.compile(
    rf"(?<=[{_CHARACTER}])\n *(?=[{_CHARACTER}])"
    r"|(?<=[、，。；：！？）」])\n *(?!\n|[-*+] |\d+\. |[|#>!]|```)"
)


def joined(text: str) -> str:
    """Chinese `text` with each paragraph's lines as one, where a space would show otherwise."""
    parts = _CODE.split(text)
    parts[::2] = [_BROKEN.sub("", part) for part in parts[::2]]
    return "".join(parts)


def lay_out(language: str, tree: Path) -> None:
    """The sources of one language's site in `tree`, which is made anew."""
    shutil.rmtree(tree, ignore_errors=True)
    for place, source in pages_of(language).items():
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        text = with_site_names(source.read_text(encoding="utf-8"))
        text = joined(text) if language == "zh" else text
        (tree / place).write_text(text, encoding="utf-8", newline="\n")
    shutil.copytree(ROOT / "docs/images", tree / "docs/images")
    for path in (path for part in FILES for path in ROOT.glob(part) if path.is_file()):
        (tree / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tree / path.relative_to(ROOT))


def build(language: str, output: Path, *, builder: str = "html") -> int:
    """Sphinx's exit code for one language's site; warnings are errors."""
    sources = output / "sources" / language
    lay_out(language, sources)
    environment = os.environ | {
        "CLIPTUNE_DOCS_LANGUAGE": language,
        "CLIPTUNE_LANG": language,
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    command = [
        sys.executable, "-m", "sphinx", "--builder", builder, "--fail-on-warning", "--keep-going",
        "--nitpicky", "--quiet", "--conf-dir", Path(__file__).parent,
        "--doctree-dir", output / "doctrees" / language, sources, output / language,
    ]  # fmt: skip
    return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs")
    parser.add_argument("--language", choices=LANGUAGES, action="append", help="default: all")
    options = parser.parse_args()
    for language in options.language or LANGUAGES:
        if code := build(language, options.output):
            return code
    (options.output / "index.html").write_text(GO_THERE, encoding="utf-8", newline="\n")
    print(
        f"{options.output / 'index.html'}: open it in a browser; it needs no server and no network"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
