"""Paths, cycles and orders of graphs. ``meta["state"]`` lists the neighbors of every node. Where the published answer is
``No``, only ``No`` is right; elsewhere every path that keeps the rules."""

from __future__ import annotations

from itertools import pairwise

from .answers import components, read_nodes, rule


def neighbors_of(state: dict) -> dict[str, list[str]]:
    """Node -> its neighbors, as texts. A weighted neighbor is a pair (node, weight)."""
    state = state.get("adjacency_list", state)
    adjacency = {
        str(node): [str(other[0] if isinstance(other, list | tuple) else other) for other in others]
        for node, others in state.items()
    }
    for other in [other for others in adjacency.values() for other in others]:
        adjacency.setdefault(other, [])
    return adjacency


def has_none(meta: dict) -> bool:
    """Whether the published answer is that there is no such path."""
    return read_nodes(str(meta["gold"]).strip()) == []


def is_hamiltonian(nodes: list[str], meta: dict, closed: bool) -> bool:
    if not nodes or has_none(meta):
        return not nodes and has_none(meta)
    adjacency = neighbors_of(meta["state"])
    if closed and (len(nodes) < 2 or nodes[0] != nodes[-1]):
        nodes = [*nodes, nodes[0]]
    visited = nodes[:-1] if closed else nodes
    return sorted(visited) == sorted(adjacency) and all(b in adjacency[a] for a, b in pairwise(nodes))


@rule(read_nodes)
def hamiltonian_path(nodes: list[str], meta: dict) -> bool:
    """A path along edges that visits each node once."""
    return is_hamiltonian(nodes, meta, closed=False)


@rule(read_nodes)
def hamiltonian_cycle(nodes: list[str], meta: dict) -> bool:
    """A cycle along edges that visits each node once. The first node may be repeated at the end."""
    return is_hamiltonian(nodes, meta, closed=True)


def is_eulerian(nodes: list[str], meta: dict, closed: bool) -> bool:
    if not nodes or has_none(meta):
        return not nodes and has_none(meta)
    edges = {frozenset((a, b)) for a, others in neighbors_of(meta["state"]).items() for b in others}
    if closed and nodes[0] != nodes[-1]:
        nodes = [*nodes, nodes[0]]
    used = [frozenset(pair) for pair in pairwise(nodes)]
    return len(used) == len(set(used)) and set(used) == edges


@rule(read_nodes)
def eulerian_path(nodes: list[str], meta: dict) -> bool:
    """A path that uses each edge of an undirected graph once."""
    return is_eulerian(nodes, meta, closed=False)


@rule(read_nodes)
def eulerian_cycle(nodes: list[str], meta: dict) -> bool:
    """A closed path that uses each edge of an undirected graph once. The first node may be repeated at the end."""
    return is_eulerian(nodes, meta, closed=True)


@rule(read_nodes)
def topological_order(nodes: list[str], meta: dict) -> bool:
    """All nodes of a directed graph, each before the nodes that its edges point to."""
    if not nodes or has_none(meta):
        return not nodes and has_none(meta)
    adjacency = neighbors_of(meta["state"])
    place = {node: i for i, node in enumerate(nodes)}
    return sorted(nodes) == sorted(adjacency) and all(
        place[a] < place[b] for a, others in adjacency.items() for b in others
    )


@rule(read_nodes)
def connected_path(nodes: list[str], meta: dict) -> bool:
    """A path from ``start_node`` to ``target_node``; the number of connected parts where the published answer is one."""
    gold, state = read_nodes(str(meta["gold"])), meta["state"]
    if not gold or not nodes:
        return nodes == gold
    adjacency = neighbors_of(state)
    if not str(meta["gold"]).strip().startswith("["):
        both_ways = {a: set(others) | {b for b in adjacency if a in adjacency[b]} for a, others in adjacency.items()}
        return nodes == gold == [str(len(components(set(adjacency), lambda node: both_ways[node])))]
    start, target = str(state.get("start_node", gold[0])), str(state.get("target_node", gold[-1]))
    return nodes[0] == start and nodes[-1] == target and all(b in adjacency[a] for a, b in pairwise(nodes))
