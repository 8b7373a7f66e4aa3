"""How fast pictures are compared, in one run: `python tests/benchmarks/images.py [--pairs N]`.

Pairs of 1024 x 1024 RGB PNG files, from file to number. First SSIM for PNG files of several kinds (grain of the
picture, effort of the compression) beside scikit-image's Gaussian SSIM of the same files, decoding included, and how
far the two numbers are apart. Then, for the kind that ComfyUI writes, reading and decoding alone, each measure,
identical files, files identical but for their text. These are the processor's times on one core, with BLAS held to one
thread. Last, SSIM of many pairs on one core and on all, on the wall. Nothing is asserted: a number from a busy machine
is no failure.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))  # before NumPy

import argparse
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sweeper.images.compare import COMPARISON_METRICS, compare_files, compare_images, pixel_hash

SIDE = 1024
Pair = tuple[Path, Path]


KINDS = [(grain, level) for grain in (0, 3, 12, 60) for level in (1, 4, 6, 9)]


def write_pair(folder: Path, number: int, grain: int = 3, level: int = 6) -> Pair:
    """A picture with soft shapes and fine grain, as a model makes them, and the same with other grain; without grain,
    one level brighter.
    """
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.int16)
    paths = []
    for place, name in enumerate("ab"):
        moves = generator.integers(-grain, grain + 1, soft.shape, dtype=np.int16) if grain else place
        paths.append(folder / f"{number}{name}.png")
        Image.fromarray(np.clip(soft + moves, 0, 255).astype(np.uint8)).save(paths[-1], compress_level=level)
    return paths[0], paths[1]


def seconds(work: Callable[[Path, Path], object], pairs: list[Pair], *, rounds: int = 5) -> float:
    """CPU seconds per pair, the best of some rounds: what neighbours on the machine take does not count."""
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        for a, b in pairs:
            work(a, b)
        taken.append((time.process_time() - began) / len(pairs))
    return min(taken)


def decode(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def report(name: str, taken: float, note: str = "") -> None:
    print(f"{name:<34} {taken * 1000:8.2f} ms {1 / taken:9.1f} pairs/s   {note}")


def scikit_image_ssim(a: Path, b: Path) -> float:
    from skimage.metrics import structural_similarity

    return structural_similarity(
        decode(a), decode(b), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255,
        channel_axis=-1,
    )  # fmt: skip


def our_ssim(a: Path, b: Path) -> float:
    return compare_images(a, b, metrics=["ssim"])["ssim"]


def against_scikit_image(folder: Path) -> None:
    try:
        import skimage  # noqa: F401
    except ImportError:
        print("scikit-image is not installed: no ratio", file=sys.stderr)
        return
    print(f"{'SSIM of a pair, ms':<26} {'scikit-image':>13} {'sweeper':>9} {'ratio':>6}")
    apart = 0.0
    ratios: list[float] = []
    for number, (grain, level) in enumerate(KINDS):
        pair = write_pair(folder, 1000 + number, grain, level)
        theirs, ours = seconds(scikit_image_ssim, [pair], rounds=2), seconds(our_ssim, [pair])
        ratios.append(theirs / ours)
        apart = max(apart, abs(scikit_image_ssim(*pair) - our_ssim(*pair)))
        told = f"grain {grain}, compression {level}"
        print(f"{told:<26} {theirs * 1000:13.1f} {ours * 1000:9.1f} {ratios[-1]:6.1f}")
    print(f"at least {min(ratios):.1f} times as fast")
    print(f"largest difference of the two SSIM: {apart:.1e}")


def on_all_cores(pairs: list[Pair]) -> None:
    """The best of many short bursts, in turns: a neighbour on the machine seldom leaves all cores alone for long."""
    cores = os.cpu_count() or 1
    many = [pairs[n % len(pairs)] for n in range(2 * cores)]
    taken = dict.fromkeys((1, cores), math.inf)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(cores) as all_of_them:
        for _ in range(30):
            for workers, pool in ((1, one), (cores, all_of_them)):
                began = time.perf_counter()
                list(pool.map(lambda pair: our_ssim(*pair), many))
                taken[workers] = min(taken[workers], time.perf_counter() - began)
    for workers, least in taken.items():
        print(f"SSIM on {workers} of {cores} cores: {len(many) / least:.1f} pairs/s on the wall")
    print(f"all cores are {taken[1] / taken[cores]:.2f} times as fast as one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4)
    count = parser.parse_args().pairs
    with TemporaryDirectory() as folder:
        against_scikit_image(Path(folder))
        pairs = [write_pair(Path(folder), number, level=4) for number in range(count)]
        copies = [(a, a.with_suffix(".copy.png")) for a, _ in pairs]
        texts = [(a, a.with_suffix(".text.png")) for a, _ in pairs]
        info = PngInfo()
        info.add_text("prompt", '{"3": {"class_type": "KSampler"}}')
        for (a, copy), (_, text) in zip(copies, texts, strict=True):
            copy.write_bytes(a.read_bytes())
            with Image.open(a) as image:
                image.save(text, pnginfo=info, compress_level=4)
        reading = seconds(lambda a, b: (a.read_bytes(), b.read_bytes()), pairs)
        floor = seconds(lambda a, b: (pixel_hash(a), pixel_hash(b)), pairs)
        report("reading", reading)
        report("identical files", taken := seconds(compare_files, copies), f"{taken / reading:.1f} times the reading")
        taken = seconds(compare_files, texts)
        report("identical but for their text", taken, f"{taken / reading:.1f} times the reading")
        report("reading, decoding and hashing", floor)
        for name in COMPARISON_METRICS:
            report(f"  {name}", seconds(lambda a, b, name=name: compare_images(a, b, metrics=[name]), pairs))
        report("all measures", seconds(compare_images, pairs))
        on_all_cores(pairs)


if __name__ == "__main__":
    main()
