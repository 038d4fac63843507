"""`semforge-graph`: what a label graph allows, and which labels of a list it forbids."""

from __future__ import annotations

import json
import logging
from typing import Any

import torch
from papercommons.errors import DataError
from papercommons.files import hash_files, hash_texts
from papercommons.report import Result

from semforge.entries import as_text
from semforge.graph import LabelGraph, as_graph
from semforge.lists import illegal_rows, parse_label
from semforge.options import PACKAGE

SHOWN_STATES = 12
MOST_FAULTS = 1000  # lines logged

LIMITS = (
    "A graph says which labels go together: that a label is legal does not make it right of a "
    "picture."
)

log = logging.getLogger("papercommons")


def show_graph(name: str) -> Result:
    """Return the nodes of a graph and how many states it allows.

    Args:
        name: ffsc, ffpp or a YAML file.

    Raises:
        DataError: there is no such graph.
    """
    graph = as_graph(name)
    states = graph.states
    fake = states[:, 0] == 1
    rows = [node_row(graph, node, i) for i, node in enumerate(graph.nodes)]
    some = states[torch.linspace(0, len(states) - 1, min(SHOWN_STATES, len(states))).long()]
    return Result(
        package=PACKAGE,
        command="semforge-graph",
        title=f"{graph.name}: {len(graph.nodes)} nodes, {len(states):,} legal states of "
        f"{2 ** len(graph.nodes):,}",
        rows=rows,
        metrics={
            "states": len(states),
            "states_with_root": int(fake.sum()),
            "root_prior": graph.root_prior() if fake.any() else None,
            "examples": [as_text(state) for state in some.tolist()],
            "graph": graph.to_dict(),
        },
        settings={"graph": name},
        limits=LIMITS,
        data_hash=hash_graph(graph),
        device="cpu",
        notes=[
            *(f"legal: {as_text(state)}  {in_words(graph, state)}" for state in some.tolist()),
            f"{int(fake.sum()):,} of them have {graph.nodes[0]}: an untrained network says so at "
            f"p = {fake.double().mean():.5f}, unless the root prior is balanced",
        ],
    )


def node_row(graph: LabelGraph, node: str, place: int) -> dict[str, Any]:
    """Return what the rules say of a node.

    Args:
        graph: has the rules.
        node: its name.
        place: its place in labels.
    """
    level = next(name for name, group in graph.levels.items() if node in group)
    needs = [a for a, b in graph.subsumption if b == node]
    one_of = [*graph.any_child.get(node, ()), *graph.any_parent.get(node, ())]
    row: dict[str, Any] = {"place": place, "node": node, "level": level}
    row |= {"needs": ", ".join(needs), "needs one of": ", ".join(one_of)}
    apart = [a if b == node else b for a, b in graph.exclusion if node in (a, b)]
    if graph.exclusion:
        row["never with"] = ", ".join(apart)
    return row | {"legal states": int(graph.states[:, place].sum())}


def hash_graph(graph: LabelGraph) -> str:
    """Return a short hash of the nodes and rules of a graph."""
    return hash_texts([json.dumps(graph.to_dict(), sort_keys=True)])


def in_words(graph: LabelGraph, state: list[int]) -> str:
    """Return the names of the nodes that are 1, or nothing altered.

    Args:
        graph: has the nodes.
        state: 0 or 1, one per node.
    """
    on = [node for node, value in zip(graph.nodes, state, strict=True) if value]
    return ", ".join(on) or "nothing altered"


def check_labels(name: str, data: str | None, labels: list[str]) -> Result:
    """Check a graph, and the labels of a list; faults are logged, a line each.

    Args:
        name: ffsc, ffpp or a YAML file.
        data: a list of pictures with labels; its files need not exist.
        labels: further ones, as lists write them.

    Raises:
        DataError: a label does not fit the graph; or there is no such graph or list.
    """
    graph = as_graph(name)
    faults = []
    for label in labels:
        try:
            parse_label(label, graph)
        except ValueError as error:
            faults.append(("--labels", str(error)))
    if data is not None:
        faults += illegal_rows(data, graph)
    for where, fault in faults[:MOST_FAULTS]:
        log.warning("%s: %s", where, fault)
    if faults:
        raise DataError(f"{len(faults):,} of the labels do not fit {graph.name}; correct them")
    return Result(
        package=PACKAGE,
        command="semforge-graph",
        title=f"{graph.name}: {len(graph.states):,} legal states; "
        f"{'every label fits' if data or labels else 'the graph can be used'}",
        metrics={"states": len(graph.states), "nodes": len(graph.nodes)},
        settings={"graph": name, "data": data, "labels": labels},
        limits=LIMITS,
        data_hash=hash_graph(graph) if data is None else hash_files([data]),
        device="cpu",
    )
