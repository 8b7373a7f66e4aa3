"""Read what a server says that a job was charged, and what is left on the account. Sans-IO.

What is known of them, as of ComfyUI 0.33.0 and its frontend of November 2026:

- A partner node of a ComfyUI shows a text with a line such as `Price: 6.33 credits`: what Comfy's proxy says in its
  header `X-Comfy-Credits-Used`, else what the node computes (comfy_api_nodes/util/client.py). Older ones wrote dollars:
  `Price: $0.0300`. The text is replaced, so the last one counts. A price of nothing is not shown.
- No answer of Comfy Cloud about a job has a documented amount. Should one have that header, or a `credits_used` beside
  the documented times in its `metrics`, it is the price of the job. Its absence does not mean that the job was free.
- `GET /api/billing/balance` of Comfy Cloud says what is left. Its fields are named `_micros` and contain cents
  (https://docs.comfy.org/api-reference/cloud/billing/get-workspace-usage-over-time).

Servers are not trusted: anything of another shape is ignored, and no amount is negative or beyond all reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from sweeper.comfy.protocol import Flow, ReportedCharges, ServerRequest
from sweeper.errors import SweeperError
from sweeper.model.money import COMFY_CREDITS_PER_USD, CURRENCY, MICROS, to_fraction, to_micros
from sweeper.schemas.values import is_number

CREDITS_HEADER: Final = "x-comfy-credits-used"
_CENTS_PER_USD: Final = 100.0
_MAX_AMOUNT: Final = 1e9  # credits, cents or dollars
_MAX_DIGITS: Final = 32
_PRICE_LINE: Final = re.compile(r"^Price: (?:\$([0-9][0-9,.]{0,30})|([0-9][0-9,.]{0,30}) credits)$", re.MULTILINE)


def read_price_text(text: str, credits_per_usd: int | Fraction = COMFY_CREDITS_PER_USD) -> int | None:
    """The price in the text that a partner node shows, in micro-dollars; None if it names none."""
    match = _PRICE_LINE.search(text)
    if match is None:
        return None
    amount = _read_amount((match[1] or match[2]).replace(",", ""))
    return None if amount is None else to_micros(to_fraction(amount) / (1 if match[1] else credits_per_usd))


def read_charged(details: Mapping[str, Any], headers: Mapping[str, str]) -> ReportedCharges | None:
    """What the answer about a job says that the whole job was charged; None if it does not say that."""
    metrics = details.get("metrics")
    amounts = (headers.get(CREDITS_HEADER), metrics.get("credits_used") if isinstance(metrics, Mapping) else None)
    credit_count = next((amount for value in amounts if (amount := _read_amount(value)) is not None), None)
    if credit_count is None:
        return None
    return ReportedCharges(whole=to_fraction(credit_count) * MICROS / COMFY_CREDITS_PER_USD)


def query_balance() -> Flow[float | None]:
    """What is left on the account, in USD, which is negative for a debt; None if the server does not say that."""
    response = yield ServerRequest("GET", "/api/billing/balance")
    try:
        balance = response.json_object() if response.status == 200 else {}
    except SweeperError:
        return None
    if str(balance.get("currency", CURRENCY)).upper() != CURRENCY:
        return None
    for name in ("effective_balance_micros", "amount_micros"):  # as the frontend reads them
        cents = _read_amount(balance.get(name), lowest=-_MAX_AMOUNT)
        if cents is not None:
            return round(cents / _CENTS_PER_USD, 6)
    return None


def _read_amount(value: Any, lowest: float = 0.0) -> float | None:
    """A number, or a text that is one, from `lowest` to `_MAX_AMOUNT`; None for anything else."""
    if isinstance(value, str) and len(value) <= _MAX_DIGITS:
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if is_number(value) and lowest <= value <= _MAX_AMOUNT else None
