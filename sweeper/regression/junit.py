"""A check as JUnit XML, which every CI system reads: one test case for each case, its state as its outcome."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Final

from sweeper.regression.comparison import FAILED, NOT_COMPARED, SAME, Comparison, Comparisons
from sweeper.store.experiment_path import display_path

# What XML 1.0 cannot hold, whatever a server or a prompt says.
_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit_xml(found: Comparisons) -> bytes:
    """The check as UTF-8 XML. A changed, new or missing case is a failure, one that failed or was never compared an
    error; a new case that is allowed is skipped, never passed. A check without any case is an error too.
    """
    items = list(found)
    errors = sum(found.is_blocking(one) and _is_error(one) for one in items) + (not items)
    failures = sum(found.is_blocking(one) and not _is_error(one) for one in items)
    skipped = sum(one.state != SAME and not found.is_blocking(one) for one in items)
    suite = ET.Element(
        "testsuite", name=f"sweeper {found.experiment}", tests=str(max(len(items), 1)), failures=str(failures),
        errors=str(errors), skipped=str(skipped), time=f"{sum(one.seconds or 0.0 for one in items):.3f}",
    )  # fmt: skip
    for one in items:
        place = ET.SubElement(
            suite, "testcase", classname=found.experiment, name=_clean(one.case.name), time=f"{one.seconds or 0.0:.3f}"
        )
        if one.state == SAME:
            continue
        message = _clean(f"{one.state}: {one.reason}")
        if not found.is_blocking(one):
            ET.SubElement(place, "skipped", message=message)
            continue
        told = ET.SubElement(place, "error" if _is_error(one) else "failure", message=message, type=one.state)
        told.text = _clean(describe_case(one))
    if not items:
        place = ET.SubElement(suite, "testcase", classname=found.experiment, name="all cases")
        ET.SubElement(place, "error", message="nothing was compared", type=NOT_COMPARED)
    suites = ET.Element("testsuites")
    suites.append(suite)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text


def describe_case(one: Comparison) -> str:
    """All that is known of a case, one fact a line."""
    lines = [f"{one.state}: {one.reason}"]
    lines += [f"{name}: {value:.6g}" for name, value in one.metrics.items()]
    lines += [f"accepted: {display_path(one.accepted)}"] if one.accepted else []
    lines += [f"now: {display_path(one.now)}"] if one.now else []
    lines += [f"servers: {one.servers}"] if one.servers else []
    lines += [f"whose change: {one.verdict}"] if one.verdict else []
    return "\n".join(lines)


def _is_error(one: Comparison) -> bool:
    return one.state in (FAILED, NOT_COMPARED)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
