"""What a cell leaves behind: one table that JSON holds, of a network that was pruned or of why it
was not.
"""

from __future__ import annotations

import json
from typing import Any

from niwaki.core.errors import NiwakiError
from niwaki.core.plan import Plan
from niwaki.core.records import Record
from niwaki.core.work import Lost

DONE, FAILED = "done", "failed"
Outcome = dict[str, Any]
LONGEST = 400  # characters of a reason


def measured(record: Record, plan: Plan) -> Outcome:
    """Of a pruned network."""
    return {
        "status": DONE,
        "record": json.loads(record.to_json()),
        "plan": json.loads(plan.to_json()),
    }


def failed(error: Exception) -> Outcome:
    """Why there is no network: a sentence of niwaki's, or what the code of others raised."""
    text = " ".join(str(error).split())[:LONGEST]
    known = isinstance(error, NiwakiError)
    return {"status": FAILED, "reason": text if known else f"{type(error).__name__}: {text}"}


def outcome_of(given: Outcome | Lost) -> Outcome:
    """What a worker gave, or what is said of one that died."""
    if not isinstance(given, Lost):
        return given
    if given.raised is not None:
        return failed(given.raised)
    return {"status": FAILED, "reason": given.reason}


def record_of(outcome: Outcome) -> Record:
    """The record of a cell that is done."""
    return Record.from_json(json.dumps(outcome["record"]), "a cell's record")


def plan_of(outcome: Outcome) -> Plan:
    """The plan of a cell that is done."""
    return Plan.from_json(json.dumps(outcome["plan"]))
