"""Who may do what: the one table.

A *role* is a Django group; each role includes the ones before it. A *permission* names something that a person can do. Every
view name, API operation and websocket route stands in `ROUTES` with the permission it needs; a test
compares the table with the URL maps, so that nothing is reachable unlisted. A *token* may be bound to one project: `REACH`
says of everything that takes tokens how its project is found; what is not listed there refuses such a token.
"""

from __future__ import annotations

from enum import StrEnum

from django.contrib.auth.models import AnonymousUser

from devaipod_web.accounts.models import User


class Role(StrEnum):
    """Roles, from the least to the most."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    REVIEWER = "reviewer"
    MANAGER = "manager"


ORDER = [Role.VIEWER, Role.OPERATOR, Role.REVIEWER, Role.MANAGER]


class Permission(StrEnum):
    """Things that a person can do."""

    PUBLIC = "public"  # anyone, signed in or not
    SELF = "self"  # anyone signed in, about themselves
    VIEW = "view"
    LAUNCH = "launch"  # launch, prompt, answer, pause, resume, stop
    ATTACH = "attach"  # a terminal in a pod's agent container
    REVIEW = "review"  # comment, reject, promote
    MANAGE = "manage"  # projects, providers, people, tokens of others


LEAST_ROLE: dict[Permission, Role] = {
    Permission.VIEW: Role.VIEWER,
    Permission.LAUNCH: Role.OPERATOR,
    Permission.ATTACH: Role.OPERATOR,
    Permission.REVIEW: Role.REVIEWER,
    Permission.MANAGE: Role.MANAGER,
}

#: View names (pages), `api:` operation ids and `ws:` routes → the permission they need.
ROUTES: dict[str, Permission] = {
    # pages
    "sign_in": Permission.PUBLIC,
    "sign_in_link": Permission.PUBLIC,
    "sign_out": Permission.SELF,
    "healthz": Permission.PUBLIC,
    "readyz": Permission.PUBLIC,
    "styleguide": Permission.VIEW,
    "now": Permission.VIEW,
    "now_live": Permission.VIEW,
    "search": Permission.VIEW,
    "help": Permission.VIEW,
    "theme": Permission.SELF,
    "rail": Permission.VIEW,
    "runs": Permission.VIEW,
    "runs_live": Permission.VIEW,
    "run_new": Permission.LAUNCH,
    "run_reach": Permission.LAUNCH,
    "run_what": Permission.LAUNCH,
    "run": Permission.VIEW,
    "run_header": Permission.VIEW,
    "run_aside": Permission.VIEW,
    "run_transcript": Permission.VIEW,
    "run_changes": Permission.VIEW,
    "run_logs": Permission.VIEW,
    "run_terminal": Permission.ATTACH,
    "run_terminal_live": Permission.ATTACH,
    "run_access": Permission.VIEW,
    "run_diagnostics": Permission.VIEW,
    "run_diagnostics_live": Permission.VIEW,
    "run_diagnostics_text": Permission.VIEW,
    "run_prompt": Permission.LAUNCH,
    "run_stop": Permission.LAUNCH,
    "run_cancel_turn": Permission.LAUNCH,
    "run_pause": Permission.LAUNCH,
    "run_resume": Permission.LAUNCH,
    "run_delete": Permission.LAUNCH,
    "permission_answer": Permission.LAUNCH,
    "reviews": Permission.VIEW,
    "reviews_live": Permission.VIEW,
    "review": Permission.VIEW,
    "review_commits": Permission.VIEW,
    "review_patch": Permission.VIEW,
    "review_promote": Permission.REVIEW,
    "review_reject": Permission.REVIEW,
    "projects": Permission.VIEW,
    "project_new": Permission.MANAGE,
    "project": Permission.VIEW,
    "project_settings": Permission.MANAGE,
    "project_archive": Permission.MANAGE,
    "providers": Permission.MANAGE,
    "provider_new": Permission.MANAGE,
    "provider": Permission.MANAGE,
    "provider_test": Permission.MANAGE,
    "targets": Permission.MANAGE,
    "target_new": Permission.MANAGE,
    "target": Permission.MANAGE,
    "target_test": Permission.MANAGE,
    "routes": Permission.MANAGE,
    "route_new": Permission.MANAGE,
    "route": Permission.MANAGE,
    "route_move": Permission.MANAGE,
    "prices": Permission.MANAGE,
    "price_new": Permission.MANAGE,
    "price": Permission.MANAGE,
    "spend": Permission.VIEW,
    "spend_export": Permission.VIEW,
    "spend_calls": Permission.VIEW,
    "budgets": Permission.VIEW,
    "budget_new": Permission.MANAGE,
    "budget": Permission.VIEW,
    "budget_change": Permission.MANAGE,
    "budget_remove": Permission.MANAGE,
    "incidents": Permission.VIEW,
    "incident": Permission.VIEW,
    "incident_resolve": Permission.MANAGE,
    "people": Permission.MANAGE,
    "person_new": Permission.MANAGE,
    "person": Permission.MANAGE,
    "person_link": Permission.MANAGE,
    "services": Permission.VIEW,
    "services_live": Permission.VIEW,
    "service_restart": Permission.MANAGE,
    "installation_setup": Permission.MANAGE,
    "audit": Permission.MANAGE,
    "audit_verify": Permission.MANAGE,
    "audit_export": Permission.MANAGE,
    "webhooks": Permission.MANAGE,
    "webhook_new": Permission.MANAGE,
    "webhook": Permission.MANAGE,
    "webhook_settings": Permission.MANAGE,
    "webhook_rotate": Permission.MANAGE,
    "webhook_switch": Permission.MANAGE,
    "webhook_test": Permission.MANAGE,
    "webhook_remove": Permission.MANAGE,
    "delivery": Permission.MANAGE,
    "delivery_redeliver": Permission.MANAGE,
    "account": Permission.SELF,
    "api_docs": Permission.VIEW,
    "tokens": Permission.SELF,
    "token_revoke": Permission.SELF,
    # the API's operations
    "api:status": Permission.SELF,
    "api:openapi": Permission.VIEW,
    "api:services_list": Permission.VIEW,
    "api:service_restart": Permission.MANAGE,
    "api:setup": Permission.MANAGE,
    "api:teardown": Permission.MANAGE,
    "api:projects_list": Permission.VIEW,
    "api:project_get": Permission.VIEW,
    "api:project_create": Permission.MANAGE,
    "api:project_update": Permission.MANAGE,
    "api:project_archive": Permission.MANAGE,
    "api:providers_list": Permission.VIEW,
    "api:provider_create": Permission.MANAGE,
    "api:provider_get": Permission.MANAGE,
    "api:provider_update": Permission.MANAGE,
    "api:provider_delete": Permission.MANAGE,
    "api:provider_test": Permission.MANAGE,
    "api:providers_reseal": Permission.MANAGE,
    "api:targets_list": Permission.VIEW,
    "api:target_create": Permission.MANAGE,
    "api:target_get": Permission.VIEW,
    "api:target_update": Permission.MANAGE,
    "api:target_delete": Permission.MANAGE,
    "api:target_test": Permission.MANAGE,
    "api:routes_list": Permission.MANAGE,
    "api:route_create": Permission.MANAGE,
    "api:route_get": Permission.MANAGE,
    "api:route_update": Permission.MANAGE,
    "api:route_move": Permission.MANAGE,
    "api:route_delete": Permission.MANAGE,
    "api:routes_which": Permission.MANAGE,
    "api:prices_list": Permission.MANAGE,
    "api:price_create": Permission.MANAGE,
    "api:price_get": Permission.MANAGE,
    "api:price_update": Permission.MANAGE,
    "api:price_delete": Permission.MANAGE,
    "api:runs_list": Permission.VIEW,
    "api:run_get": Permission.VIEW,
    "api:run_create": Permission.LAUNCH,
    "api:run_delete": Permission.LAUNCH,
    "api:run_prompt": Permission.LAUNCH,
    "api:run_permission": Permission.LAUNCH,
    "api:run_stop": Permission.LAUNCH,
    "api:run_cancel_turn": Permission.LAUNCH,
    "api:run_pause": Permission.LAUNCH,
    "api:run_resume": Permission.LAUNCH,
    "api:run_input": Permission.LAUNCH,
    "api:run_labels": Permission.LAUNCH,
    "api:run_events": Permission.VIEW,
    "api:pods_list": Permission.VIEW,
    "api:pod_get": Permission.VIEW,
    "api:pod_create": Permission.LAUNCH,
    "api:pod_stop": Permission.LAUNCH,
    "api:pod_destroy": Permission.LAUNCH,
    "api:pod_logs": Permission.VIEW,
    "api:pod_diagnostics": Permission.VIEW,
    "api:run_diagnostics": Permission.VIEW,
    "api:reviews_list": Permission.VIEW,
    "api:review_get": Permission.VIEW,
    "api:review_diff": Permission.VIEW,
    "api:review_promote": Permission.REVIEW,
    "api:review_reject": Permission.REVIEW,
    "api:usage": Permission.VIEW,
    "api:usage_series": Permission.VIEW,
    "api:usage_summary": Permission.VIEW,
    "api:usage_calls": Permission.VIEW,
    "api:tokens_list": Permission.SELF,
    "api:token_create": Permission.SELF,
    "api:token_revoke": Permission.SELF,
    "api:budgets_list": Permission.VIEW,
    "api:budget_create": Permission.MANAGE,
    "api:budget_get": Permission.VIEW,
    "api:budget_update": Permission.MANAGE,
    "api:budget_delete": Permission.MANAGE,
    "api:incidents_list": Permission.VIEW,
    "api:incident_get": Permission.VIEW,
    "api:incident_resolve": Permission.MANAGE,
    "api:webhooks_list": Permission.MANAGE,
    "api:webhook_create": Permission.MANAGE,
    "api:webhook_get": Permission.MANAGE,
    "api:webhook_update": Permission.MANAGE,
    "api:webhook_delete": Permission.MANAGE,
    "api:webhook_rotate": Permission.MANAGE,
    "api:webhook_test": Permission.MANAGE,
    "api:deliveries_list": Permission.MANAGE,
    "api:delivery_get": Permission.MANAGE,
    "api:delivery_redeliver": Permission.MANAGE,
    "api:retention_plan": Permission.MANAGE,
    "api:retention_apply": Permission.MANAGE,
    # websockets
    "ws:run": Permission.VIEW,
    "ws:logs": Permission.VIEW,
    "ws:wakes": Permission.VIEW,
    "ws:exec": Permission.ATTACH,
}


class Reach(StrEnum):
    """How a token that is bound to a project meets an operation: where the project stands that the operation is about."""

    RUN = "run"  # `key` in the path is a run's
    POD = "pod"  # `name` in the path is a pod's
    REVIEW = "review"  # `key` in the path is a review's or its run's
    PROJECT = "project"  # `slug` in the path is the project's
    BODY = "body"  # `project` in the body is the project's short name
    LIST = "list"  # the answer is narrowed to the project's rows
    CALLER = "caller"  # about the caller and nothing else
    INSTALLATION = "installation"  # about everything: such a token is refused (403)


#: Everything that takes tokens → how it finds its project. A test compares it with the operations that exist.
REACH: dict[str, Reach] = {
    "api:status": Reach.LIST,
    "api:openapi": Reach.CALLER,
    "api:projects_list": Reach.LIST,
    "api:project_get": Reach.PROJECT,
    "api:project_create": Reach.INSTALLATION,
    "api:project_update": Reach.PROJECT,
    "api:project_archive": Reach.PROJECT,
    "api:providers_list": Reach.INSTALLATION,
    "api:provider_create": Reach.INSTALLATION,
    "api:provider_get": Reach.INSTALLATION,
    "api:provider_update": Reach.INSTALLATION,
    "api:provider_delete": Reach.INSTALLATION,
    "api:provider_test": Reach.INSTALLATION,
    "api:providers_reseal": Reach.INSTALLATION,
    "api:targets_list": Reach.INSTALLATION,
    "api:target_create": Reach.INSTALLATION,
    "api:target_get": Reach.INSTALLATION,
    "api:target_update": Reach.INSTALLATION,
    "api:target_delete": Reach.INSTALLATION,
    "api:target_test": Reach.INSTALLATION,
    "api:routes_list": Reach.INSTALLATION,
    "api:route_create": Reach.INSTALLATION,
    "api:route_get": Reach.INSTALLATION,
    "api:route_update": Reach.INSTALLATION,
    "api:route_move": Reach.INSTALLATION,
    "api:route_delete": Reach.INSTALLATION,
    "api:routes_which": Reach.INSTALLATION,
    "api:prices_list": Reach.INSTALLATION,
    "api:price_create": Reach.INSTALLATION,
    "api:price_get": Reach.INSTALLATION,
    "api:price_update": Reach.INSTALLATION,
    "api:price_delete": Reach.INSTALLATION,
    "api:runs_list": Reach.LIST,
    "api:run_get": Reach.RUN,
    "api:run_create": Reach.BODY,
    "api:run_delete": Reach.RUN,
    "api:run_prompt": Reach.RUN,
    "api:run_permission": Reach.RUN,
    "api:run_stop": Reach.RUN,
    "api:run_cancel_turn": Reach.RUN,
    "api:run_pause": Reach.RUN,
    "api:run_resume": Reach.RUN,
    "api:run_events": Reach.RUN,
    "api:run_diagnostics": Reach.RUN,
    "api:pod_diagnostics": Reach.POD,
    "ws:exec": Reach.POD,
    "api:pods_list": Reach.LIST,
    "api:pod_get": Reach.POD,
    "api:pod_logs": Reach.POD,
    "api:reviews_list": Reach.LIST,
    "api:review_get": Reach.REVIEW,
    "api:review_diff": Reach.REVIEW,
    "api:review_promote": Reach.REVIEW,
    "api:review_reject": Reach.REVIEW,
    "api:usage": Reach.LIST,
    "api:usage_series": Reach.LIST,
    "api:usage_summary": Reach.LIST,
    "api:usage_calls": Reach.LIST,
    "api:tokens_list": Reach.CALLER,
    "api:token_create": Reach.CALLER,
    "api:token_revoke": Reach.CALLER,
    "api:run_input": Reach.RUN,
    "api:run_labels": Reach.RUN,
    "api:pod_create": Reach.BODY,
    "api:pod_stop": Reach.POD,
    "api:pod_destroy": Reach.POD,
    "api:services_list": Reach.INSTALLATION,
    "api:service_restart": Reach.INSTALLATION,
    "api:setup": Reach.INSTALLATION,
    "api:teardown": Reach.INSTALLATION,
    "api:budgets_list": Reach.LIST,
    "api:budget_create": Reach.INSTALLATION,
    "api:budget_get": Reach.INSTALLATION,
    "api:budget_update": Reach.INSTALLATION,
    "api:budget_delete": Reach.INSTALLATION,
    "api:incidents_list": Reach.LIST,
    "api:incident_get": Reach.INSTALLATION,
    "api:incident_resolve": Reach.INSTALLATION,
    "api:webhooks_list": Reach.INSTALLATION,
    "api:webhook_create": Reach.INSTALLATION,
    "api:webhook_get": Reach.INSTALLATION,
    "api:webhook_update": Reach.INSTALLATION,
    "api:webhook_delete": Reach.INSTALLATION,
    "api:webhook_rotate": Reach.INSTALLATION,
    "api:webhook_test": Reach.INSTALLATION,
    "api:deliveries_list": Reach.INSTALLATION,
    "api:delivery_get": Reach.INSTALLATION,
    "api:delivery_redeliver": Reach.INSTALLATION,
    "api:retention_plan": Reach.INSTALLATION,
    "api:retention_apply": Reach.INSTALLATION,
}


def role_of(user: User | AnonymousUser) -> Role | None:
    """The highest role of a person, or None for a stranger; at most the role of the token that they call by.

    A superuser is a manager.
    """
    if not user.is_authenticated or not user.is_active:
        return None
    own = stored_role(user)
    if own is None or user.through is None:
        return own
    return min(own, Role(user.through.role), key=ORDER.index)


def stored_role(user: User) -> Role | None:
    """The highest role that is written down for a person, active or not, whatever they call by."""
    if user.is_superuser:
        return Role.MANAGER
    names = {group.name for group in user.groups.all()}
    return next((role for role in reversed(ORDER) if role in names), None)


def may(user: User | AnonymousUser, permission: Permission) -> bool:
    """Whether this person has this permission now."""
    if permission is Permission.PUBLIC:
        return True
    if not user.is_authenticated or not user.is_active:
        return False
    if permission is Permission.SELF:
        return True
    role = role_of(user)
    return role is not None and ORDER.index(role) >= ORDER.index(LEAST_ROLE[permission])
