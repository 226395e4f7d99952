"""`manage.py openapi`: write the OpenAPI document to docs/openapi.json, where it is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from devaipod_web.api.openapi import text

PATH = Path(settings.BASE_DIR) / "docs" / "openapi.json"


class Command(BaseCommand):
    """Writes the document of the code as it is now; a test says when the committed one is another."""

    help = "Write docs/openapi.json anew from the code (`make openapi`)."

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the file and say where."""
        PATH.write_text(text())
        self.stdout.write(f"{PATH.relative_to(settings.BASE_DIR)} is written")
