"""The forms of budgets and of what is decided about incidents. What their fields mean is decided in the services."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import Q
from django.utils import timezone

from devaipod_web.accounts.models import ApiToken, User
from devaipod_web.budgets.models import Budget, Metric, Scope, Window
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run
from devaipod_web.templatetags.show import plain_amount

PLAIN = {"autocomplete": "off", "spellcheck": "false"}
AMOUNT = forms.TextInput(attrs={**PLAIN, "inputmode": "decimal"})
NOTE_HELP = "Stands in the audit log."
MAX_NOTE = 300


class TokenChoice(forms.ModelChoiceField):  # type: ignore[type-arg]
    """API tokens by their name and whose they are."""

    def label_from_instance(self, token: ApiToken) -> str:
        """`nightly (alice)`."""
        return f"{token.name} ({token.user.username})"


class BudgetForm(forms.Form):
    """A new budget."""

    scope = forms.ChoiceField(
        label="Whose requests",
        choices=[
            (Scope.INSTALLATION, "All of this installation"),
            (Scope.PROJECT, "One project"),
            (Scope.PERSON, "One person"),
            (Scope.TOKEN, "One API token"),
            (Scope.RUN, "One run"),
        ],
        initial=Scope.INSTALLATION,
    )
    project = forms.ModelChoiceField(
        label="Project",
        queryset=Project.objects.filter(archived_at=None).order_by("name"),
        to_field_name="slug",
        required=False,
        empty_label="choose one",
    )
    person = forms.ModelChoiceField(
        label="Person",
        queryset=User.objects.filter(is_active=True).order_by("username"),
        to_field_name="username",
        required=False,
        empty_label="choose one",
    )
    token = TokenChoice(
        label="API token",
        queryset=ApiToken.objects.none(),
        to_field_name="key",
        required=False,
        empty_label="choose one",
        help_text="Counts the runs that were launched with it.",
    )
    run = forms.CharField(
        label="Run",
        max_length=20,
        required=False,
        help_text="Its key, as its address has it. Runs have limits of their own from their launch on.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    metric = forms.ChoiceField(label="In", choices=Metric.choices, initial=Metric.USD)
    window = forms.ChoiceField(
        label="Over",
        choices=[
            (Window.DAY, "a day (UTC)"),
            (Window.MONTH, "a month (UTC)"),
            (Window.TOTAL, "all time"),
            (Window.EACH_RUN, "each new run by itself"),
        ],
        initial=Window.MONTH,
    )
    limit = forms.CharField(
        label="Limit",
        max_length=40,
        help_text="Nothing goes out above it. US dollars, tokens or requests.",
        widget=AMOUNT,
    )
    soft_percent = forms.IntegerField(
        label="Warn at, % of the limit", min_value=1, max_value=100, initial=80
    )
    note = forms.CharField(label="Note", max_length=MAX_NOTE, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tokens = self.fields["token"]
        assert isinstance(tokens, TokenChoice)
        tokens.queryset = (
            ApiToken.objects.filter(revoked_at=None)
            .filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
            .select_related("user")
            .order_by("user__username", "name")
        )

    def clean_run(self) -> Run | None:
        """The run of this key."""
        key = self.cleaned_data["run"].strip()
        if not key:
            return None
        found = Run.objects.filter(key=key).first()
        if found is None:
            raise forms.ValidationError(f"There is no run {key!r}.")
        return found

    @property
    def subject(self) -> Project | User | ApiToken | Run | None:
        """What the chosen scope names."""
        scope = self.cleaned_data["scope"]
        return None if scope == Scope.INSTALLATION else self.cleaned_data.get(scope)


class BudgetChangesForm(forms.Form):
    """What can be changed of a budget."""

    limit = forms.CharField(label="Limit", max_length=40, widget=AMOUNT)
    soft_percent = forms.IntegerField(label="Warn at, % of the limit", min_value=1, max_value=100)
    note = forms.CharField(label="Note", max_length=MAX_NOTE, required=False)
    enabled = forms.BooleanField(
        label="It binds",
        required=False,
        help_text="While it does not, nothing is counted for it.",
    )

    def __init__(self, budget: Budget, *args: Any, **kwargs: Any) -> None:
        names = ("soft_percent", "note", "enabled")
        values = {name: getattr(budget, name) for name in names}
        kwargs.setdefault("initial", {**values, "limit": plain_amount(budget.limit_shown)})
        super().__init__(*args, **kwargs)
        self.fields[
            "limit"
        ].help_text = f"{Metric(budget.metric).label}. It binds within two seconds. A higher one resolves the incidents that wait for room."


class DecisionForm(forms.Form):
    """What a manager decides about an incident."""

    how = forms.CharField(widget=forms.HiddenInput)
    amount = forms.CharField(required=False, max_length=40, widget=AMOUNT)
    note = forms.CharField(label="Note", required=False, max_length=MAX_NOTE, help_text=NOTE_HELP)
