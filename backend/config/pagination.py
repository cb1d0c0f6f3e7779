"""Pages by number: what every list has unless it says otherwise."""

from rest_framework.pagination import PageNumberPagination

BY_NUMBER = "page"


class NumberedPages(PageNumberPagination):
    """``?page=``: ten rows a page."""

    page_size = 10
    page_query_param = BY_NUMBER
    page_query_description = "A page of ten rows, from 1."
