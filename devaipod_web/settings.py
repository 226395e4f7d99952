"""Settings of the control plane. Everything that a person may set is an environment variable named here."""

from __future__ import annotations

import os
from datetime import timedelta
from decimal import Decimal, InvalidOperation

from devaipod_web import home
from devaipod_web.database import database_config
from pods.agents import PACKAGED

#: Templates and static files: beside the package in a checkout, inside it in a wheel.
ASSETS_DIR = home.assets()


def _flag(name: str, default: bool = False) -> bool:
    return os.environ.get(name, "1" if default else "0").lower() in ("1", "true", "yes", "on")


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{name} must be a whole number, not {text!r}") from error


def _decimal(name: str, default: str) -> Decimal:
    text = os.environ.get(name) or default
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"{name} must be a number such as {default}, not {text!r}") from error
    if not value.is_finite() or value < 0:
        raise ValueError(f"{name} must be a number from 0 on, not {text!r}")
    return value


def _pairs(name: str) -> dict[str, str]:
    """`key=value` pairs with spaces between."""
    words = os.environ.get(name, "").split()
    if any("=" not in word for word in words):
        raise ValueError(f"{name} must be pairs such as codex=registry.example/codex:1")
    return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def _listen(name: str) -> tuple[str, int] | None:
    """`host:port`, `[::]:port` or `:port` (every interface); None when it is empty."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{name} must be host:port such as 0.0.0.0:8001, not {text!r}")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what was asked for


def _own_namespace(name: str) -> str:
    """`kubernetes:NAMESPACE` → NAMESPACE."""
    text = os.environ.get(name, "").strip()
    kind, _, namespace = text.partition(":")
    if text and (kind != "kubernetes" or not namespace):
        raise ValueError(f"{name} must be kubernetes:NAMESPACE, not {text!r}")
    return namespace


DEBUG = _flag("DEVAIPOD_DEBUG")
SECRET_KEY = home.secret_file("secret.key").decode()

#: The address that people use. On anything but loopback cookies are for HTTPS only.
PUBLIC_URL = os.environ.get("DEVAIPOD_URL", "")
ALLOWED_HOSTS = [
    host
    for host in os.environ.get("DEVAIPOD_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
    if host
]
LOOPBACK_ONLY = all(host in ("localhost", "127.0.0.1", "[::1]") for host in ALLOWED_HOSTS)
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PUBLIC_URL.startswith("https://") else []

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "django_htmx",
    "channels",
    "devaipod_web",
    "devaipod_web.accounts",
    "devaipod_web.projects",
    "devaipod_web.targets",
    "devaipod_web.runs",
    "devaipod_web.llm",
    "devaipod_web.budgets",
    "devaipod_web.reviews",
    "devaipod_web.webhooks",
    "devaipod_web.health",
]

MIDDLEWARE = [
    "devaipod_web.health.probes.Probes",
    "devaipod_web.api.problems.ProblemDocuments",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "devaipod_web.accounts.middleware.ContentSecurityPolicy",
    "devaipod_web.accounts.middleware.PermissionTable",
]

ROOT_URLCONF = "devaipod_web.urls"
ASGI_APPLICATION = "devaipod_web.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ASSETS_DIR / "templates"],
        "APP_DIRS": False,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "devaipod_web.context.frame",
            ],
            "builtins": ["devaipod_web.templatetags.show"],
        },
    }
]

DATABASES = {"default": database_config(os.environ.get("DATABASE_URL", ""), sqlite=home.database())}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if os.environ.get("REDIS_URL"):
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [os.environ["REDIS_URL"]]},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

SESSION_COOKIE_NAME = f"devaipod_{home.installation_id()}"
CSRF_COOKIE_NAME = f"devaipod_csrf_{home.installation_id()}"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not LOOPBACK_ONLY
SECURE_HSTS_SECONDS = 0 if LOOPBACK_ONLY else 31_536_000
SECURE_SSL_REDIRECT = False
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if _flag("DEVAIPOD_BEHIND_PROXY") else None
)
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

STATIC_URL = "/static/"
STATICFILES_DIRS = [ASSETS_DIR / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

# --- The gateway's port and where pods run ------------------------------------------------------------------------
#: Where the gateway listens for pods beside its Unix socket: (host, port); None is nowhere.
GATEWAY_LISTEN = _listen("DEVAIPOD_GATEWAY_LISTEN")
#: The base URL of that port as pods of a cluster reach it, where their target names none.
GATEWAY_ADDRESS = os.environ.get("DEVAIPOD_GATEWAY_ADDRESS", "").rstrip("/")

#: Whether this host's podman is a target.
PODMAN = _flag("DEVAIPOD_PODMAN", default=True)
#: The namespace of the cluster that the control plane itself runs in where it is a target; empty: none.
OWN_NAMESPACE = _own_namespace("DEVAIPOD_TARGET")

DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

#: The longest time that an API token may count, in days; a manager's may also count until it is revoked.
TOKEN_MAX_DAYS = _number("DEVAIPOD_TOKEN_MAX_DAYS", 366)

# --- Runs -----------------------------------------------------------------------------------------------------
#: Runs that may have a pod at once; the rest are queued.
MAX_RUNS = _number("DEVAIPOD_MAX_RUNS", os.cpu_count() or 1)
#: How long a pod stays after its run has succeeded, for a quick follow-up.
KEEP_WARM = timedelta(seconds=_number("DEVAIPOD_KEEP_WARM_SECONDS", 600))
#: How long the pod of a paused run stays, so that it goes on at once; after it a resumption takes a new one.
PAUSED_KEEP_WARM = timedelta(seconds=_number("DEVAIPOD_PAUSED_KEEP_WARM_SECONDS", 1800))
#: An agent that makes the same tool call with the same result so often in a row is paused (a cycle of up to four calls: half as
#: often), and one with so many turns in a row that the same words asked for and that changed nothing. 0: never.
LOOP_CALLS = _number("DEVAIPOD_LOOP_CALLS", 20)
LOOP_TURNS = _number("DEVAIPOD_LOOP_TURNS", 5)
#: A permission request that nobody answers is refused after this time.
PERMISSION_TIMEOUT = timedelta(seconds=_number("DEVAIPOD_PERMISSION_TIMEOUT_SECONDS", 1800))
#: Wall time of a run unless its project or the launch says less.
DEFAULT_WALL_SECONDS = _number("DEVAIPOD_WALL_SECONDS", 7200)
#: What a run may spend on models, and how many requests it may send them, unless its project, the launch or a manager says
#: otherwise. 0 is no limit.
RUN_BUDGET_USD = _decimal("DEVAIPOD_RUN_BUDGET_USD", "5.00")
RUN_REQUESTS = _number("DEVAIPOD_RUN_REQUESTS", 1000)
HEALTH_SECONDS = _number("DEVAIPOD_HEALTH_SECONDS", 20)
#: A running run without any event for this long is named stuck.
STUCK_AFTER = timedelta(seconds=_number("DEVAIPOD_STUCK_AFTER_SECONDS", 300))
#: Attempts of a run whose pod was lost without its fault.
MAX_ATTEMPTS = _number("DEVAIPOD_MAX_ATTEMPTS", 3)
#: Terminals that one pod may have at once, and how long one may stand without a byte either way.
MAX_TERMINALS = _number("DEVAIPOD_MAX_TERMINALS", 4)
TERMINAL_IDLE = timedelta(seconds=_number("DEVAIPOD_TERMINAL_IDLE_SECONDS", 1800))
KEEP_LOGS = timedelta(days=_number("DEVAIPOD_KEEP_LOGS_DAYS", 30))
KEEP_DELIVERIES = timedelta(days=_number("DEVAIPOD_KEEP_DELIVERIES_DAYS", 30))
KEEP_VOLUMES = timedelta(days=_number("DEVAIPOD_KEEP_VOLUMES_DAYS", 7))
#: Images of a run when neither project nor devcontainer.json names one, and of every sidecar.
AGENT_IMAGE = os.environ.get("DEVAIPOD_AGENT_IMAGE", "localhost/devaipod-agent:dev")
#: The same for runs of one agent, by its key, as pairs `agent=image` with spaces between.
AGENT_IMAGES = {
    **{key: f"localhost/devaipod-agent-{key}:dev" for key in PACKAGED},
    **_pairs("DEVAIPOD_AGENT_IMAGES"),
}
SIDECAR_IMAGE = os.environ.get("DEVAIPOD_SIDECAR_IMAGE", "localhost/devaipod-sidecar:dev")
#: Folders below which a project's upstream or production repository may be a local path.
LOCAL_REPOSITORY_ROOTS = [
    p for p in os.environ.get("DEVAIPOD_LOCAL_REPOSITORY_ROOTS", "").split(":") if p
]
#: Networks (CIDR) in private ranges that upstreams and providers may be in.
ALLOWED_PRIVATE_NETWORKS = [
    n for n in os.environ.get("DEVAIPOD_ALLOWED_PRIVATE_NETWORKS", "").split(",") if n
]
#: Tokens that a model may answer with when the agent's request says no limit, unless a route or the model's own limit says less.
OUTPUT_LIMIT = _number("DEVAIPOD_OUTPUT_LIMIT", 32_000)
#: Bytes that one push may bring.
MAX_PUSH_BYTES = _number("DEVAIPOD_MAX_PUSH_BYTES", 256 * 1024 * 1024)
#: Event count and bytes that one attempt may store.
MAX_EVENTS = _number("DEVAIPOD_MAX_EVENTS", 200_000)
MAX_EVENT_BYTES = _number("DEVAIPOD_MAX_EVENT_BYTES", 512 * 1024 * 1024)

LOGGING_CONFIG = None
