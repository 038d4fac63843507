"""The label graph: what can be altered in a face, and which labels go together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

import torch
from papercommons.errors import DataError, nearest
from torch import Tensor

from semforge import inference
from semforge.graph_values import as_groups, as_list, as_names, as_texts, read_graph_yaml
from semforge.inference import LogProbabilities
from semforge.states import MAX_NODES, enumerate_states

RootPrior = Literal["none", "balanced"]
_SOFT = ("name", "root", "global", "local", "exclusion", "strict_root", "prompts")
_GENERAL = ("name", "nodes", "levels", "prompts")
_PAIRS = ("subsumption", "exclusion")
_GROUPS = ("any_parent", "any_child")


@dataclass(frozen=True)
class LabelGraph:
    """Named binary nodes, and rules for which of them may be 1 together (specification 3.2).

    The first node is the root: whether the face is fake. Make one with `ffsc`, `ffpp`, `soft_or`,
    `from_yaml`, or give the rules one by one.

    Args:
        nodes: their names in the order of scores and labels, 1 to 20.
        levels: groups of nodes whose losses are averaged; every node is in one, and the first
            holds the root alone. By default the root, and all others.
        subsumption: pairs (a, b): b = 1 needs a = 1.
        exclusion: pairs (a, b): not both are 1.
        any_parent: node -> parents: node = 1 needs at least one of them to be 1.
        any_child: node -> children: node = 1 needs at least one of them to be 1.
        prompts: texts of nodes for `texts`, where the usual ones do not fit.
        name: of the graph.

    Raises:
        ValueError: an unknown or repeated name, no node where one is needed, a cycle, or more than
            20 nodes.
    """

    nodes: tuple[str, ...]
    levels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    subsumption: tuple[tuple[str, str], ...] = ()
    exclusion: tuple[tuple[str, str], ...] = ()
    any_parent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    any_child: dict[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    name: str = "graph"

    def __post_init__(self) -> None:
        nodes = as_names(self.nodes, "nodes")
        if not 1 <= len(nodes) <= MAX_NODES:
            enumerate_states(len(nodes))  # says what to do
        if len(set(nodes)) < len(nodes):
            twice = next(node for node in nodes if nodes.count(node) > 1)
            raise ValueError(f"node {twice!r} is named twice")
        values: dict[str, Any] = {"nodes": nodes}
        for rule in _PAIRS:
            values[rule] = tuple(
                as_names(pair, rule) for pair in as_list(getattr(self, rule), rule)
            )
            for pair in values[rule]:
                if len(set(pair)) != 2 or len(pair) != 2:
                    raise ValueError(f"{rule}: expected pairs of two nodes, got {list(pair)}")
        for rule in _GROUPS:
            values[rule] = as_groups(getattr(self, rule), rule)
        levels = {"root": nodes[:1], "others": nodes[1:]} if len(nodes) > 1 else {"root": nodes}
        values["levels"] = as_groups(self.levels or levels, "levels")
        values["prompts"] = as_texts(self.prompts, "prompts")
        if not isinstance(self.name, str):
            raise ValueError("name: a graph's name is text")
        for key, value in values.items():
            object.__setattr__(self, key, value)
        self._checkas_names()
        self._check_levels()
        self._check_cycles()

    def _checkas_names(self) -> None:
        mentioned = {rule: [*sum(getattr(self, rule), ())] for rule in _PAIRS}
        for rule in (*_GROUPS, "levels"):
            groups = getattr(self, rule)
            keys = () if rule == "levels" else groups
            mentioned[rule] = [*keys, *sum(groups.values(), ())]
        mentioned["prompts"] = list(self.prompts)
        for rule, names in mentioned.items():
            for name in names:
                if name not in self.nodes:
                    raise ValueError(f"{rule}: unknown node {name!r}{nearest(name, self.nodes)}")

    def _check_levels(self) -> None:
        placed = [node for group in self.levels.values() for node in group]
        for node in self.nodes:
            if placed.count(node) != 1:
                raise ValueError(f"levels: node {node!r} is in {placed.count(node)}, not in one")
        if next(iter(self.levels.values())) != self.nodes[:1]:
            raise ValueError(f"levels: the first must hold the root alone, [{self.nodes[0]}]")

    def _check_cycles(self) -> None:
        order: TopologicalSorter[str] = TopologicalSorter()
        for parent, child in self.subsumption:
            order.add(child, parent)
        for child, parents in self.any_parent.items():
            order.add(child, *parents)
        for parent, children in self.any_child.items():
            for child in children:
                order.add(child, parent)
        try:
            order.prepare()
        except CycleError as error:
            path = " -> ".join(error.args[1])
            raise ValueError(f"the rules go round in a cycle: {path}; remove one") from None

    @classmethod
    def soft_or(
        cls,
        root: str,
        children: Mapping[str, Sequence[str]],
        local: Sequence[str] | None = None,
        *,
        exclusion: Iterable[tuple[str, str]] = (),
        strict_root: bool = False,
        prompts: Mapping[str, str] | None = None,
        name: str = "graph",
    ) -> LabelGraph:
        """Return the paper's kind of graph: root, global attributes, local regions.

        A global needs the root (R1) and one of its regions (R2), a region one of its globals (R3).

        Args:
            root: name of the root.
            children: of each global attribute, the regions altered with it.
            local: the regions in the order of scores; by default as they come in `children`.
            exclusion: pairs that are not both 1 (R4).
            strict_root: forbid the root without any global; the paper's code allows it.
            prompts: see the class.
            name: see the class.

        Raises:
            ValueError: a global without regions, a region without globals, or see the class.
        """
        groups = as_groups(children, "global")
        if not groups:
            raise ValueError("global: no attribute; name at least one, with its regions")
        of_all = tuple(dict.fromkeys(sum(groups.values(), ())))
        regions = of_all if local is None else as_names(local, "local")
        for region in of_all:
            if region not in regions:
                raise ValueError(
                    f"global: {region!r} is not listed under local{nearest(region, regions)}"
                )
        parents = {
            region: tuple(name for name, below in groups.items() if region in below)
            for region in regions
        }
        for region, above in parents.items():
            if not above:
                raise ValueError(f"local: {region!r} belongs to no global; list it under one")
        return cls(
            nodes=(root, *groups, *regions),
            levels={"root": (root,), "global": tuple(groups), "local": regions},
            subsumption=tuple((root, name) for name in groups),
            exclusion=tuple(exclusion),
            any_parent=parents,
            any_child=groups | ({root: tuple(groups)} if strict_root else {}),
            prompts=as_texts(prompts or {}, "prompts"),
            name=name,
        )

    @classmethod
    def ffsc(cls, *, strict_root: bool = False) -> LabelGraph:
        """Return the paper's graph: 12 nodes, 1,544 legal states (1,543 if strict)."""
        return cls._named("ffsc", strict_root)

    @classmethod
    def ffpp(cls, *, strict_root: bool = False) -> LabelGraph:
        """Return the follow-up's graph for FaceForensics++: 10 nodes, 251 legal states."""
        return cls._named("ffpp", strict_root)

    @classmethod
    def _named(cls, name: str, strict_root: bool) -> LabelGraph:
        path = Path(__file__).with_name("graph_files") / f"{name}.yaml"
        return cls.from_dict(read_graph_yaml(path) | {"strict_root": strict_root})

    @classmethod
    def from_yaml(cls, path: str | Path) -> LabelGraph:
        """Return the graph in a YAML file.

        Either ``root``, ``global`` (attribute -> regions), ``local``, ``strict_root`` and
        ``exclusion`` as in `soft_or`, or ``nodes`` and the rules as in the class; ``name`` and
        ``prompts`` in both.

        Args:
            path: the file, at most 1 MiB.

        Raises:
            DataError: it is missing, no YAML, or no graph.
        """
        try:
            return cls.from_dict({"name": Path(path).stem} | read_graph_yaml(Path(path)))
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelGraph:
        """Return the graph of a mapping as `to_dict` gives it, or as a YAML file holds it.

        Args:
            values: see `from_yaml`.

        Raises:
            ValueError: unknown or missing entries, or no graph.
        """
        soft = "nodes" not in values
        known = _SOFT if soft else (*_GENERAL, *_PAIRS, *_GROUPS)
        for key in values:
            if key not in known:
                raise ValueError(f"unknown entry {str(key)[:50]!r}{nearest(str(key), known)}")
        if not soft:
            return cls(**values)
        for key in ("root", "global"):
            if key not in values:
                raise ValueError(f"no entry {key}; give root and global, or nodes and rules")
        options = {key: value for key, value in values.items() if key not in ("root", "global")}
        if not isinstance(options.get("strict_root", False), bool):
            raise ValueError("strict_root: expected true or false")
        (root,) = as_names([values["root"]], "root")
        return cls.soft_or(root, values["global"], **options)

    def to_dict(self) -> dict[str, Any]:
        """Return the graph in plain types, for `from_dict` and for JSON."""
        return {
            "name": self.name,
            "nodes": list(self.nodes),
            **{rule: [list(pair) for pair in getattr(self, rule)] for rule in _PAIRS},
            **{
                rule: {key: list(group) for key, group in getattr(self, rule).items()}
                for rule in (*_GROUPS, "levels")
            },
            "prompts": dict(self.prompts),
        }

    @cached_property
    def states(self) -> Tensor:
        """The legal states in lexicographic order, uint8, shape (M, n); row 0 is all zeros."""
        number = {node: i for i, node in enumerate(self.nodes)}
        rules: dict[str, Any] = {
            rule: [(number[a], number[b]) for a, b in getattr(self, rule)] for rule in _PAIRS
        }
        rules |= {
            rule: [(number[k], [number[v] for v in vs]) for k, vs in getattr(self, rule).items()]
            for rule in _GROUPS
        }
        return enumerate_states(len(self.nodes), **rules)

    @cached_property
    def level_weights(self) -> Tensor:
        """What averages nodes over levels, float32, shape (levels, n); rows sum to 1."""
        rows = [
            [float(node in group) / len(group) for node in self.nodes]
            for group in self.levels.values()
        ]
        return torch.tensor(rows, device="cpu")

    def texts(self) -> tuple[str, ...]:
        """Return the follow-up's text prompt of each node, or the one in `prompts`."""
        usual = {
            node: f"A photo of a {node} face"
            if node == self.nodes[0]
            else f"A photo of a face with the {level} attribute of {node} altered"
            for level, group in self.levels.items()
            for node in group
        }
        return tuple(self.prompts.get(node, usual[node]) for node in self.nodes)

    def root_prior(self, kind: RootPrior = "balanced") -> float:
        """Return the bias of the root's score with which p(root) is 1/2 where all scores are 0.

        Without it nearly all legal states are fake: for FFSC p = 1543/1544, with -7.3414 it is 1/2.

        Args:
            kind: ``balanced``; or ``none``, which gives 0.

        Raises:
            ValueError: another kind, or a root that the rules never let be 1.
        """
        if kind not in ("none", "balanced"):
            raise ValueError(f"root prior must be none or balanced, got {kind}")
        on = int(self.states[:, 0].sum())
        if kind == "none":
            return 0.0
        if on == 0:
            raise ValueError(f"the rules never let {self.nodes[0]!r} be 1, so it has no prior")
        return math.log(len(self.states) - on) - math.log(on)

    def marginals(self, scores: Tensor) -> Tensor:
        """Return p(node = 1), see `semforge.inference.marginals`; scores (B, n)."""
        return inference.marginals(scores, self._states_for(scores))

    def log_marginals(self, scores: Tensor) -> LogProbabilities:
        """Return their logs, see `semforge.inference.log_marginals`; scores (B, n)."""
        return inference.log_marginals(scores, self._states_for(scores))

    def log_likelihood(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return log p(known labels), shape (B,), see `semforge.inference.log_likelihood`.

        Args:
            scores: float, shape (B, n).
            labels: 0, 1 or 2 = unknown, shape (B, n).
        """
        states = self._states_for(scores)
        self._check_width(labels, "labels")
        return inference.log_likelihood(scores, labels, states)

    def map_state(self, scores: Tensor) -> Tensor:
        """Return the most probable legal labels, uint8, shape (B, n); scores (B, n)."""
        return inference.map_state(scores, self._states_for(scores))

    def is_legal(self, labels: Tensor) -> Tensor:
        """Return which rows agree with a legal state, bool, shape (B,).

        Args:
            labels: 0, 1 or 2 = unknown, shape (B, n).
        """
        self._check_width(labels, "labels")
        return inference.agreeing(labels, self.states.to(labels.device)).any(1)

    def _states_for(self, scores: Tensor) -> Tensor:
        self._check_width(scores, "scores")
        return self.states.to(scores.device)

    def _check_width(self, rows: Tensor, what: str) -> None:
        if rows.ndim != 2 or rows.shape[1] != len(self.nodes):
            raise ValueError(
                f"{what} must be (B, {len(self.nodes)}), one column per node of {self.name}, got "
                f"{tuple(rows.shape)}"
            )


def as_graph(graph: LabelGraph | Mapping[str, Any] | str) -> LabelGraph:
    """Return the graph meant: itself, one as `LabelGraph.to_dict` gives it, ffsc, ffpp, or a file.

    Args:
        graph: what the user gave.

    Raises:
        ValueError: see `LabelGraph.from_dict`.
        DataError: see `LabelGraph.from_yaml`.
    """
    if isinstance(graph, LabelGraph):
        return graph
    if isinstance(graph, Mapping):
        return LabelGraph.from_dict(graph)
    if graph in ("ffsc", "ffpp"):
        return LabelGraph.ffsc() if graph == "ffsc" else LabelGraph.ffpp()
    return LabelGraph.from_yaml(graph)
