"""Two prompts of 150 words that differ in one word in the middle, and their labels."""

from __future__ import annotations

BEFORE = "A cinematic wide photograph of a lighthouse on a cliff above the waves, " + "with clouds and gulls, " * 16
AFTER = "in soft evening light, " + "very sharp and detailed, " * 15 + "35mm"
PROMPTS = [f"{BEFORE}drawn in {medium} {AFTER}" for medium in ("charcoal", "watercolour")]
LABELS = ["…drawn in charcoal in soft…", "…drawn in watercolour in soft…"]
