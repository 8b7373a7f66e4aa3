"""Procedural pictures: what the embedded server draws where a workflow asks for a model.

`models` turns a prompt into features, `scene` composes a picture of them in a layout that the seed draws,
`painter` paints it into a latent as steps, cfg, sampler and scheduler say, and `vae` turns latents into pictures and
back. No model is run or read. The nodes that call this live in `sweeper.embedded.nodes`.
"""

from __future__ import annotations
