"""LoadImage, SaveImage and PreviewImage: names, counters, metadata, formats, and paths out of a folder."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sweeper.embedded.nodes import NODE_CLASSES

# ComfyUI raises a plain Exception here whose first line is this.
REFUSED = r"^\*{4} ERROR: Saving image outside the output folder is not allowed\."
GREY = np.full((1, 4, 6, 3), 0.5, np.float32)


def test_picture_is_saved_under_the_next_free_number(context: Any) -> None:
    (context.output_dir / "fox_00007_.png").write_bytes(b"")
    (context.output_dir / "foxes_00099_.png").write_bytes(b"")
    result = context.ui("SaveImage", images=np.concatenate([GREY, GREY]), filename_prefix="fox")
    assert result == [
        {"filename": "fox_00008_.png", "subfolder": "", "type": "output"},
        {"filename": "fox_00009_.png", "subfolder": "", "type": "output"},
    ]


def test_pixels_are_cut_off_not_rounded_and_clipped(context: Any) -> None:
    row = np.array([-0.2, 0.0, 0.5, 0.999, 1.0, 7.0], np.float32)
    [saved] = context.ui("SaveImage", images=np.repeat(row[None, None, :, None], 3, axis=3), filename_prefix="a")
    with Image.open(context.output_dir / saved["filename"]) as image:
        assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]


def test_png_contains_the_graph_and_extra_information(context: Any) -> None:
    context.extra_pnginfo = {"workflow": {"nodes": []}, "sweeper": {"cell": 7}}
    [saved] = context.ui("SaveImage", images=GREY, filename_prefix="a")
    with Image.open(context.output_dir / saved["filename"]) as image:
        assert {key: json.loads(value) for key, value in image.text.items()} == {
            "prompt": context.prompt,
            "workflow": {"nodes": []},
            "sweeper": {"cell": 7},
        }


def test_a_prefix_may_hold_folders(context: Any) -> None:
    [saved] = context.ui("SaveImage", images=GREY, filename_prefix="sweep/a/b")
    assert saved == {"filename": "b_00001_.png", "subfolder": "sweep/a", "type": "output"}
    assert (context.output_dir / "sweep/a/b_00001_.png").is_file()


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/tmp/x", "..", "a/../..", "x\0y"])
def test_prefix_out_of_the_folder_is_refused(context: Any, prefix: str) -> None:
    before = sorted(context.base.rglob("*"))
    with pytest.raises(Exception, match=REFUSED):
        context.ui("SaveImage", images=GREY, filename_prefix=prefix)
    assert sorted(context.base.rglob("*")) == before


def test_symbolic_link_out_of_the_folder_is_refused(context: Any, tmp_path_factory: Any) -> None:
    (context.output_dir / "way").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(Exception, match=REFUSED):
        context.ui("SaveImage", images=GREY, filename_prefix="way/x")


def test_concurrent_jobs_never_share_a_name(context: Any) -> None:
    shades = [np.full((2, 4, 4, 3), i / 24 + 0.01, np.float32) for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        result = list(pool.map(lambda shade: context.ui("SaveImage", images=shade, filename_prefix="race"), shades))
    names = [entry["filename"] for entries in result for entry in entries]
    assert len(set(names)) == 48
    for shade, entries in zip(shades, result, strict=True):
        for entry in entries:
            with Image.open(context.output_dir / entry["filename"]) as image:
                assert np.asarray(image)[0, 0, 0] == int(np.float32(255) * shade[0, 0, 0, 0])
    assert sorted(path.name for path in context.output_dir.iterdir()) == sorted(names)  # no drafts left


def test_a_preview_goes_to_the_temporary_folder(context: Any) -> None:
    [saved] = context.ui("PreviewImage", images=GREY)
    assert saved["type"] == "temp"
    assert saved["filename"].startswith("ComfyUI_temp_")
    assert (context.temp_dir / saved["filename"]).is_file()


def put(context: Any, name: str, image: Image.Image, **options: Any) -> str:
    image.save(context.input_dir / name, **options)
    return name


@pytest.mark.parametrize(("value", "text"), [("a fox", "a fox"), (7, "7"), ({"width": 7}, '{"width": 7}')])
def test_shown_text_is_also_passed_on(context: Any, value: Any, text: str) -> None:
    assert context.run("PreviewAny", source=value) == text


def test_mask_is_the_inverted_alpha(context: Any) -> None:
    name = put(context, "a.png", Image.new("RGBA", (5, 3), (255, 0, 51, 51)))
    image, mask = context.run("LoadImage", image=name)
    assert image.shape == (1, 3, 5, 3)
    assert image[0, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    assert mask.shape == (1, 3, 5)
    assert mask[0, 0, 0] == pytest.approx(0.8)


def test_a_picture_without_alpha_has_an_empty_mask_of_64(context: Any) -> None:
    _, mask = context.run("LoadImage", image=put(context, "a.jpg", Image.new("RGB", (5, 3))))
    assert mask.shape == (1, 64, 64)
    assert not mask.any()


def test_a_palette_with_transparency_has_a_mask_too(context: Any) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 255, 0])
    image, mask = context.run("LoadImage", image=put(context, "p.png", palette, transparency=1))
    assert image[0, 0, 0].tolist() == [1, 1, 0]
    assert mask.shape == (1, 4, 4)
    assert mask.all()


def test_a_palette_with_an_alpha_per_entry_is_read_without_a_warning(context: Any) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 255, 255, 0])
    palette.putpixel((1, 0), 1)
    image, mask = context.run("LoadImage", image=put(context, "p.png", palette, transparency=b"\xff\x40"))
    assert image[0, 0].tolist() == [[0, 0, 0], [1, 1, 0]]
    assert mask[0, 0].tolist() == pytest.approx([0, 1 - 64 / 255])


@pytest.mark.parametrize(("channel", "expected"), [("red", 1.0), ("green", 0.0), ("blue", 0.2), ("alpha", 0.8)])
def test_one_channel_is_loaded_as_a_mask(context: Any, channel: str, expected: float) -> None:
    name = put(context, "a.png", Image.new("RGBA", (5, 3), (255, 0, 51, 51)))
    mask = context.run("LoadImageMask", image=name, channel=channel)
    assert mask.shape == (1, 3, 5)
    assert mask[0, 0, 0] == pytest.approx(expected)


def test_mask_file_is_checked_and_fingerprinted(context: Any) -> None:
    node = NODE_CLASSES["LoadImageMask"]
    assert node.input_files == {"image": "image"}
    name = put(context, "a.png", Image.new("L", (2, 2)))
    result = node.fingerprint(context, image=name, channel="red")
    assert result == hashlib.sha256((context.input_dir / name).read_bytes()).hexdigest()


def test_picture_is_rotated_by_its_exif(context: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees to the right
    name = put(context, "turned.jpg", Image.new("RGB", (8, 4)), exif=exif)
    image, _ = context.run("LoadImage", image=name)
    assert image.shape == (1, 8, 4, 3)


def test_the_frames_of_an_animation_are_a_batch(context: Any) -> None:
    frames = [Image.new("RGB", (4, 4), (40 * i, 0, 0)) for i in range(3)]
    name = put(context, "move.gif", frames[0], save_all=True, append_images=frames[1:])
    image, mask = context.run("LoadImage", image=name)
    assert image.shape == (3, 4, 4, 3)
    assert len(mask) == 3
    assert image[2].mean() > image[1].mean() > image[0].mean()


def test_annotation_selects_another_folder(context: Any) -> None:
    Image.new("RGB", (2, 2)).save(context.output_dir / "done.png")
    assert context.run("LoadImage", image="done.png [output]")[0].shape == (1, 2, 2, 3)


@pytest.mark.parametrize(
    "name", ["nope.png", "../secret.png", "/etc/hostname", "sub/../../secret.png", "", "a\0b", ".."]
)
def test_missing_or_outside_file_is_an_invalid_image_file(context: Any, name: str) -> None:
    Image.new("RGB", (2, 2)).save(context.base / "secret.png")
    assert context.find_input(name) is None
    with pytest.raises(FileNotFoundError, match="Invalid image file"):
        context.run("LoadImage", image=name)


def test_fingerprint_depends_on_the_content_not_the_name(context: Any) -> None:
    name = put(context, "a.png", Image.new("RGB", (2, 2)))
    fingerprint = NODE_CLASSES["LoadImage"].fingerprint
    first = fingerprint(context, image=name)
    assert first == hashlib.sha256((context.input_dir / name).read_bytes()).hexdigest()
    put(context, "a.png", Image.new("RGB", (2, 2), "red"))
    assert fingerprint(context, image=name) != first


def test_failed_write_leaves_no_file(context: Any) -> None:
    context.extra_pnginfo = {"\u4e2d": 1}  # a PNG keyword must be Latin-1
    with pytest.raises(UnicodeEncodeError):
        context.ui("SaveImage", images=GREY, filename_prefix="a")
    context.extra_pnginfo = {}
    with pytest.raises(TypeError):
        context.ui("SaveImage", images=np.zeros((1, 4, 4, 5), np.float32), filename_prefix="b")
    assert list(context.output_dir.iterdir()) == []
