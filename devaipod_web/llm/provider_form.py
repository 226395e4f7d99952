"""The form of a provider. What its fields mean is decided in `providers`."""

from __future__ import annotations

from django import forms

from devaipod_web.llm.models import Provider
from devaipod_web.llm.providers import MAX_CREDENTIAL, MAX_NAME


class ProviderForm(forms.Form):
    """Name, address and key. The key is written and never shown."""

    name = forms.CharField(label="Name", max_length=MAX_NAME)
    base_url = forms.CharField(
        label="Base address",
        max_length=500,
        help_text="Of any OpenAI-compatible provider, usually ending in /v1.",
        widget=forms.URLInput(
            attrs={"placeholder": "https://models.example/v1", "autocomplete": "off"}
        ),
    )
    credential = forms.CharField(
        label="Key",
        max_length=MAX_CREDENTIAL,
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}, render_value=False),
    )
    forget_credential = forms.BooleanField(label="Forget the key that is set", required=False)

    def __init__(self, provider: Provider | None, *args: object, **kwargs: object) -> None:
        if provider is not None:
            kwargs.setdefault("initial", {"name": provider.name, "base_url": provider.base_url})
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        has_key = provider is not None and bool(provider.credential)
        self.fields["credential"].help_text = (
            "A key is set. It is shown never; leave this empty to keep it."
            if has_key
            else "It is encrypted at rest, shown never, and sent to this address alone."
        )
        if not has_key:
            del self.fields["forget_credential"]
