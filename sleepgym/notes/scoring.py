"""How well a note answers a query, and which of two notes is the stronger one.

The points are nanomem's: they come from how often words of the query occur, and from what the note says of itself.
"""

from __future__ import annotations

import math
from datetime import datetime

from sleepgym.notes.bullet import CONFIDENCES, SOURCES, Bullet, Tier, moment

IN_TEXT, IN_TOPIC = 2.0, 1.0
"""Points for each term of the query that is in the text of a note, and in its topic."""
IN_TITLE = 1.0
"""Points for each term that is in the title of its file; not nanomem's, and not given unless rare terms count more."""
HIGHEST_STANDING = 7.0
"""The most that :func:`standing` gives."""

_TIER: dict[str, float] = {"working": 2.0, "long_term": 1.0}
_STATUS: dict[str, float] = {"active": 2.0, "uncertain": -1.0}
_GONE = -3.0
_SOURCE: dict[str, float] = {"user_statement": 2.0, "inference": -1.0}
_CONFIDENCE: dict[str, float] = {"high": 1.0, "low": -1.0}


def standing(bullet: Bullet, section: Tier, now: datetime | None = None) -> float:
    """Points of a note whatever is asked: for tier, status, source and confidence.

    A line that names no source was typed by the user, and counts as their statement. A source that the format does
    not know gives no points.

    Args:
        bullet: The note.
        section: What the section that it is in stands for.
        now: The time at which it may have expired; None: not looked at.
    """
    source = _SOURCE.get(bullet.get("source") or SOURCES[0], 0.0)
    confidence = _CONFIDENCE.get(bullet.get("confidence") or "", 0.0)
    if not bullet.holds(section, now):
        return _TIER.get(bullet.tier(section), 0.0) + _GONE + source + confidence
    return _TIER[bullet.tier(section)] + _STATUS[bullet.status(now)] + source + confidence


def weight(found: int, total: int) -> float:
    """Inverse document frequency of a term: the rarer, the more a match of it says; never below 0.

    It is the one of BM25 (Robertson and Zaragoza 2009, eq. 3.1) with 1 added in the logarithm.

    Args:
        found: Notes that have the term.
        total: Notes that there are.
    """
    return math.log(1.0 + (total - found + 0.5) / (found + 0.5))


def strength(bullet: Bullet) -> tuple[int, int, datetime]:
    """What decides between two notes that contradict each other, the larger wins: source, confidence, date."""
    source, confidence = bullet.get("source") or SOURCES[0], bullet.get("confidence") or "medium"
    return (
        -SOURCES.index(source) if source in SOURCES else -len(SOURCES),
        -CONFIDENCES.index(confidence) if confidence in CONFIDENCES else -len(CONFIDENCES),
        moment(bullet.get("updated_at")) or datetime.min,
    )
