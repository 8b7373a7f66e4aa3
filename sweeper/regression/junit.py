"""Write a check as JUnit XML, which every CI system reads: one test case for each case."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Final

from sweeper.regression.comparison import FAILED, NOT_COMPARED, SAME, Comparison, Comparisons
from sweeper.store.containment import display_path

# Characters that XML 1.0 cannot hold, but a server's message or a prompt may.
_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit_xml(comparisons: Comparisons) -> bytes:
    """The check as UTF-8 XML.

    A changed, new or missing case is a failure. A case that failed or was not compared is an error. A new case that is
    allowed is skipped, not passed. A check without any case is an error too.
    """
    items = list(comparisons)
    errors = sum(comparisons.is_blocking(comparison) and _is_error(comparison) for comparison in items) + (not items)
    failures = sum(comparisons.is_blocking(comparison) and not _is_error(comparison) for comparison in items)
    skipped = sum(comparison.state != SAME and not comparisons.is_blocking(comparison) for comparison in items)
    suite = ET.Element(
        "testsuite", name=f"sweeper {comparisons.experiment}", tests=str(max(len(items), 1)), failures=str(failures),
        errors=str(errors), skipped=str(skipped), time=f"{sum(comparison.seconds or 0.0 for comparison in items):.3f}",
    )  # fmt: skip
    for comparison in items:
        element = ET.SubElement(
            suite,
            "testcase",
            classname=comparisons.experiment,
            name=_clean(comparison.case.name),
            time=f"{comparison.seconds or 0.0:.3f}",
        )
        if comparison.state == SAME:
            continue
        message = _clean(f"{comparison.state}: {comparison.reason}")
        if not comparisons.is_blocking(comparison):
            ET.SubElement(element, "skipped", message=message)
            continue
        problem = ET.SubElement(
            element, "error" if _is_error(comparison) else "failure", message=message, type=comparison.state
        )
        problem.text = _clean(describe_case(comparison))
    if not items:
        element = ET.SubElement(suite, "testcase", classname=comparisons.experiment, name="all cases")
        ET.SubElement(element, "error", message="nothing was compared", type=NOT_COMPARED)
    suites = ET.Element("testsuites")
    suites.append(suite)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text


def describe_case(comparison: Comparison) -> str:
    """All facts about a case, one per line."""
    lines = [f"{comparison.state}: {comparison.reason}"]
    lines += [f"{name}: {value:.6g}" for name, value in comparison.metrics.items()]
    lines += [f"accepted: {display_path(comparison.accepted)}"] if comparison.accepted else []
    lines += [f"now: {display_path(comparison.now)}"] if comparison.now else []
    lines += [f"servers: {comparison.servers}"] if comparison.servers else []
    lines += [f"verdict: {comparison.verdict}"] if comparison.verdict else []
    return "\n".join(lines)


def _is_error(comparison: Comparison) -> bool:
    return comparison.state in (FAILED, NOT_COMPARED)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
