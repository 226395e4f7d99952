"""Addresses of the projects' pages; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from devaipod_web.projects import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("projects/", views.project_list, name="projects"),
    path("projects/new/", views.project_new, name="project_new"),
    path("projects/<slug:slug>/", views.project, name="project"),
    path("projects/<slug:slug>/settings/", views.project_settings, name="project_settings"),
    path(
        "projects/<slug:slug>/settings/<slug:section>/",
        views.project_settings,
        name="project_settings",
    ),
    path("projects/<slug:slug>/archive/", views.project_archive, name="project_archive"),
]
