"""Execution counts for each kind of cache, compared with counts of a real ComfyUI."""

from __future__ import annotations

import pytest

from sweeper.planning.order import (
    CLASSIC_CACHE,
    NO_CACHE,
    RunSequence,
    ServerCache,
    count_lru_executions,
    detect_server_cache,
    find_smallest_cache,
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
# Loader and encoder executions for 3 models, 3 texts and 4 seeds, measured on ComfyUI 0.3.64 and 0.33.0; `ram` on the
# latter, with `--cache-ram 1 2` and without an option.
CACHES = (
    CLASSIC_CACHE, *(ServerCache("lru", size) for size in (5, 50, 400)), NO_CACHE, ServerCache("ram", keeps_all=True),
    ServerCache("ram"),
)  # fmt: skip
MEASURED = {
    (MODEL, TEXT, SEED): ((3, 9), (3, 9), (3, 9), (3, 9), (36, 36), (3, 9), (3, 9)),
    (TEXT, MODEL, SEED): ((9, 9), (9, 9), (3, 9), (3, 9), (36, 36), (3, 9), (9, 9)),
    (MODEL, SEED, TEXT): ((3, 36), (3, 36), (3, 9), (3, 9), (36, 36), (3, 9), (3, 36)),
    (SEED, TEXT, MODEL): ((36, 36), (36, 36), (3, 9), (3, 9), (36, 36), (3, 9), (36, 36)),
    (TEXT, SEED, MODEL): ((36, 36), (36, 36), (3, 9), (3, 9), (36, 36), (3, 9), (36, 36)),
}


@pytest.mark.parametrize("order", MEASURED)
def test_execution_counts_are_those_of_a_real_server(order):
    runs = [RunSequence((3, 3, 4), order, None).count_executions(GRAPH, NEEDS, caching) for caching in CACHES]
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


GIB = 2**30
RAM, SHORT_RAM = ServerCache("ram", keeps_all=True), ServerCache("ram")


@pytest.mark.parametrize(
    ("version", "arguments", "memory", "cache"),
    [
        ("", "", (0, 0), CLASSIC_CACHE),  # Comfy Cloud says nothing
        ("0.3.64", "main.py --cpu", (200, 190), CLASSIC_CACHE),
        ("0.22.0", "main.py", (200, 190), CLASSIC_CACHE),
        ("0.23.0", "main.py", (24, 20), SHORT_RAM),
        ("0.33.0", "main.py --cpu", (24, 20), SHORT_RAM),
        ("0.33.0", "main.py", (256, 130), RAM),
        ("0.33.0", "main.py", (256, 120), SHORT_RAM),
        ("0.33.0", "main.py --cache-ram", (24, 20), SHORT_RAM),
        ("0.33.0", "main.py --cache-ram 2 --cpu", (24, 20), SHORT_RAM),
        ("0.33.0", "main.py --cache-ram 2 8 --cpu", (24, 20), RAM),
        ("0.33.0", "main.py --cache-ram 2 8 --cpu", (24, 7), SHORT_RAM),
        ("0.12.1", "main.py --cache-ram 2 8", (24, 20), CLASSIC_CACHE),
        ("0.33.0", "main.py --cache-ram 2 x", (256, 130), RAM),
        ("0.33.0", "main.py --cache-classic", (256, 200), CLASSIC_CACHE),
        ("0.33.0", "main.py --high-ram", (256, 200), CLASSIC_CACHE),
        ("0.33.0", "main.py --cache-none", (256, 200), NO_CACHE),
        ("0.33.0", "main.py --cache-lru 50 --cpu", (0, 0), ServerCache("lru", 50)),
        ("0.3.64", "main.py --cache-lru=7", (0, 0), ServerCache("lru", 7)),
        ("0.3.64", "main.py --cache-lru 0", (0, 0), CLASSIC_CACHE),
        ("0.33.0", "main.py --cache-lru 0", (0, 0), SHORT_RAM),
        ("0.3.64", "main.py --cache-lru", (0, 0), CLASSIC_CACHE),
        ("nightly", "main.py", (256, 200), CLASSIC_CACHE),
        ("", "main.py --cache-ram x y", (256, 200), CLASSIC_CACHE),
    ],
)
def test_version_options_and_memory_decide_the_cache(version, arguments, memory, cache):
    total, free = memory
    assert detect_server_cache(version, arguments.split(), (total * GIB, free * GIB)) == cache


def test_the_smallest_cache_decides_unless_it_is_none():
    small, large = ServerCache("lru", 5), ServerCache("lru", 50)
    assert find_smallest_cache([large, small]) == small
    assert find_smallest_cache([large, CLASSIC_CACHE, NO_CACHE]) == CLASSIC_CACHE
    assert find_smallest_cache([NO_CACHE, large]) == large
    assert find_smallest_cache([RAM]) == RAM
    assert find_smallest_cache([RAM, RAM]) == SHORT_RAM  # each keeps only what it ran itself
    assert find_smallest_cache([NO_CACHE]) == find_smallest_cache([]) == NO_CACHE
