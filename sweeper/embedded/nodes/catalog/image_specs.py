"""Latents, pictures, files and primitives: as ComfyUI 0.3.64's object_info describes them."""

from __future__ import annotations

import mimetypes

from sweeper.embedded.nodes.base import Folders, InputSpec, NodeClass
from sweeper.embedded.nodes.catalog.spec_builders import SIZE_MAX, combo, integer, link, node, number, text

_LATENT_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")
_IMAGE_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
_CROP = combo(("disabled", "center"))
_BLENDS = ["normal", "multiply", "screen", "overlay", "soft_light", "difference"]
_POST = "comfy_extras.nodes_post_processing"
_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
_INT_MAX = 2**63 - 1


def list_input_files(folders: Folders, *, kinds: tuple[str, ...] = (), suffix: str = "") -> list[str]:
    """The files of the input folder that are of one of these kinds, by their suffix, or end so; sorted.

    There are none if there is no such folder.
    """
    if not folders.input_dir.is_dir():
        return []
    names = [path.name for path in folders.input_dir.iterdir() if path.is_file()]
    if suffix:
        return sorted(name for name in names if name.endswith(suffix))
    return sorted(name for name in names if (mimetypes.guess_type(name)[0] or "").split("/")[0] in kinds)


def list_input_images(folders: Folders) -> list[str]:
    return list_input_files(folders, kinds=("image",))


def _side(default: int, low: int, step: int) -> InputSpec:
    return integer(default, low, SIZE_MAX, step)


_LATENTS: tuple[NodeClass, ...] = (
    node(
        "EmptyLatentImage",
        ("latents", "empty"),
        "latent",
        {
            "width": _side(512, 16, 8),
            "height": _side(512, 16, 8),
            "batch_size": integer(1, 1, 4096),
        },
        ("LATENT",),
        title="Empty Latent Image",
    ),
    node(
        "EmptySD3LatentImage",
        ("latents", "empty_sd3"),
        "latent/sd3",
        {"width": _side(1024, 16, 16), "height": _side(1024, 16, 16), "batch_size": integer(1, 1, 4096)},
        ("LATENT",),
        title=None,
        module="comfy_extras.nodes_sd3",
        v3=True,
    ),
    node(
        "LatentUpscale",
        ("latents", "upscale"),
        "latent",
        {
            "samples": link("LATENT"),
            "upscale_method": combo(_LATENT_METHODS),
            "width": _side(512, 0, 8),
            "height": _side(512, 0, 8),
            "crop": _CROP,
        },
        ("LATENT",),
        title="Upscale Latent",
    ),
    node(
        "LatentUpscaleBy",
        ("latents", "upscale_by"),
        "latent",
        {
            "samples": link("LATENT"),
            "upscale_method": combo(_LATENT_METHODS),
            "scale_by": number(1.5, 0.01, 8.0, 0.01),
        },
        ("LATENT",),
        title="Upscale Latent By",
    ),
    node(
        "RepeatLatentBatch",
        ("latents", "repeat"),
        "latent/batch",
        {"samples": link("LATENT"), "amount": integer(1, 1, 64)},
        ("LATENT",),
        title="Repeat Latent Batch",
    ),
    node(
        "VAEDecode",
        ("latents", "vae_decode"),
        "latent",
        {
            "samples": link("LATENT"),
            "vae": link("VAE"),
        },
        ("IMAGE",),
        title="VAE Decode",
    ),
    node(
        "VAEEncode",
        ("latents", "vae_encode"),
        "latent",
        {"pixels": link("IMAGE"), "vae": link("VAE")},
        ("LATENT",),
        title="VAE Encode",
    ),
    node(
        "VAEDecodeTiled",
        ("latents", "vae_decode_tiled"),
        "_for_testing",
        {
            "samples": link("LATENT"),
            "vae": link("VAE"),
            "tile_size": integer(512, 64, 4096, 32),
            "overlap": integer(64, 0, 4096, 32),
            "temporal_size": integer(64, 8, 4096, 4),
            "temporal_overlap": integer(8, 4, 4096, 4),
        },
        ("IMAGE",),
        title="VAE Decode (Tiled)",
    ),
)

