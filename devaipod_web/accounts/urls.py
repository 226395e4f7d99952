"""Addresses of the pages about people; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from devaipod_web.accounts import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("sign-in/", views.sign_in, name="sign_in"),
    path("sign-in/<str:secret>/", views.sign_in_link, name="sign_in_link"),
    path("sign-out/", views.sign_out, name="sign_out"),
    path("account/", views.account, name="account"),
    path("tokens/", views.token_list, name="tokens"),
    path("tokens/<str:key>/revoke/", views.token_revoke, name="token_revoke"),
    path("people/", views.people, name="people"),
    path("people/new/", views.person_new, name="person_new"),
    path("people/<str:key>/", views.person, name="person"),
    path("people/<str:key>/link/", views.person_link, name="person_link"),
]
