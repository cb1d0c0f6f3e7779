"""Django's settings, each stated once, in the order of Django's documentation.

What an operator may change is a variable in ``config.env``; a comment says why where a value departs from
Django's default.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

from config.env import load

env = load()

BASE_DIR = Path(__file__).resolve().parent.parent

# Core ---------------------------------------------------------------------------------------------

ALLOWED_HOSTS = env.DJANGO_ALLOWED_HOSTS
# Read by config.clients and config.middleware: whether X-Forwarded-For and X-Request-ID come from nginx.
BEHIND_PROXY = env.DJANGO_PROXY_ENABLED
DEBUG = env.DJANGO_DEBUG
# The first key signs, all of them verify: so one can be replaced and nobody notices.
SECRET_KEY = env.DJANGO_SECRET_KEY[0]
SECRET_KEY_FALLBACKS = env.DJANGO_SECRET_KEY[1:]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

INSTALLED_APPS = [
    "config",  # before Django's own, whose `migrate` it puts under a lock
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework_simplejwt.token_blacklist",
    "djoser",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "accounts",
    "transactions",
    "health",
]
MIDDLEWARE = [
    # Around all others, which may answer without a look at the body.
    "config.middleware.ReadWholeBodyMiddleware",
    "config.middleware.RequestIdMiddleware",
    # Before the rest, so that a probe is answered whatever Host it sends and whatever the database does.
    "health.middleware.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.ContentSecurityPolicyMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "config.middleware.DatabaseUnavailableMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

if env.DJANGO_ADMIN_ENABLED:
    # The admin site and the cookies it needs are there only when they are asked for.
    INSTALLED_APPS += ["django.contrib.admin", "django.contrib.messages", "django.contrib.sessions"]
    MIDDLEWARE += [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]
    TEMPLATES[0]["OPTIONS"]["context_processors"] += [
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]

# nginx refuses bodies over NGINX_CLIENT_MAX_BODY_KB, at most as much (nginx/entrypoint.sh). This is for the mode
# without it.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
# Without a trailing slash the answer is 404: a redirect would turn a POST into a GET.
APPEND_SLASH = False

# Database -----------------------------------------------------------------------------------------

DATABASES = {
    "default": {
        "ENGINE": "config.postgresql",
        "HOST": env.database.host,
        "PORT": env.database.port,
        "NAME": env.database.name,
        "USER": env.database.user,
        "PASSWORD": env.database.password,
        # Read by config.postgresql: what else the database may take while the password is being changed.
        "OTHER_PASSWORDS": env.database.other_passwords,
        # The same: which variable, and which file, to look at when the database takes none of them.
        "PASSWORD_ORIGIN": env.password_origin,
        # A connection costs the server 5 ms of CPU; it is kept, and checked before it is used again, so that a
        # restarted database costs no request.
        "CONN_MAX_AGE": env.POSTGRES_CONNECTION_MAX_AGE_SECONDS,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": env.POSTGRES_CONNECT_TIMEOUT_SECONDS,
            # A database that vanished from the network is noticed in about 11 s, within nginx's 12, instead of
            # after TCP's own quarter of an hour. In a transaction, which Django ends by connecting anew, it takes
            # connect_timeout more, and nginx answers.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 8000,
            "options": (
                f"-c statement_timeout={env.POSTGRES_STATEMENT_TIMEOUT_MS}"
                f" -c lock_timeout={env.POSTGRES_LOCK_TIMEOUT_MS}"
                " -c idle_in_transaction_session_timeout=15000"
            ),
            # Statements are prepared where the code says so, never because they come often: a plan that is made
            # without the values would be a poor one for a filter, or for a search by its index.
            "prepare_threshold": 2**31 - 1 if env.POSTGRES_PREPARED_STATEMENTS_ENABLED else None,
            **env.database.options,
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Accounts -----------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["accounts.backends.CountingBackend"]
PASSWORD_HASHERS = ["accounts.hashers.Argon2idPasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        # The least that NIST SP 800-63B and OWASP ASVS 6.2.1 ask for.
        "OPTIONS": {"min_length": 8},
    },
    {"NAME": "accounts.validators.MaximumLengthValidator"},
    {"NAME": "accounts.validators.VisibleCharacterValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
# How long a link in a mail is good for, in seconds. Django's three days would let an old mailbox open an account.
PASSWORD_RESET_TIMEOUT = 3600

# Read by accounts.attempts.
ACCOUNT_FAILURES_LIMIT = env.DJANGO_ACCOUNT_FAILURES_LIMIT
ACCOUNT_FAILURES_WINDOW_SECONDS = env.DJANGO_ACCOUNT_FAILURES_WINDOW_SECONDS

# Mail: only the upkeep process sends any, and has a mail server ------------------------------------

MAIL_ENABLED = env.EMAIL_URL is not None
ACTIVATION_ENABLED = env.DJANGO_ACTIVATION_ENABLED
# The pages of the frontend that the links lead to, with {uid} and {token}. Without the first there is no reset.
PASSWORD_RESET_URL = env.DJANGO_PASSWORD_RESET_URL or ""
ACTIVATION_URL = env.DJANGO_ACTIVATION_URL or ""
if env.EMAIL_URL is not None:
    EMAIL_BACKEND = env.EMAIL_URL.backend
    EMAIL_HOST = env.EMAIL_URL.host
    EMAIL_PORT = env.EMAIL_URL.port
    EMAIL_HOST_USER = env.EMAIL_URL.user
    EMAIL_HOST_PASSWORD = env.EMAIL_URL.password
    EMAIL_USE_TLS = env.EMAIL_URL.use_tls
    EMAIL_USE_SSL = env.EMAIL_URL.use_ssl
    DEFAULT_FROM_EMAIL = env.EMAIL_FROM
# Of one step of the conversation; without it a server that went silent would keep the process for ever.
EMAIL_TIMEOUT = 10

# What `manage.py upkeep` removes when it has expired; each returns how many rows of which kind.
UPKEEP = [
    "accounts.sessions.remove_expired",
    "accounts.attempts.remove_expired",
    "accounts.mail.remove_expired",
    "transactions.idempotency.remove_expired",
]
if env.DJANGO_ADMIN_ENABLED:
    UPKEEP += ["accounts.admin_sessions.remove_expired"]

# Internationalisation: the API speaks English and UTC; clients translate.
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

# Logging: one line an event on stderr, where the container engine collects and bounds it ----------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "config.logs.RequestIdFilter"}},
    "formatters": {
        "line": {
            "format": "{asctime} {levelname} {name} request_id={request_id} {message}",
            "style": "{",
        }
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request_id"]},
    },
    "root": {"handlers": ["stderr"], "level": env.DJANGO_LOG_LEVEL},
    "loggers": {
        # Django's own handlers would mail administrators; everything goes to the root handler instead.
        "django": {"handlers": [], "level": env.DJANGO_LOG_LEVEL, "propagate": True},
        # One line for every 4xx is nginx's access log, not this one.
        "django.request": {"level": "ERROR"},
    },
}

# Security -----------------------------------------------------------------------------------------

if env.DJANGO_PROXY_ENABLED:
    # nginx overwrites the header in every request and is the only way in.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "config.errors.csrf_failure"
# TLS, its redirect and HSTS are nginx's; each silenced check says so.
SILENCED_SYSTEM_CHECKS = [
    "security.W003",  # CsrfViewMiddleware: the API takes no cookie; the admin switch adds it
    "security.W004",  # SECURE_HSTS_SECONDS: nginx sends it once it ends TLS
    "security.W008",  # SECURE_SSL_REDIRECT: nginx redirects
    "security.W012",  # SESSION_COOKIE_SECURE: no cookie without the admin; plain HTTP on 127.0.0.1 must work with it
    "security.W016",  # CSRF_COOKIE_SECURE: as above
]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        # Enough for Swagger UI and the admin, and harmless for JSON; ReDoc's page adds what it needs.
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}

# Static files -------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},  # nothing is uploaded
    "staticfiles": {"BACKEND": "config.storage.StaticStorage"},
}
if not env.DJANGO_PROXY_ENABLED:
    # Nobody else serves them in the embedded mode.
    MIDDLEWARE.insert(
        MIDDLEWARE.index("config.middleware.ContentSecurityPolicyMiddleware"),
        "whitenoise.middleware.WhiteNoiseMiddleware",
    )
WHITENOISE_ALLOW_ALL_ORIGINS = False
WHITENOISE_MAX_AGE = 3600

# Django REST framework: closed by default; a public endpoint opts out in its view, with the reason -

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    # JSON and nothing else: the browsable pages would list user names in their forms.
    "DEFAULT_PARSER_CLASSES": ["config.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "config.negotiation.Negotiation",
    "DEFAULT_SCHEMA_CLASS": "config.openapi.OperationSchema",
    # The framework's own answers OPTIONS with docstrings and with fields that are not those of the operation.
    "DEFAULT_METADATA_CLASS": "config.metadata.MediaTypes",
    "DEFAULT_PAGINATION_CLASS": "config.pagination.NumberedPages",
    "EXCEPTION_HANDLER": "config.errors.exception_handler",
}

# Accounts and tokens ------------------------------------------------------------------------------

DJOSER = {
    "TOKEN_MODEL": None,  # tokens are JWTs; with a model, deleting an account would fail
    "SERIALIZERS": {
        "user": "accounts.serializers.AccountSerializer",
        "current_user": "accounts.serializers.AccountSerializer",
        "user_create": "accounts.serializers.RegistrationSerializer",
        "user_delete": "accounts.serializers.CloseAccountSerializer",
        "set_password": "accounts.serializers.SetPasswordSerializer",
    },
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=env.JWT_ACCESS_LIFETIME_MINUTES),
    "REFRESH_TOKEN_LIFETIME": timedelta(hours=env.JWT_REFRESH_LIFETIME_HOURS),
    "ALGORITHM": "HS256",
    "SIGNING_KEY": env.JWT_SIGNING_KEY[0],
    "ISSUER": "transactions",
    "AUDIENCE": "transactions-api",
    "AUTH_HEADER_TYPES": ("Bearer",),
    "AUTH_TOKEN_CLASSES": ("accounts.tokens.SessionAccessToken",),
}
# Read by accounts: the first key signs, all of them verify.
JWT_KEY_RING = env.JWT_SIGNING_KEY
JWT_SESSION_LIFETIME_DAYS = env.JWT_SESSION_LIFETIME_DAYS
JWT_REUSE_GRACE_SECONDS = env.JWT_REUSE_GRACE_SECONDS

# The OpenAPI schema and its pages -----------------------------------------------------------------

DOCS_ENABLED = env.DJANGO_DOCS_ENABLED
SPECTACULAR_SETTINGS = {
    "TITLE": "Transactions API",
    "VERSION": "1.0.0",
    "DESCRIPTION": (
        "Keep your own transactions. Register, log in, send the access token as `Authorization: Bearer <token>`.\n\n"
        'Every error is JSON: `{"detail": "..."}`, or an object that names each bad field.'
    ),
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SCHEMA_PATH_PREFIX": "/(api|auth)/",
    "SCHEMA_PATH_PREFIX_TRIM": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "config.openapi.describe_every_answer",
    ],
    # From the sidecar package: no page loads anything from another host.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "displayRequestDuration": True, "tryItOutEnabled": False},
    "TAGS": [
        {"name": "transactions", "description": "Your own transactions."},
        {"name": "accounts", "description": "Registration and your account."},
        {"name": "tokens", "description": "Log in, refresh, verify, log out."},
        {"name": "sessions", "description": "Where your account is logged in."},
    ],
}
