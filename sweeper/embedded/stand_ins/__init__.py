"""Stand-ins: they run node classes that the server does not implement, from what an `object_info` says of them.

`class_descriptions` makes node classes of an `object_info`. When one runs (`stand_in_run`), `node_reading` reads its
inputs, `histories` says what they mean, and `output_values` makes its outputs. `README.md` of `sweeper/embedded`
has the rules.
"""
