"""Forms about people and tokens. What they mean is decided in the services."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth import password_validation

from devaipod_web.accounts import services
from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import ORDER, Role, role_of
from devaipod_web.accounts.tokens import DEFAULT_DAYS, MAX_NAME
from devaipod_web.projects.models import Project

ROLE_CHOICES = [
    ("viewer", "viewer · sees everything, changes nothing"),
    ("operator", "operator · launches, prompts, answers, stops"),
    ("reviewer", "reviewer · also promotes and rejects"),
    ("manager", "manager · also projects, providers and people"),
]
assert [value for value, _ in ROLE_CHOICES] == [str(role) for role in ORDER]

LIFETIMES = [(7, "7 days"), (30, "30 days"), (90, "90 days"), (366, "a year")]


class SignInForm(forms.Form):
    """A name and a password."""

    username = forms.CharField(
        label="Name",
        max_length=150,
        widget=forms.TextInput(attrs={"autocomplete": "username", "autofocus": True}),
    )
    password = forms.CharField(
        label="Password",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class PersonForm(forms.Form):
    """A new person."""

    username = forms.CharField(
        label="Name for signing in",
        max_length=40,
        help_text="Lower-case letters, digits, dots, dashes and underscores.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True}),
    )
    full_name = forms.CharField(label="Full name", max_length=200, required=False)
    role = forms.ChoiceField(label="Role", choices=ROLE_CHOICES, initial="operator")

    def clean_username(self) -> str:
        """The name in lower case, when it can be one."""
        name = str(self.cleaned_data["username"]).strip().lower()
        if not services.USERNAME.fullmatch(name):
            raise forms.ValidationError(
                "Use 1 to 40 lower-case letters, digits, dots, dashes and underscores, "
                "beginning with a letter or digit."
            )
        return name


class RoleForm(forms.Form):
    """A person's role."""

    role = forms.ChoiceField(label="Role", choices=ROLE_CHOICES)


class TokenForm(forms.Form):
    """A new token."""

    name = forms.CharField(
        label="What it is for",
        max_length=MAX_NAME,
        widget=forms.TextInput(attrs={"placeholder": "nightly CI", "autocomplete": "off"}),
    )
    role = forms.ChoiceField(
        label="May do at most",
        help_text="It never may do more than you may at that moment.",
    )
    project = forms.ModelChoiceField(
        label="For",
        queryset=Project.objects.none(),
        required=False,
        to_field_name="slug",
        empty_label="every project",
        help_text="With a project it sees and does only that project's things.",
    )
    days = forms.TypedChoiceField(label="Counts for", coerce=int, initial=DEFAULT_DAYS)

    def __init__(self, maker: User, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        own = role_of(maker)
        upto = ORDER.index(own) + 1 if own is not None else 1
        days = [(count, text) for count, text in LIFETIMES if count <= settings.TOKEN_MAX_DAYS]
        if own is Role.MANAGER:
            days.append((0, "until revoked"))
        self._choose("role", ROLE_CHOICES[:upto], initial=ROLE_CHOICES[upto - 1][0])
        self._choose("days", days or [(settings.TOKEN_MAX_DAYS, "as long as possible")])
        if own is not None:
            seen = Project.objects.filter(archived_at=None).order_by("name")
            self.fields["project"].queryset = seen  # type: ignore[attr-defined]

    def _choose(self, name: str, choices: list[tuple[Any, str]], *, initial: str = "") -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices
        if initial:
            field.initial = initial


class PasswordForm(forms.Form):
    """One's own password; the present one is asked for when there is one."""

    current = forms.CharField(
        label="Present password",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    new = forms.CharField(
        label="New password",
        max_length=1000,
        strip=False,
        help_text="At least 12 characters.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    again = forms.CharField(
        label="New password again",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def __init__(self, user: User, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.user = user
        if not user.has_usable_password():
            # Who came by a sign-in link has none yet; the link was the proof.
            del self.fields["current"]

    def clean_current(self) -> str:
        """The present password must be right."""
        value = str(self.cleaned_data["current"])
        if not self.user.check_password(value):
            raise forms.ValidationError("This is not your present password.")
        return value

    def clean_new(self) -> str:
        """Long enough and not a common one."""
        value = str(self.cleaned_data["new"])
        password_validation.validate_password(value, self.user)
        return value

    def clean_again(self) -> str:
        """Both must be the same."""
        value = str(self.cleaned_data["again"])
        if "new" in self.cleaned_data and value != self.cleaned_data["new"]:
            raise forms.ValidationError("The two are not the same.")
        return value
