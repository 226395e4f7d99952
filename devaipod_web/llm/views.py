"""Pages of the providers of models, for managers."""

from __future__ import annotations

from django.contrib import messages
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from devaipod_web.accounts.models import User
from devaipod_web.llm import provider_test as tester
from devaipod_web.llm import providers
from devaipod_web.llm.models import Provider, ProviderKind
from devaipod_web.llm.page_forms import ProviderForm
from devaipod_web.projects.models import Project


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _find(key: str) -> Provider:
    found = Provider.objects.filter(key=key).first()
    if found is None:
        raise Http404
    return found


def provider_list(request: HttpRequest) -> HttpResponse:
    """Every provider, and the scripted demo that is always there."""
    rows = Provider.objects.annotate(
        projects=Count("project", distinct=True), routed=Count("routes", distinct=True)
    ).order_by("name")
    return render(
        request,
        "providers/list.html",
        {
            "providers": rows,
            "demo_label": ProviderKind.DEMO.label,
            "demo_projects": Project.objects.filter(provider=None, archived_at=None).count(),
        },
    )


def provider_new(request: HttpRequest) -> HttpResponse:
    """Add a provider."""
    form = ProviderForm(None, request.POST or None)
    if request.method == "POST" and form.is_valid():
        row = _save(request, None, form)
        if row is not None:
            messages.success(request, f"{row.name} is added. Test it now.")
            return redirect("provider", row.key)
    return _page(request, "providers/new.html", form, None)


def provider(request: HttpRequest, key: str) -> HttpResponse:
    """Change a provider, or remove it (`action=remove`)."""
    row = _find(key)
    if request.POST.get("action") == "remove":
        return _remove(request, row)
    form = ProviderForm(row, request.POST or None)
    if request.method == "POST" and form.is_valid() and _save(request, row, form) is not None:
        messages.success(request, f"{row.name} is saved.")
        return redirect("provider", row.key)
    return _page(request, "providers/edit.html", form, row)


@require_POST
def provider_test(request: HttpRequest, key: str) -> HttpResponse:
    """Ask the provider for its models and show what it said."""
    row = _find(key)
    result = tester.test(row)
    if request.headers.get("HX-Request"):
        return render(request, "providers/_tested.html", {"tested": result, "provider": row})
    return _page(request, "providers/edit.html", ProviderForm(row), row, tested=result)


def _remove(request: HttpRequest, row: Provider) -> HttpResponse:
    try:
        providers.remove(_me(request), row)
    except providers.ProviderInUse as error:
        messages.error(request, str(error))
        return redirect("provider", row.key)
    messages.success(request, f"{row.name} is removed.")
    return redirect("providers")


def _save(request: HttpRequest, row: Provider | None, form: ProviderForm) -> Provider | None:
    data = form.cleaned_data
    try:
        return providers.save(
            _me(request),
            row,
            name=data["name"],
            kind=data["kind"],
            base_url=data["base_url"],
            credential=data["credential"],
            forget_credential=bool(data.get("forget_credential")),
        )
    except providers.InvalidProvider as error:
        for name, text in error.errors.items():
            form.add_error(name, text)
        return None


def _page(
    request: HttpRequest,
    template: str,
    form: ProviderForm,
    row: Provider | None,
    *,
    tested: tester.Tested | None = None,
) -> HttpResponse:
    used_by = Project.objects.filter(provider=row).order_by("name") if row is not None else []
    return render(
        request,
        template,
        {
            "form": form,
            "provider": row,
            "tested": tested,
            "used_by": used_by,
            "routes": providers.routes_of(row) if row is not None else [],
        },
        status=400 if form.is_bound else 200,
    )
