"""What every page's frame needs: who looks, what they may, where they are, and how much waits."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from devaipod_web.accounts.permissions import LEAST_ROLE, ORDER, Permission, Role, role_of
from devaipod_web.health import drain, queries
from devaipod_web.runs import overview

THEME_COOKIE = "devaipod_theme"
THEMES = ("light", "dark")
#: First part of a page's address → the rail's entry that it belongs to.
SECTIONS = {"": "now", "routes": "providers", "prices": "providers"}
#: (view name, label, what its count means)
LINKS = (
    ("now", "Now", "need a person"),
    ("runs", "Runs", ""),
    ("reviews", "Reviews", "wait for review"),
    ("projects", "Projects", ""),
    ("spend", "Spend", "runs without budget"),
    ("services", "Services", "not well"),
)
SETTINGS = ("providers", "targets", "webhooks", "people", "tokens")


class Frame:
    """The frame of one request's page. Everything is computed when a template first asks, so fragments cost nothing."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def role(self) -> Role | None:
        """The person's role; None for a stranger and for somebody who is not signed in."""
        user = getattr(self._request, "user", None)
        return role_of(user) if user is not None else None

    def _at_least(self, role: Role) -> bool:
        return self.role is not None and ORDER.index(self.role) >= ORDER.index(role)

    @property
    def may_launch(self) -> bool:
        """Launch, prompt, answer, stop."""
        return self._at_least(Role.OPERATOR)

    @property
    def may_attach(self) -> bool:
        """Have a terminal in a pod."""
        return self._at_least(LEAST_ROLE[Permission.ATTACH])

    @property
    def may_review(self) -> bool:
        """Promote and reject."""
        return self._at_least(Role.REVIEWER)

    @property
    def may_manage(self) -> bool:
        """Projects, providers, people, audit."""
        return self._at_least(Role.MANAGER)

    @property
    def may(self) -> str:
        """The same as words, for the page's style and scripts."""
        words = (
            ("launch", self.may_launch),
            ("review", self.may_review),
            ("manage", self.may_manage),
        )
        return " ".join(word for word, given in words if given)

    @property
    def theme(self) -> str:
        """`light`, `dark`, or empty for the system's."""
        chosen = self._request.COOKIES.get(THEME_COOKIE, "")
        return chosen if chosen in THEMES else ""

    @property
    def section(self) -> str:
        """Which of the rail's entries is the present one."""
        if self._request.path == reverse("rail"):
            return self._request.GET.get("at", "")[:20]
        first = self._request.path.strip("/").split("/")[0]
        return SECTIONS.get(first, first)

    @property
    def in_settings(self) -> bool:
        """Whether the page is one of the settings."""
        return self.section in SETTINGS

    @property
    def query(self) -> str:
        """What was searched for, on the page of results."""
        return self._request.GET.get("q", "")[:200] if self.section == "search" else ""

    @cached_property
    def links(self) -> list[dict[str, Any]]:
        """The rail's entries with how much waits behind each."""
        needs, reviews, incidents = overview.waiting_counts()
        counts = {
            "now": needs,
            "reviews": reviews,
            "spend": incidents,
            "services": queries.unwell(),
        }
        names = [*LINKS, ("audit", "Audit", "")] if self.may_manage else list(LINKS)
        return [
            {
                "name": name,
                "label": label,
                "means": means,
                "count": counts.get(name, 0),
                "current": name == self.section,
            }
            for name, label, means in names
        ]

    @cached_property
    def draining_since(self) -> datetime | None:
        """Since when no new runs are taken; None while they are."""
        return drain.since() if self.role is not None else None

    @property
    def palette(self) -> list[dict[str, str]]:
        """Every page and action that the person may reach."""
        pages = [("Now", "now", "g n"), ("Runs", "runs", "g r"), ("Reviews", "reviews", "g v")]
        pages += [("Projects", "projects", "g p"), ("Services", "services", "g s")]
        pages += [
            ("Spend", "spend", ""),
            ("Budgets", "budgets", ""),
            ("Incidents", "incidents", ""),
        ]
        pages += [("Help", "help", "?")]
        pages += [("My account", "account", ""), ("API tokens", "tokens", "")]
        pages += [("API documentation", "api_docs", "")]
        if self.may_launch:
            pages.insert(0, ("New run", "run_new", "c"))
        if self.may_manage:
            pages += [("New project", "project_new", ""), ("Audit", "audit", "")]
            pages += [("New budget", "budget_new", "")]
            pages += [("Providers", "providers", ""), ("New provider", "provider_new", "")]
            pages += [("Routes", "routes", ""), ("New route", "route_new", "")]
            pages += [("Prices", "prices", ""), ("New price", "price_new", "")]
            pages += [("Targets", "targets", ""), ("New cluster", "target_new", "")]
            pages += [("Webhooks", "webhooks", ""), ("New webhook", "webhook_new", "")]
            pages += [("People", "people", ""), ("Add a person", "person_new", "")]
        return [{"label": label, "url": reverse(name), "key": key} for label, name, key in pages]


def frame(request: HttpRequest) -> dict[str, Any]:
    """The frame, and the request's CSP nonce."""
    return {"csp_nonce": getattr(request, "csp_nonce", ""), "frame": Frame(request)}
