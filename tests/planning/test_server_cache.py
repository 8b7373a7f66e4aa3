"""Execution counts for each kind of cache, compared with counts of a real ComfyUI."""

from __future__ import annotations

import itertools

import pytest

from sweeper.planning.order import count_cached_executions
from sweeper.planning.server_cache import (
    CLASSIC_CACHE,
    NO_CACHE,
    ServerCache,
    count_lru_executions,
    find_smallest_cache,
    parse_cache_arguments,
)

GRAPH = {
    "load": {"class_type": "L", "inputs": {"model": "m"}},
    "encode": {"class_type": "E", "inputs": {"clip": ["load", 1], "text": "t"}},
    "sample": {"class_type": "S", "inputs": {"model": ["load", 0], "positive": ["encode", 0], "seed": 0}},
    "decode": {"class_type": "D", "inputs": {"samples": ["sample", 0]}},
    "save": {"class_type": "O", "inputs": {"images": ["decode", 0]}},
}
MODEL, TEXT, SEED = 0, 1, 2
NEEDS = {
    "load": frozenset({MODEL}),
    "encode": frozenset({MODEL, TEXT}),
    "sample": frozenset({MODEL, TEXT, SEED}),
    "decode": frozenset({MODEL, TEXT, SEED}),
    "save": frozenset({MODEL, TEXT, SEED}),
}
POINTS = list(itertools.product(range(3), range(3), range(4)))
# Loader and encoder executions for 3 models, 3 texts and 4 seeds, measured on ComfyUI 0.3.64.
CACHES = (CLASSIC_CACHE, *(ServerCache("lru", size) for size in (5, 50, 400)), NO_CACHE)
MEASURED = {
    (MODEL, TEXT, SEED): ((3, 9), (3, 9), (3, 9), (3, 9), (36, 36)),
    (TEXT, MODEL, SEED): ((9, 9), (9, 9), (3, 9), (3, 9), (36, 36)),
    (MODEL, SEED, TEXT): ((3, 36), (3, 36), (3, 9), (3, 9), (36, 36)),
    (SEED, TEXT, MODEL): ((36, 36), (36, 36), (3, 9), (3, 9), (36, 36)),
    (TEXT, SEED, MODEL): ((36, 36), (36, 36), (3, 9), (3, 9), (36, 36)),
}


@pytest.mark.parametrize("order", MEASURED)
def test_execution_counts_are_those_of_a_real_server(order):
    runs = [count_cached_executions(GRAPH, order, POINTS, NEEDS, caching) for caching in CACHES]
    assert tuple((one["load"], one["encode"]) for one in runs) == MEASURED[order]
    assert {one["save"] for one in runs} == {36}


@pytest.mark.parametrize(
    ("models", "size", "loads"),
    [("ABABABAB", 5, 5), ("ABABABAB", 50, 2), ("AAAABBBB", 5, 2), ("AAAABBBB", 50, 2)],
)
def test_alternating_models_are_cached_as_on_a_real_server(models, size, loads):
    points = [(ord(model), 0, seed) for seed, model in enumerate(models)]
    assert count_lru_executions(GRAPH, points, NEEDS, size)["load"] == loads


def test_a_node_does_not_run_for_cached_users():
    graph = {
        "a": {"class_type": "A", "inputs": {"x": 0}},
        "b": {"class_type": "B", "inputs": {"from": ["a", 0]}},
        "c": {"class_type": "C", "inputs": {"y": 0}},
    }
    needs = {"a": frozenset({0}), "b": frozenset({0}), "c": frozenset({1})}
    assert count_lru_executions(graph, [(0, 0), (0, 1), (1, 1), (0, 0)], needs, 100) == {"a": 2, "b": 2, "c": 2}


@pytest.mark.parametrize(
    ("arguments", "caching"),
    [
        ((), CLASSIC_CACHE),
        (("main.py", "--cpu"), CLASSIC_CACHE),
        (("main.py", "--cache-none"), NO_CACHE),
        (("main.py", "--cache-lru", "50", "--cpu"), ServerCache("lru", 50)),
        (("main.py", "--cache-lru=7"), ServerCache("lru", 7)),
        (("main.py", "--cache-lru", "0"), CLASSIC_CACHE),
        (("main.py", "--cache-lru"), CLASSIC_CACHE),
        (("main.py", "--cache-classic"), CLASSIC_CACHE),
    ],
)
def test_cache_options_are_parsed(arguments, caching):
    assert parse_cache_arguments(arguments) == caching


def test_the_smallest_cache_decides_unless_it_is_none():
    small, large = ServerCache("lru", 5), ServerCache("lru", 50)
    assert find_smallest_cache([large, small]) == small
    assert find_smallest_cache([large, CLASSIC_CACHE, NO_CACHE]) == CLASSIC_CACHE
    assert find_smallest_cache([NO_CACHE, large]) == large
    assert find_smallest_cache([NO_CACHE]) == find_smallest_cache([]) == NO_CACHE
