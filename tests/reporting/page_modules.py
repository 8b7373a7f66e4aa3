"""Scripts that use the modules of the report's page by name: the page itself has none of them as a global name."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from sweeper.reporting.write_report import PAGE_FOLDER
from sweeper.serving.page_files import join_script

_NAMES = {
    "Expression": "expression", "MarkExport": "mark_export", "Params": "params", "TextWidth": "text_width",
    "ValueText": "value_text", "ViewState": "state", "Workflow": "workflow",
}  # fmt: skip


def evaluate(page: Any, script: str, *arguments: Any) -> Any:
    """Evaluate a script in a page, with modules of its own."""
    page.evaluate(_join_modules())
    return page.evaluate(script, *arguments)


@cache
def _join_modules() -> str:
    lines = [f'import * as {name} from "{PAGE_FOLDER}/js/{file}.js";\n' for name, file in _NAMES.items()]
    with tempfile.TemporaryDirectory() as folder:
        main = Path(folder, "main.js")
        main.write_text(f"{''.join(lines)}Object.assign(globalThis, {{ {', '.join(_NAMES)} }});\n", "utf-8")
        return join_script(main)
