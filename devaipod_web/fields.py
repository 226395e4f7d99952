"""Columns that several rooms share."""

from __future__ import annotations

from typing import Any

from django.db import models

from devaipod_web.home import KEY_LENGTH, new_key


class KeyField(models.CharField):  # type: ignore[type-arg]
    """The public key of a row; the integer id never leaves the database."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(max_length=KEY_LENGTH, default=new_key, unique=True, editable=False)
        super().__init__(*args, **kwargs)
