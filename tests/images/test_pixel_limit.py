"""A small file that declares a huge picture: every door refuses it before it decodes anything, in little memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib

import pytest

from tests import ROOT
from tests.platforms import needs_memory_limit

SIDE = 13_000  # 169 million pixels: Pillow itself refuses from 179 million on
SENTENCE = f"has {SIDE} x {SIDE} pixels, but at most 100,000,000 pixels are decoded; scale it down"

DOORS = {
    "metrics": "from sweeper.images.metrics.measure import read_picture; read_picture(file)",
    "comparison": "import sweeper; sweeper.compare_images(file, file.with_name('other.png'))",
    "thumbnail": "from sweeper.reporting.thumbnails import open_picture; open_picture(file, (640, 640))",
    "mask": "from sweeper.comfy.uploads import paint_mask; paint_mask(file.read_bytes(), file.read_bytes(), 'a')",
    "workflow": "from sweeper.editing.read_workflow import read_workflow_texts; read_workflow_texts(file, 'PNG')",
}
RUN = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from sweeper.errors import SweeperError
file = Path(sys.argv[2])
status = Path("/proc/self/status")  # where there is none: ru_maxrss, which begins with that of the parent process
for door, code in json.loads(sys.argv[3]).items():
    message = ""
    try:
        exec(code)
    except SweeperError as error:
        message = str(error)
    if status.exists():
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([door, message, int(peak) // 1024]), flush=True)
"""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deflate_zeros(count: int) -> bytes:
    """What zlib makes of so many zeros, without reading them all."""
    packer = zlib.compressobj(9, wbits=-15)
    block = 2**20
    part = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(count % block)) + packer.flush()
    checksum = (count % 65521) << 16 | 1  # Adler-32
    return b"\x78\xda" + part * (count // block) + rest + struct.pack(">I", checksum)


def test_zeros_are_what_zlib_makes_of_them():
    assert zlib.decompress(deflate_zeros(3 * 2**20 + 5)) == bytes(3 * 2**20 + 5)


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bomb")
    pixels = deflate_zeros((1 + 3 * SIDE) * SIDE)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    start = b"\x89PNG\r\n\x1a\n" + header
    (folder / "bomb.png").write_bytes(start + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    (folder / "other.png").write_bytes(
        start + chunk(b"gAMA", b"\0\0\0\1") + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    return folder / "bomb.png"


@pytest.fixture(scope="module")
def refusals(bomb):
    """What each door said, one after another in one process, and the most memory in MiB by then."""
    command = [sys.executable, "-c", RUN, str(ROOT), str(bomb), json.dumps(DOORS)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    return {door: (message, megabytes) for door, message, megabytes in rows}, process.stderr[-500:]


@needs_memory_limit
@pytest.mark.parametrize("door", DOORS)
def test_huge_picture_is_refused_before_it_is_decoded(refusals, door):
    said, problem = refusals
    assert door in said, problem
    message, megabytes = said[door]
    assert SENTENCE in message
    assert megabytes < 400
