"""Stand-ins: they run node classes that the server does not implement, from what an `object_info` says of them.

`class_descriptions` makes node classes of an `object_info`. When one of them runs, `node_reading` reads its inputs,
`histories` and `features` say what they mean, `output_values` makes its outputs, `shown_outputs` saves them, and
`marks` marks the pictures. `README.md` of `sweeper/embedded` has the rules.
"""

from __future__ import annotations
