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
from niwaki.pruning.result import Result

DONE, FAILED = "done", "failed"
Outcome = dict[str, Any]
LONGEST = 400  # characters of a reason


def measured(result: Result) -> Outcome:
    """Record and plan of a pruned network."""
    return {
        "status": DONE,
        "record": json.loads(result.record.to_json()),
        "plan": json.loads(result.plan.to_json()),
    }


def failed(error: Exception) -> Outcome:
    """Why there is no network: a sentence of niwaki's, or what the code of others raised."""
    text = " ".join(str(error).split())[:LONGEST]
    known = isinstance(error, NiwakiError)
    return {"status": FAILED, "reason": text if known else f"{type(error).__name__}: {text}"}


def outcome_of(found: Outcome | Lost) -> Outcome:
    """What a worker gave, or what is said of one that died."""
    if not isinstance(found, Lost):
        return found
    if found.raised is not None:
        return failed(found.raised)
    return {"status": FAILED, "reason": found.reason}


def record_of(outcome: Outcome) -> Record:
    """The record of a cell that is done."""
    return Record.from_json(json.dumps(outcome["record"]), "a cell's record")


def plan_of(outcome: Outcome) -> Plan:
    """The plan of a cell that is done."""
    return Plan.from_json(json.dumps(outcome["plan"]))