_PICTURES: tuple[NodeClass, ...] = (
    node(
        "EmptyImage",
        ("pictures", "empty"),
        "image",
        {
            "width": _side(512, 1, 1),
            "height": _side(512, 1, 1),
            "batch_size": integer(1, 1, 4096),
            "color": integer(0, 0, 0xFFFFFF, 1, display="color"),
        },
        ("IMAGE",),
    ),
    node(
        "ImageScale",
        ("pictures", "scale"),
        "image/upscaling",
        {
            "image": link("IMAGE"),
            "upscale_method": combo(_IMAGE_METHODS),
            "width": _side(512, 0, 1),
            "height": _side(512, 0, 1),
            "crop": _CROP,
        },
        ("IMAGE",),
        title="Upscale Image",
    ),
    node(
        "ImageScaleBy",
        ("pictures", "scale_by"),
        "image/upscaling",
        {
            "image": link("IMAGE"),
            "upscale_method": combo(_IMAGE_METHODS),
            "scale_by": number(1.0, 0.01, 8.0, 0.01),
        },
        ("IMAGE",),
        title="Upscale Image By",
    ),
    node("ImageInvert", ("pictures", "invert"), "image", {"image": link("IMAGE")}, ("IMAGE",), title="Invert Image"),
    node(
        "ImageBlur",
        ("pictures", "blur"),
        "image/postprocessing",
        {
            "image": link("IMAGE"),
            "blur_radius": integer(1, 1, 31, 1),
            "sigma": number(1.0, 0.1, 10.0, 0.1),
        },
        ("IMAGE",),
        title=None,
        module=_POST,
        v3=True,
    ),
    node(
        "ImageBlend",
        ("pictures", "blend"),
        "image/postprocessing",
        {
            "image1": link("IMAGE"),
            "image2": link("IMAGE"),
            "blend_factor": number(0.5, 0.0, 1.0, 0.01),
            "blend_mode": ("COMBO", {"multiselect": False, "options": _BLENDS}),
        },
        ("IMAGE",),
        title=None,
        module=_POST,
        v3=True,
    ),
    node(
        "ImageSharpen",
        ("pictures", "sharpen"),
        "image/postprocessing",
        {
            "image": link("IMAGE"),
            "sharpen_radius": integer(1, 1, 31, 1),
            "sigma": number(1.0, 0.1, 10.0, 0.01),
            "alpha": number(1.0, 0.0, 5.0, 0.01),
        },
        ("IMAGE",),
        title=None,
        module=_POST,
        v3=True,
    ),
    node(
        "ImageBatch",
        ("pictures", "batch"),
        "image",
        {"image1": link("IMAGE"), "image2": link("IMAGE")},
        ("IMAGE",),
        title="Batch Images",
    ),
    node(
        "ImageCrop",
        ("pictures", "crop"),
        "image/transform",
        {
            "image": link("IMAGE"),
            "width": _side(512, 1, 1),
            "height": _side(512, 1, 1),
            "x": _side(0, 0, 1),
            "y": _side(0, 0, 1),
        },
        ("IMAGE",),
        title="Image Crop",
        module="comfy_extras.nodes_images",
    ),
)

_FILES: tuple[NodeClass, ...] = (
    node(
        "LoadImage",
        ("files", "load_image"),
        "image",
        {"image": ([], {"image_upload": True})},
        ("IMAGE", "MASK"),
        title="Load Image",
        fingerprint=("files", "fingerprint"),
        check=("files", "check"),
        combos={"image": list_input_images},
    ),
    node(
        "SaveImage",
        ("files", "save_image"),
        "image",
        {
            "images": link("IMAGE"),
            "filename_prefix": text(default="ComfyUI"),
        },
        (),
        title="Save Image",
        hidden=_HIDDEN,
        output_node=True,
    ),
    node(
        "SaveImageWebsocket",
        ("files", "send_images"),
        "api/image",
        {"images": link("IMAGE")},
        (),
        output_node=True,
        fingerprint=("files", "never_the_same"),
        module="custom_nodes.websocket_image_save",
    ),
    node(
        "PreviewImage",
        ("files", "preview_image"),
        "image",
        {"images": link("IMAGE")},
        (),
        title="Preview Image",
        hidden=_HIDDEN,
        output_node=True,
    ),
)


def _primitive(name: str, title: str, spec: InputSpec, kind: str) -> NodeClass:
    return node(
        name,
        ("primitives", "value"),
        "utils/primitive",
        {"value": spec},
        (kind,),
        title=title,
        module="comfy_extras.nodes_primitive",
        v3=True,
    )


_PRIMITIVES: tuple[NodeClass, ...] = (
    _primitive("PrimitiveString", "String", text(multiline=False), "STRING"),
    _primitive("PrimitiveStringMultiline", "String (Multiline)", text(multiline=True), "STRING"),
    _primitive("PrimitiveInt", "Int", integer(None, -_INT_MAX, _INT_MAX, control_after_generate=True), "INT"),
    _primitive("PrimitiveFloat", "Float", number(None, -_INT_MAX, _INT_MAX), "FLOAT"),
    _primitive("PrimitiveBoolean", "Boolean", ("BOOLEAN", {}), "BOOLEAN"),
)

NODES: tuple[NodeClass, ...] = (*_LATENTS, *_PICTURES, *_FILES, *_PRIMITIVES)
