"""The report: a static folder that shows a run as a grid of pictures, and contact sheets of the same trials.

`dataset` makes the page's data out of the store's rows, `workflows` adds every trial's concrete workflow, `thumbnails`
makes small pictures and `sprites` very small ones on sheets, `folder` writes it all beside the page's own files
(`page/`); `sheets`, `sheet_pages`, `sheet_cells` and `lettering` draw contact sheets. Nothing here submits a job, and
nothing prints.
"""

from __future__ import annotations
