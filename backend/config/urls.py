"""The map of the service; each app brings its own."""

from django.conf import settings
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

from config import docs

urlpatterns: list[URLPattern | URLResolver] = [
    path("auth/", include("accounts.urls")),
    path("api/", include("transactions.urls")),
]

if settings.DOCS_ENABLED:
    urlpatterns += [
        # A person who opens the service in a browser finds the documentation.
        path("", RedirectView.as_view(pattern_name="docs")),
        path("api/schema/", docs.SchemaView.as_view(), name="schema"),
        path("api/docs/", docs.SwaggerView.as_view(url_name="schema"), name="docs"),
        path("api/redoc/", docs.RedocView.as_view(url_name="schema"), name="redoc"),
    ]

if "django.contrib.admin" in settings.INSTALLED_APPS:
    from django.contrib import admin

    urlpatterns += [path("admin/", admin.site.urls)]

handler400 = "config.errors.bad_request"
handler403 = "config.errors.permission_denied"
handler404 = "config.errors.not_found"
handler500 = "config.errors.server_error"
