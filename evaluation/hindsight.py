"""What an advisor may have known before it read the news of a run."""

from evaluation.display import date
from evaluation.run import NEVER
from evaluation.trading import Report


def hindsight(report: Report) -> str:
    """What the advisor may have known before it read the news; "" where that is nothing."""
    one = report.advisor
    if one is None or (one.learnt_until is not None and one.learnt_until < report.start):
        return ""
    knew = "nobody says until when its weights know the world"
    if one.learnt_until is not None:
        knew = f"its weights know the world until {date(one.learnt_until)}, and this run begins on {date(report.start)}"
    return f"Advisor {one.backend}: {knew}. What it made of real news of that time may be hindsight."


def advisor_lines(report: Report) -> list[str]:
    """How what the advisor knew lies to the run, in a sentence; none where nobody read news."""
    one = report.advisor
    if one is None:
        return []
    if told := hindsight(report):
        return [told]
    if one.learnt_until is None or one.learnt_until == NEVER:
        return [f"Advisor {one.backend}: it has learnt nothing."]
    return [
        f"Advisor {one.backend}: its weights know the world until {date(one.learnt_until)}; this run begins after it."
    ]


def advisor_facts(report: Report) -> list[tuple[str, str]]:
    """The same with the id, for the table of facts."""
    return [] if report.advisor is None else [("Advisor", f"{report.advisor.model_id}; {advisor_lines(report)[0]}")]
