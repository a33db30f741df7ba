"""Parents of classes: retriever of golden_retriever and labrador, as `classes.yaml` says.

Shape suffixes: N photos, C classes, P parents, M = C + P + 1 nodes (classes, parents, and all of
them together), L places on the way from a class up to all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.integer[Any]]


def ancestors(name: str, parent_of: Mapping[str, str]) -> list[str]:
    """The parent of `name`, its parent and so on; up to the first that was met before."""
    found: list[str] = []
    while (above := parent_of.get(found[-1] if found else name)) is not None:
        if above == name or above in found:
            break
        found.append(above)
    return found


class Parents:
    """The tree over `class_names`; `parent_of` has the parent of classes and of parents by name.

    Parents of none of the classes are left out. Nodes are numbered: the classes, the parents in
    the order of `names`, and last all together.
    """

    def __init__(self, class_names: Sequence[str], parent_of: Mapping[str, str]) -> None:
        self.class_names = tuple(class_names)
        self._above = [ancestors(name, parent_of) for name in self.class_names]
        self.names = tuple(dict.fromkeys(name for above in self._above for name in above))
        self.all = len(self.class_names) + len(self.names)
        place = {name: len(self.class_names) + i for i, name in enumerate(self.names)}
        longest = 2 + max(map(len, self._above), default=0)
        self._way_CL = np.full((len(self.class_names), longest), self.all)
        for label, above in enumerate(self._above):
            self._way_CL[label, : len(above) + 1] = [label, *(place[name] for name in above)]

    def __bool__(self) -> bool:
        """Whether any class has a parent."""
        return bool(self.names)

    def of(self, label: int) -> tuple[str, ...]:
        """The parents of a class, the nearest first."""
        return tuple(self._above[label])

    def name(self, node: int) -> str | None:
        """The class or parent of that number; None for all together."""
        return None if node == self.all else (*self.class_names, *self.names)[node]

    @cached_property
    def member_MC(self) -> NDArray[np.bool_]:
        """(M, C) which classes are below a node, or are it."""
        member_MC = np.zeros((self.all + 1, len(self.class_names)), bool)
        for label, way_L in enumerate(self._way_CL):
            member_MC[way_L, label] = True
        return member_MC

    @cached_property
    def group_C(self) -> Indices:
        """(C,) the node that counts as the parent of a class: itself where it has none."""
        labels_C = np.arange(len(self.class_names))
        nearest_C = self._way_CL[:, 1]
        result: Indices = np.where(nearest_C == self.all, labels_C, nearest_C)
        return result

    def way(self, probabilities_NC: Floats) -> tuple[Indices, Floats]:
        """(N, L) nodes from the most probable class of each photo up, and their probabilities.

        That of a node is what its classes have together; of all together it is 1.
        """
        way_NL = self._way_CL[probabilities_NC.argmax(axis=1)]
        p_NM = probabilities_NC @ self.member_MC.T
        p_NM[:, self.all] = 1.0
        return way_NL, np.take_along_axis(p_NM, way_NL, axis=1)

    def deepest(self, probabilities_NC: Floats, *, above: float) -> Indices:
        """(N,) the first node on the way up whose probability is higher than `above`."""
        way_NL, p_NL = self.way(probabilities_NC)
        passes_NL = (p_NL > above) | (way_NL == self.all)
        first_N1 = passes_NL.argmax(axis=1)[:, None]
        result: Indices = np.take_along_axis(way_NL, first_N1, axis=1)[:, 0]
        return result

    def order(self, class_order: Sequence[int]) -> list[int]:
        """`class_order` with the classes of each parent beside one another, at every level."""
        place = {label: i for i, label in enumerate(class_order)}
        first: dict[tuple[str, ...], int] = {}  # a way from the top -> the first class below it
        ways = [(*reversed(above), name) for above, name in
                zip(self._above, self.class_names, strict=True)]  # fmt: skip
        for label in class_order:
            for depth in range(len(ways[label])):
                first.setdefault(ways[label][: depth + 1], place[label])

        def key(label: int) -> list[int]:
            return [first[ways[label][: depth + 1]] for depth in range(len(ways[label]))]

        return sorted(class_order, key=key)
