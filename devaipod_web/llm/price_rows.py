"""What can be done to prices that managers set: add, change, remove."""

from __future__ import annotations

from decimal import Decimal

from django.db import IntegrityError, transaction

from devaipod_web.accounts.models import User
from devaipod_web.errors import InvalidFields
from devaipod_web.llm.models import Price
from devaipod_web.llm.routes import MAX_PATTERN
from devaipod_web.projects.models import Project
from devaipod_web.reviews import audit

#: US dollars per million tokens, and per request; the dearest model of the price list costs 600.
MAX_USD = Decimal(100_000)
#: Parts of a price → whether they may be left out.
PARTS = {
    "sent": False,
    "received": False,
    "cached": True,
    "written": True,
    "reasoning": True,
    "request": False,
}


class InvalidPrice(InvalidFields):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-price"


def save(
    by: User,
    price: Price | None,
    *,
    pattern: str,
    project: Project | None = None,
    is_ceiling: bool = False,
    **parts: Decimal | None,
) -> Price:
    """Add a price (`price` None) or change one. `parts` are those of PARTS, in US dollars. Raises InvalidPrice."""
    pattern = pattern.strip()
    errors: dict[str, str] = {}
    if not (0 < len(pattern) <= MAX_PATTERN and pattern.isprintable() and " " not in pattern):
        errors["pattern"] = (
            f"A pattern has 1 to {MAX_PATTERN} characters and no spaces; * is any characters, ? is one."
        )
    for name, optional in PARTS.items():
        value = parts.get(name)
        if value is None and name == "request":
            value = Decimal(0)
        if value is None and not optional:
            errors[name] = "A price is needed here; 0 is one."
        elif value is not None and not (value.is_finite() and 0 <= value <= MAX_USD):
            errors[name] = f"A price is a number of US dollars from 0 to {MAX_USD:,}."
    if errors:
        raise InvalidPrice(errors)
    made = price is None
    row = price or Price()
    row.pattern, row.project, row.is_ceiling = pattern, project, is_ceiling
    for name in PARTS:
        value = parts.get(name)
        setattr(row, name, Decimal(0) if name == "request" and value is None else value)
    try:
        with transaction.atomic():
            row.save()
            audit.write(
                by,
                "price.added" if made else "price.changed",
                target=row.pattern,
                target_url=f"/prices/{row.key}/",
                detail={
                    "project": project.slug if project else None,
                    "is_ceiling": is_ceiling,
                    **{name: _text(getattr(row, name)) for name in PARTS},
                },
            )
    except IntegrityError:
        raise InvalidPrice({"pattern": f"There is such a price for {pattern} already."}) from None
    row.refresh_from_db()  # as the database keeps it, with its digits
    return row


def remove(by: User, price: Price) -> None:
    """Remove a price; the price list counts again."""
    with transaction.atomic():
        audit.write(by, "price.removed", target=price.pattern)
        price.delete()


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)
