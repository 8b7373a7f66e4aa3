"""How fast pictures are compared, on one core and in one run: `python tests/benchmarks/images.py [--pairs N]`.

Pairs of 1024 x 1024 RGB PNG files, from file to number: what reading and decoding alone take, SSIM, every other
measure, identical files, files that are identical but for their text. With scikit-image installed, its Gaussian SSIM of
the same files too, the ratio with and without decoding, and how far the two numbers are apart. BLAS is held to one
thread and times are the processor's. Nothing is asserted: a number from a busy machine is no failure.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))  # before NumPy

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sweeper.images import COMPARISON_METRICS, compare_files, compare_images, pixel_hash

SIDE = 1024
Pair = tuple[Path, Path]


def write_pair(folder: Path, number: int) -> Pair:
    """A picture with soft shapes and fine grain, as a model makes them, and the same with other grain."""
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.int16)
    paths = []
    for name in "ab":
        grain = generator.integers(-3, 4, soft.shape, dtype=np.int16)
        paths.append(folder / f"{number}{name}.png")
        Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8)).save(paths[-1])
    return paths[0], paths[1]


def seconds(work: Callable[[Path, Path], object], pairs: list[Pair]) -> float:
    """CPU seconds per pair, the best of five rounds: what neighbours on the machine take does not count."""
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for a, b in pairs:
            work(a, b)
        rounds.append((time.process_time() - began) / len(pairs))
    return min(rounds)


def decoded(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def report(name: str, taken: float, note: str = "") -> None:
    print(f"{name:<34} {taken * 1000:8.2f} ms {1 / taken:9.1f} pairs/s   {note}")


def against_scikit_image(pairs: list[Pair], ours: float, floor: float) -> None:
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        print("scikit-image is not installed: no ratio", file=sys.stderr)
        return

    def theirs(a: Path, b: Path) -> float:
        return structural_similarity(
            decoded(a),
            decoded(b),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1,
        )

    taken = seconds(theirs, pairs)
    alone = (taken - floor) / (ours - floor)
    report("scikit-image SSIM", taken, f"sweeper is {taken / ours:.1f} times as fast, {alone:.1f} without decoding")
    apart = max(abs(theirs(a, b) - compare_images(a, b, metrics=["ssim"])["ssim"]) for a, b in pairs)
    print(f"largest difference of the two SSIM: {apart:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4)
    count = parser.parse_args().pairs
    with TemporaryDirectory() as folder:
        pairs = [write_pair(Path(folder), number) for number in range(count)]
        copies = [(a, a.with_suffix(".copy.png")) for a, _ in pairs]
        texts = [(a, a.with_suffix(".text.png")) for a, _ in pairs]
        info = PngInfo()
        info.add_text("prompt", '{"3": {"class_type": "KSampler"}}')
        for (a, copy), (_, text) in zip(copies, texts, strict=True):
            copy.write_bytes(a.read_bytes())
            with Image.open(a) as image:
                image.save(text, pnginfo=info)
        reading = seconds(lambda a, b: (a.read_bytes(), b.read_bytes()), pairs)
        floor = seconds(lambda a, b: (decoded(a), decoded(b)), pairs)
        report("reading", reading)
        report("reading and decoding", floor)
        ssim = seconds(lambda a, b: compare_images(a, b, metrics=["ssim"]), pairs)
        report("SSIM", ssim, f"{ssim / floor:.1f} times the decoding")
        against_scikit_image(pairs, ssim, floor)
        for name in COMPARISON_METRICS:
            taken = seconds(lambda a, b, name=name: compare_images(a, b, metrics=[name]), pairs)
            report(f"  {name}", taken, f"{(taken - floor) * 1000:.1f} ms beside the decoding")
        report("all measures", seconds(compare_images, pairs))
        report("identical files", seconds(compare_files, copies), "of which reading is most")
        report("identical but for their text", seconds(compare_files, texts))
        report("pixel_hash of one", seconds(lambda a, _: pixel_hash(a), pairs))


if __name__ == "__main__":
    main()
