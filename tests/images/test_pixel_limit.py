"""A small file that declares a huge picture: every door refuses it before it decodes anything, in little memory."""

from __future__ import annotations

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
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from sweeper.errors import SweeperError
file = Path(sys.argv[2])
try:
    exec(sys.argv[3])
except SweeperError as error:
    print(error)
status = Path("/proc/self/status")  # where there is none: ru_maxrss, which begins with that of the parent process
if status.exists():
    (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak) // 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bomb")
    packer = zlib.compressobj(9)
    rows = b"\0" * (1 + 3 * SIDE)
    pixels = b"".join([*(packer.compress(rows) for _ in range(SIDE)), packer.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    start = b"\x89PNG\r\n\x1a\n" + header
    (folder / "bomb.png").write_bytes(start + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    (folder / "other.png").write_bytes(
        start + chunk(b"gAMA", b"\0\0\0\1") + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    return folder / "bomb.png"


@needs_memory_limit
@pytest.mark.parametrize("door", DOORS)
def test_huge_picture_is_refused_before_it_is_decoded(bomb, door):
    command = [sys.executable, "-c", RUN, str(ROOT), str(bomb), DOORS[door]]
    process = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    *errors, megabytes = process.stdout.splitlines() or ["", "0"]
    assert SENTENCE in "\n".join(errors), process.stderr[-500:]
    assert int(megabytes) < 400
