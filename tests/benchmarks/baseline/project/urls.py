"""The routes of the sample."""

from django.contrib import admin
from django.urls import include, path
from rest_framework.routers import DefaultRouter

from transactions.views import TransactionViewSet

router = DefaultRouter()
router.register("transactions", TransactionViewSet, basename="transaction")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("auth/", include("djoser.urls")),
    path("auth/", include("djoser.urls.jwt")),
    path("api/", include(router.urls)),
]
