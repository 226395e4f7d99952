"""`manage.py openapi`: write the OpenAPI document to docs/openapi.json, where it is committed."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from devaipod_web import home
from devaipod_web.api.openapi import text

PATH = home.ROOT / "docs" / "openapi.json"


class Command(BaseCommand):
    """Writes the document of the code as it is now; a test says when the committed one is another."""

    help = "Write docs/openapi.json anew from the code (`make openapi`)."

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the file and say where."""
        PATH.write_text(text())
        self.stdout.write(f"{PATH.relative_to(home.ROOT)} is written")
