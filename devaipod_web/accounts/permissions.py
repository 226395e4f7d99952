"""Who may do what: the one table.

A *role* is a Django group; each role includes the ones before it. A *permission* names something that a person can do. Every
view name, API operation and websocket route stands in `ROUTES` with the permission it needs; a test
compares the table with the URL maps, so that nothing is reachable unlisted.
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
    LAUNCH = "launch"  # launch, prompt, answer, stop
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
    "run": Permission.VIEW,
    "run_header": Permission.VIEW,
    "run_aside": Permission.VIEW,
    "run_transcript": Permission.VIEW,
    "run_changes": Permission.VIEW,
    "run_logs": Permission.VIEW,
    "run_terminal": Permission.ATTACH,
    "run_terminal_live": Permission.ATTACH,
    "run_access": Permission.VIEW,
    "run_prompt": Permission.LAUNCH,
    "run_stop": Permission.LAUNCH,
    "run_cancel_turn": Permission.LAUNCH,
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
    "people": Permission.MANAGE,
    "person_new": Permission.MANAGE,
    "person": Permission.MANAGE,
    "person_link": Permission.MANAGE,
    "audit": Permission.MANAGE,
    "audit_verify": Permission.MANAGE,
    "audit_export": Permission.MANAGE,
    "account": Permission.SELF,
    "api_docs": Permission.VIEW,
    "tokens": Permission.SELF,
    "token_revoke": Permission.SELF,
    # the API's operations
    "api:status": Permission.SELF,
    "api:openapi": Permission.VIEW,
    "api:projects_list": Permission.VIEW,
    "api:project_get": Permission.VIEW,
    "api:project_create": Permission.MANAGE,
    "api:project_update": Permission.MANAGE,
    "api:project_archive": Permission.MANAGE,
    "api:providers_list": Permission.VIEW,
    "api:runs_list": Permission.VIEW,
    "api:run_get": Permission.VIEW,
    "api:run_create": Permission.LAUNCH,
    "api:run_prompt": Permission.LAUNCH,
    "api:run_permission": Permission.LAUNCH,
    "api:run_stop": Permission.LAUNCH,
    "api:run_cancel_turn": Permission.LAUNCH,
    "api:run_events": Permission.VIEW,
    "api:pods_list": Permission.VIEW,
    "api:pod_get": Permission.VIEW,
    "api:pod_logs": Permission.VIEW,
    "api:reviews_list": Permission.VIEW,
    "api:review_get": Permission.VIEW,
    "api:review_diff": Permission.VIEW,
    "api:review_promote": Permission.REVIEW,
    "api:review_reject": Permission.REVIEW,
    "api:tokens_list": Permission.SELF,
    "api:token_create": Permission.SELF,
    "api:token_revoke": Permission.SELF,
    "api:retention_plan": Permission.MANAGE,
    "api:retention_apply": Permission.MANAGE,
    # websockets
    "ws:run": Permission.VIEW,
    "ws:logs": Permission.VIEW,
    "ws:wakes": Permission.VIEW,
    "ws:exec": Permission.ATTACH,
}


def role_of(user: User | AnonymousUser) -> Role | None:
    """The highest role of a person, or None for a stranger. A superuser is a manager."""
    if not user.is_authenticated or not user.is_active:
        return None
    if user.is_superuser:
        return Role.MANAGER
    names = set(user.groups.values_list("name", flat=True))
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
