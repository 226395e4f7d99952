"""The forms of providers, routes and prices. What their fields mean is decided in the services."""

from __future__ import annotations

from typing import Any

from django import forms

from devaipod_web.llm.models import Price, Provider, ProviderKind, Route
from devaipod_web.llm.price_rows import PARTS
from devaipod_web.llm.providers import ADDRESSES, MAX_CREDENTIAL, MAX_NAME
from devaipod_web.llm.routes import MAX_FALLBACKS, MAX_LIMIT, MAX_PATTERN
from devaipod_web.projects.models import Project

PLAIN = {"autocomplete": "off", "spellcheck": "false"}


class ProviderForm(forms.Form):
    """Kind, name, address and key. The key is written and never shown."""

    name = forms.CharField(label="Name", max_length=MAX_NAME)
    kind = forms.ChoiceField(
        label="Kind",
        choices=ProviderKind.choices,
        required=False,
        help_text="Which wire forms it speaks: agents that speak another one cannot use it.",
    )
    base_url = forms.CharField(
        label="Base address",
        max_length=500,
        required=False,
        help_text=(
            f"OpenAI-compatible: usually ends in /v1. Anthropic and Gemini: empty for {ADDRESSES['anthropic']} and "
            f"{ADDRESSES['gemini']}. Vertex AI: ends in /v1/projects/PROJECT/locations/LOCATION. The demo has none."
        ),
        widget=forms.URLInput(attrs={"placeholder": "https://models.example/v1", **PLAIN}),
    )
    credential = forms.CharField(
        label="Key",
        max_length=MAX_CREDENTIAL,
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}, render_value=False),
    )
    forget_credential = forms.BooleanField(label="Forget the key that is set", required=False)

    def __init__(self, provider: Provider | None, *args: Any, **kwargs: Any) -> None:
        if provider is not None:
            names = ("name", "kind", "base_url")
            kwargs.setdefault("initial", {name: getattr(provider, name) for name in names})
        super().__init__(*args, **kwargs)
        has_key = provider is not None and bool(provider.credential)
        said = "Vertex AI: the JSON key of a service account, in one line."
        self.fields["credential"].help_text = (
            f"A key is set. It is shown never; leave this empty to keep it. {said}"
            if has_key
            else f"It is encrypted at rest, shown never, and sent to this address alone. {said}"
        )
        if not has_key:
            del self.fields["forget_credential"]


def _projects() -> forms.ModelChoiceField[Project]:
    return forms.ModelChoiceField(
        label="Project",
        queryset=Project.objects.filter(archived_at=None).order_by("name"),
        to_field_name="slug",
        required=False,
        empty_label="all projects",
    )


class RouteForm(forms.Form):
    """Pattern, provider, the name there, and who else is asked."""

    pattern = forms.CharField(
        label="Models",
        max_length=MAX_PATTERN,
        help_text="A model's name, in which * is any characters and ? is one: claude-*",
        widget=forms.TextInput(attrs=PLAIN),
    )
    provider = forms.ModelChoiceField(
        label="Provider",
        queryset=Provider.objects.order_by("name"),
        to_field_name="key",
        empty_label=None,
    )
    rewrite = forms.CharField(
        label="Name there",
        max_length=MAX_PATTERN,
        required=False,
        help_text="What the provider is sent; empty: the same name. A * is what the first * of the pattern matched.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    project = _projects()
    output_limit = forms.IntegerField(
        label="Output limit",
        min_value=1,
        max_value=MAX_LIMIT,
        required=False,
        help_text="Tokens of one answer, for requests that say none. Empty: the installation's.",
    )
    fallbacks = forms.CharField(
        label="Fallbacks",
        required=False,
        help_text=(
            "Who is asked when the provider is at its limit (429), fails (5xx) or cannot be reached before a word came back: "
            f"one a line, at most {MAX_FALLBACKS}: the provider's name, then a space-separated => and its model where that "
            "is another one."
        ),
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "Second choice => gpt-4o", **PLAIN}),
    )
    enabled = forms.BooleanField(label="In use", required=False, initial=True)

    def __init__(self, route: Route | None, *args: Any, **kwargs: Any) -> None:
        if route is not None:
            kwargs.setdefault("initial", _route_values(route))
        super().__init__(*args, **kwargs)

    def clean_fallbacks(self) -> list[tuple[str, str]]:
        """Pairs of a provider's key and a model, from lines with names."""
        found = []
        for line in self.cleaned_data["fallbacks"].splitlines():
            name, _, model = line.partition("=>")
            if not line.strip():
                continue
            provider = Provider.objects.filter(name=" ".join(name.split())).first()
            if provider is None:
                raise forms.ValidationError(f"There is no provider {name.strip()[:80]!r}.")
            found.append((provider.key, model.strip()))
        return found


def _route_values(route: Route) -> dict[str, Any]:
    names = dict(Provider.objects.values_list("key", "name"))
    lines = [
        f"{names.get(each['provider'], '?')}{' => ' + each['model'] if each['model'] else ''}"
        for each in route.fallbacks
    ]
    return {
        "pattern": route.pattern,
        "provider": route.provider.key,
        "rewrite": route.rewrite,
        "project": route.project.slug if route.project else "",
        "output_limit": route.output_limit,
        "fallbacks": "\n".join(lines),
        "enabled": route.enabled,
    }


class PriceForm(forms.Form):
    """A model's price, or the ceiling of those whose price is not known."""

    pattern = forms.CharField(
        label="Models",
        max_length=MAX_PATTERN,
        help_text="A model's name at its provider, in which * is any characters and ? is one.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    is_ceiling = forms.BooleanField(
        label="A ceiling, for models whose price is not known",
        required=False,
        help_text="Their calls are charged at it and shown as unpriced. Without it they are refused.",
    )
    project = _projects()
    sent = forms.DecimalField(
        label="Input", max_digits=14, decimal_places=6, help_text="US dollars per million tokens."
    )
    received = forms.DecimalField(label="Output", max_digits=14, decimal_places=6)
    cached = forms.DecimalField(
        label="Input from the cache",
        max_digits=14,
        decimal_places=6,
        required=False,
        help_text="Empty: as other input.",
    )
    written = forms.DecimalField(
        label="Input into the cache",
        max_digits=14,
        decimal_places=6,
        required=False,
        help_text="Empty: as other input.",
    )
    reasoning = forms.DecimalField(
        label="Reasoning",
        max_digits=14,
        decimal_places=6,
        required=False,
        help_text="Empty: as other output.",
    )
    request = forms.DecimalField(
        label="A request",
        max_digits=14,
        decimal_places=6,
        required=False,
        help_text="US dollars for each, beside its tokens.",
    )

    def __init__(self, price: Price | None, *args: Any, **kwargs: Any) -> None:
        if price is not None:
            values = {name: getattr(price, name) for name in ("pattern", "is_ceiling", *PARTS)}
            values["project"] = price.project.slug if price.project else ""
            kwargs.setdefault("initial", values)
        super().__init__(*args, **kwargs)
