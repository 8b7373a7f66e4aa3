"""Stand-ins: they run node classes that the server does not implement, from what an `object_info` says of them.

`class_descriptions` makes node classes of an `object_info`, of which `ClassShape` is what a stand-in knows. When one
runs (`stand_in_run`), `histories` reads its inputs and says what they mean, and `output_values` makes its outputs.
`README.md` of `sweeper/embedded` has the rules.
"""

from __future__ import annotations
