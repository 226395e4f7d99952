"""Addresses of Now, runs and the frame; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from devaipod_web.runs import diagnosis_views as pages
from devaipod_web.runs import pause_views, views

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.now, name="now"),
    path("now/live/", views.now_live, name="now_live"),
    path("rail/", views.rail, name="rail"),
    path("theme/", views.theme, name="theme"),
    path("search/", views.search, name="search"),
    path("help/", views.help_page, name="help"),
    path("styleguide/", views.styleguide, name="styleguide"),
    path("runs/", views.runs, name="runs"),
    path("runs/live/", views.runs_live, name="runs_live"),
    path("runs/new/", views.run_new, name="run_new"),
    path("runs/new/reach/", views.run_reach, name="run_reach"),
    path("runs/new/command/", views.run_what, name="run_what"),
    path("runs/<slug:key>/", views.run, name="run"),
    path("runs/<slug:key>/header/", views.run_header, name="run_header"),
    path("runs/<slug:key>/aside/", views.run_aside, name="run_aside"),
    path("runs/<slug:key>/transcript/", views.run_transcript, name="run_transcript"),
    path("runs/<slug:key>/changes/", views.run_changes, name="run_changes"),
    path("runs/<slug:key>/logs/", views.run_logs, name="run_logs"),
    path("runs/<slug:key>/terminal/", views.run_terminal, name="run_terminal"),
    path("runs/<slug:key>/terminal/live/", views.run_terminal_live, name="run_terminal_live"),
    path("runs/<slug:key>/access/", views.run_access, name="run_access"),
    path("runs/<slug:key>/diagnostics/", pages.run_diagnostics, name="run_diagnostics"),
    path(
        "runs/<slug:key>/diagnostics/live/",
        pages.run_diagnostics_live,
        name="run_diagnostics_live",
    ),
    path(
        "runs/<slug:key>/diagnostics/text/",
        pages.run_diagnostics_text,
        name="run_diagnostics_text",
    ),
    path("runs/<slug:key>/prompt/", views.run_prompt, name="run_prompt"),
    path("runs/<slug:key>/stop/", views.run_stop, name="run_stop"),
    path("runs/<slug:key>/cancel-turn/", views.run_cancel_turn, name="run_cancel_turn"),
    path("runs/<slug:key>/pause/", pause_views.run_pause, name="run_pause"),
    path("runs/<slug:key>/resume/", pause_views.run_resume, name="run_resume"),
    path("runs/<slug:key>/delete/", pause_views.run_delete, name="run_delete"),
    path("permissions/<slug:key>/", views.permission_answer, name="permission_answer"),
]
