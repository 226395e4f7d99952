"""Addresses of reviews and the audit log."""

from __future__ import annotations

from django.urls import path

from devaipod_web.reviews import views

urlpatterns = [
    path("reviews/", views.reviews, name="reviews"),
    path("reviews/live/", views.reviews_live, name="reviews_live"),
    path("reviews/<slug:key>/", views.review, name="review"),
    path("reviews/<slug:key>/commits/", views.review_commits, name="review_commits"),
    path("reviews/<slug:key>/patch/", views.review_patch, name="review_patch"),
    path("reviews/<slug:key>/promote/", views.review_promote, name="review_promote"),
    path("reviews/<slug:key>/reject/", views.review_reject, name="review_reject"),
    path("audit/", views.audit, name="audit"),
    path("audit/verify/", views.audit_verify, name="audit_verify"),
    path("audit/export/", views.audit_export, name="audit_export"),
]
