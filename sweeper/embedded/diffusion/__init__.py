"""Procedural diffusion: real sampler mathematics around a small analytic denoiser.

It is no diffusion model and was trained on nothing. A prompt is turned into a handful of composed "ideal latents"
(`text`, `scene`), these are the modes of a Gaussian mixture (`prior`), and the posterior mean of that mixture under
white noise is the exact denoiser that the schedules, samplers and guidance of ComfyUI are run on (`schedules`,
`solvers`, `guidance`). So seeds, steps, cfg, samplers, denoise and prompts move the picture the way users of real
models expect, in milliseconds, and the same on every machine. Areas, masks and times of a conditioning are in
`conditions`; control hints and references in `hints`. `vae` turns latents into
pictures and back.

The nodes that call this live in `sweeper.embedded.nodes`.
"""

from __future__ import annotations
