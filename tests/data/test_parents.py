"""Parents of classes: read from classes.yaml, and what lies below them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cliptune.data.classes_file import entries_of, read_names
from cliptune.data.parents import Parents, ancestors
from cliptune.errors import DataError

DOGS = ["collie", "golden", "labrador", "pug"]
TREE = {"golden": "retriever", "labrador": "retriever", "retriever": "gun dog", "collie": "herder"}


def written(folder: Path, text: str) -> Path:
    (folder / "classes.yaml").write_text(text, encoding="utf-8", newline="\n")
    return folder


FILE = """
golden: {parent: retriever, prompts: [golden retriever]}
labrador:
  parent: retriever
retriever:
  name: 寻回犬
  parent: gun dog
collie: {parent: herder}
pug: 巴哥犬
"""


def test_parents_are_read_with_their_own_parents_and_names(tmp_path: Path) -> None:
    found = read_names(written(tmp_path, FILE), DOGS)
    assert found.parents == TREE
    assert found.display == {"retriever": "寻回犬", "pug": "巴哥犬"}
    assert found.prompts == {"golden": ["golden retriever"]}
    assert read_names(written(tmp_path, "pug: 巴哥犬\n"), DOGS).parents == {}


def test_a_choice_of_classes_takes_its_parents_along_and_no_others(tmp_path: Path) -> None:
    text = entries_of(written(tmp_path, FILE), known=DOGS, chosen=["golden", "pug"])
    assert text is not None
    assert yaml.safe_load(text) == {
        "golden": {"parent": "retriever", "prompts": ["golden retriever"]},
        "pug": {"name": "巴哥犬"},
        "retriever": {"parent": "gun dog", "name": "寻回犬"},
    }
    other = tmp_path / "other"
    other.mkdir()
    again = read_names(written(other, text), ["golden", "pug"])
    assert again.parents == {"golden": "retriever", "retriever": "gun dog"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("golden: {parent: a}\na: {parent: b}\nb: {parent: a}", r"yaml:[23]: [ab]\.parent: .*own "
         r"ancestor: (a -> b -> a|b -> a -> b)"),
        ("golden: {parent: a}\na: {parent: a}", r"yaml:2: a\.parent: 'a' is its own ancestor: a"),
        ("golden: {parent: pug}", r"yaml:1: golden\.parent: found 'pug', which is the class 'pug'"),
        ("golden: {parent: golden}", r"found 'golden', which is the class 'golden'"),
        ("golden: {parent: Pug}", r"which is the class 'pug'"),
        ("golden: {parent: }", r"golden\.parent: found nothing; expected text"),
        ("golden: {parent: [a, b]}", r"golden\.parent: found \['a', 'b'\]; expected text"),
        ("golden: {parent: a|b}", r"golden\.parent: found 'a\|b': holds '\|'"),
        ("golden: {parent: retriever}\nretreiver: {name: x}",
         r"yaml:2: neither a class nor the parent of one: 'retreiver' \(nearest: retriever"),
        ("golden: {parent: a}\na: {prompts: [b]}", r"yaml:2: a\.prompts: 'a' is a parent of cla"),
        ("golden: {parent: a}\na: pug", r"a, pug would all be shown as 'pug'|pug, a would all"),
        ("golden: {parents: a}", r"unknown key 'parents'. Did you mean 'parent'\?"),
    ],
)  # fmt: skip
def test_a_fault_of_parents_is_told_once_with_its_line(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(DataError, match=told) as caught:
        read_names(written(tmp_path, text + "\n"), DOGS)
    assert "faults" not in str(caught.value)  # but for the one


def test_two_classes_of_a_parent_whose_own_parent_is_wrong_tell_it_once(tmp_path: Path) -> None:
    text = "golden: {parent: a}\nlabrador: {parent: a}\na: {parent: pug}\n"
    with pytest.raises(DataError, match=r"yaml:3: a\.parent: found 'pug'") as caught:
        read_names(written(tmp_path, text), DOGS)
    assert str(caught.value).count("which is the class") == 1


def test_what_lies_below_a_parent_is_what_reaches_it_going_up() -> None:
    tree = Parents(DOGS, TREE)
    assert set(tree.names) == {"retriever", "gun dog", "herder"}
    assert tree.of(1) == ("retriever", "gun dog")
    for node in range(tree.all):
        name = tree.name(node)
        below = {DOGS[label] for label in np.flatnonzero(tree.member_MC[node])}
        assert below == {each for each in DOGS if name in (each, *ancestors(each, TREE))}
    assert tree.member_MC[tree.all].all()
    assert tree.name(tree.all) is None
    assert not Parents(DOGS, {})
    assert Parents(DOGS, TREE | {"poodle": "water dog"}).names == tree.names


trees = st.dictionaries(
    st.sampled_from([*DOGS, *"abcd"]), st.sampled_from([*"abcd"]), max_size=8
).filter(lambda t: all(n not in ancestors(n, t) and t.get((ancestors(n, t) or [n])[-1]) != n
                       for n in t))  # fmt: skip


@settings(deadline=None)
@given(trees, st.integers(0, 10**6), st.floats(0, 1.1))
def test_the_deepest_sure_node_is_the_first_on_the_way_up_that_passes(
    parent_of: dict[str, str], seed: int, above: float
) -> None:
    tree = Parents(DOGS, parent_of)
    p_NC = np.random.default_rng(seed).dirichlet(np.full(4, 0.5), size=10)
    for p_C, node in zip(p_NC, tree.deepest(p_NC, above=above), strict=True):
        best = DOGS[p_C.argmax()]
        expected = None
        for name in [best, *ancestors(best, parent_of)]:
            below = [each == name or name in ancestors(each, parent_of) for each in DOGS]
            if p_C[below].sum() > above + 1e-12:
                expected = name
                break
        if abs(p_C @ tree.member_MC[node] - above) > 1e-9:
            assert tree.name(int(node)) == expected


@settings(deadline=None)
@given(trees, st.permutations(range(4)))
def test_ordered_by_parents_the_classes_of_each_stand_together(
    parent_of: dict[str, str], given_order: list[int]
) -> None:
    tree = Parents(DOGS, parent_of)
    order = tree.order(given_order)
    assert sorted(order) == list(range(4))
    for node in range(tree.all):
        places = [i for i, label in enumerate(order) if tree.member_MC[node, label]]
        assert places == list(range(places[0], places[0] + len(places)))
    if not tree:
        assert order == given_order
