"""Pages of routes and prices, for managers."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from devaipod_web.accounts.models import User
from devaipod_web.llm import price_list, price_rows, routes
from devaipod_web.llm.models import Price, Provider, Route
from devaipod_web.llm.page_forms import PriceForm, RouteForm
from devaipod_web.llm.rates import usd_a_million
from devaipod_web.projects.models import Project


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _route(key: str) -> Route:
    found = Route.objects.select_related("provider", "project").filter(key=key).first()
    if found is None:
        raise Http404
    return found


def _price(key: str) -> Price:
    found = Price.objects.select_related("project").filter(key=key).first()
    if found is None:
        raise Http404
    return found


# --- Routes -----------------------------------------------------------------------------------------------------


def route_list(request: HttpRequest) -> HttpResponse:
    """Every route in its order, and which of them takes the model of `?model=`."""
    model = request.GET.get("model", "").strip()[:200]
    slug = request.GET.get("project", "")[:60]
    project = Project.objects.filter(slug=slug).first() if slug else None
    found = routes.which(model, project) if model else None
    return render(
        request,
        "routes/list.html",
        {
            "routes": Route.objects.select_related("provider", "project"),
            "names": dict(Provider.objects.values_list("key", "name")),
            "projects": Project.objects.filter(archived_at=None).order_by("name"),
            "project": project,
            "model": model,
            "taken_by": found[0] if found else None,
            "sent_as": found[1] if found else "",
        },
    )


def route_new(request: HttpRequest) -> HttpResponse:
    """Add a route."""
    form = RouteForm(None, request.POST or None)
    if request.method == "POST" and form.is_valid() and _save_route(request, None, form):
        return redirect("routes")
    return _page(request, "routes/new.html", form)


def route(request: HttpRequest, key: str) -> HttpResponse:
    """Change a route, or remove it (`action=remove`)."""
    row = _route(key)
    if request.POST.get("action") == "remove":
        routes.remove(_me(request), row)
        messages.success(request, f"The route {row.pattern} is removed.")
        return redirect("routes")
    form = RouteForm(row, request.POST or None)
    if request.method == "POST" and form.is_valid() and _save_route(request, row, form):
        return redirect("routes")
    return _page(request, "routes/edit.html", form, route=row)


@require_POST
def route_move(request: HttpRequest, key: str) -> HttpResponse:
    """Put a route at the place `position`."""
    text = request.POST.get("position", "")
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise Http404
    routes.move(_me(request), _route(key), int(text))
    return redirect("routes")


def _save_route(request: HttpRequest, row: Route | None, form: RouteForm) -> bool:
    try:
        saved = routes.save(_me(request), row, **form.cleaned_data)
    except routes.InvalidRoute as error:
        _explain(form, error.errors)
        return False
    messages.success(request, f"The route {saved.pattern} is saved.")
    return True


# --- Prices -----------------------------------------------------------------------------------------------------


def price_page(request: HttpRequest) -> HttpResponse:
    """Prices that managers set, and what the price list says of the model of `?model=`."""
    model = request.GET.get("model", "").strip()[:200]
    listed = price_list.listed(model, "", "", ()) if model else None
    tiers = [
        {
            "above": start,
            "sent": usd_a_million(rates.sent),
            "received": usd_a_million(rates.received),
            "cached": usd_a_million(rates.cached),
        }
        for start, rates in (listed.tiers if listed else ())
    ]
    return render(
        request,
        "prices/list.html",
        {
            "prices": Price.objects.select_related("project").order_by(
                "is_ceiling", "project__name", "pattern"
            ),
            "model": model,
            "listed": tiers,
        },
    )


def price_new(request: HttpRequest) -> HttpResponse:
    """Add a price."""
    form = PriceForm(None, request.POST or None)
    if request.method == "POST" and form.is_valid() and _save_price(request, None, form):
        return redirect("prices")
    return _page(request, "prices/new.html", form)


def price(request: HttpRequest, key: str) -> HttpResponse:
    """Change a price, or remove it (`action=remove`)."""
    row = _price(key)
    if request.POST.get("action") == "remove":
        price_rows.remove(_me(request), row)
        messages.success(request, f"The price of {row.pattern} is removed.")
        return redirect("prices")
    form = PriceForm(row, request.POST or None)
    if request.method == "POST" and form.is_valid() and _save_price(request, row, form):
        return redirect("prices")
    return _page(request, "prices/edit.html", form, price=row)


def _save_price(request: HttpRequest, row: Price | None, form: PriceForm) -> bool:
    try:
        saved = price_rows.save(_me(request), row, **form.cleaned_data)
    except price_rows.InvalidPrice as error:
        _explain(form, error.errors)
        return False
    messages.success(request, f"The price of {saved.pattern} is saved.")
    return True


def _explain(form: RouteForm | PriceForm, errors: dict[str, str]) -> None:
    for name, text in errors.items():
        form.add_error(name if name in form.fields else None, text)


def _page(
    request: HttpRequest, template: str, form: RouteForm | PriceForm, **more: object
) -> HttpResponse:
    return render(request, template, {"form": form, **more}, status=400 if form.is_bound else 200)
