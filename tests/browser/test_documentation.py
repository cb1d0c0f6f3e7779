"""The documentation, as a person uses it."""

import json
import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Visit
from tests.stack.people import Person

OPERATIONS = ["Register", "Log in", "Refresh", "List your transactions", "Record a transaction", "Delete a transaction"]


def authorise(page: Page, token: str) -> None:
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".modal-ux")
    dialog.get_by_label("auth-bearer-value").fill(token)
    dialog.get_by_role("button", name=re.compile("^Apply credentials|^Authorize")).click()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)


def opened(page: Page, operation: str) -> Locator:
    """Open an operation of Swagger UI and make its form ready."""
    block = page.locator(f"#operations-transactions-{operation}")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    return block


def answer(block: Locator) -> tuple[str, str]:
    """Send the form of an operation; return the status and the body that Swagger UI shows."""
    block.get_by_role("button", name="Execute").click()
    row = block.locator(".live-responses-table .response").first
    body = row.locator(".highlight-code code")
    expect(body).to_be_visible()
    return row.locator(".response-col_status").inner_text().split()[0], body.inner_text()


def test_the_root_leads_to_swagger_ui(visit: Visit) -> None:
    visit.page.goto("/")

    expect(visit.page).to_have_url(re.compile("/api/docs/$"))
    expect(visit.page.locator(".opblock")).not_to_have_count(0)
    visit.assert_quiet()


def test_swagger_ui_shows_every_operation_from_this_server_alone(visit: Visit) -> None:
    visit.page.goto("/api/docs/")

    expect(visit.page.get_by_role("heading", name="Transactions API")).to_be_visible()
    for operation in OPERATIONS:
        expect(visit.page.locator(".opblock-summary-description", has_text=operation).first).to_be_visible()
    visit.page.wait_for_load_state("networkidle")
    visit.assert_quiet()


def test_a_person_lists_their_rows_with_try_it_out(visit: Visit, alice: Person) -> None:
    rows = [alice.record("Coffee", "-3.20"), alice.record("Salary", "2500.00")]
    visit.page.goto("/api/docs/")

    authorise(visit.page, alice.access)
    status, body = answer(opened(visit.page, "list_transactions"))

    assert status == "200"
    assert json.loads(body) == {
        "count": 2,
        "count_is_exact": True,
        "next": None,
        "previous": None,
        "results": rows[::-1],
    }
    visit.assert_quiet()


def test_a_person_records_a_row_with_try_it_out(visit: Visit, alice: Person) -> None:
    visit.page.goto("/api/docs/")

    authorise(visit.page, alice.access)
    block = opened(visit.page, "record_transaction")
    block.locator("textarea").fill('{"amount": "-4.50", "description": "Tea for two"}')
    status, body = answer(block)

    assert status == "201"
    assert json.loads(body)["description"] == "Tea for two"
    assert alice.descriptions() == ["Tea for two"]
    visit.assert_quiet()


def test_the_example_of_an_operation_works_as_it_is(visit: Visit, alice: Person) -> None:
    visit.page.goto("/api/docs/")

    authorise(visit.page, alice.access)
    status, body = answer(opened(visit.page, "record_transaction"))

    assert status == "201"
    assert json.loads(body)["description"] == "Coffee"
    assert alice.descriptions() == ["Coffee"]
    visit.assert_quiet()


def test_without_a_token_try_it_out_shows_what_is_missing(visit: Visit) -> None:
    visit.page.goto("/api/docs/")

    status, body = answer(opened(visit.page, "list_transactions"))

    assert status == "401"
    assert json.loads(body) == {"detail": "Authentication credentials were not provided."}


def test_redoc_shows_every_operation_from_this_server_alone(visit: Visit) -> None:
    visit.page.goto("/api/redoc/")

    expect(visit.page.get_by_role("heading", name="Transactions API").first).to_be_visible()
    for operation in OPERATIONS:
        expect(visit.page.locator("h2", has_text=operation).first).to_be_visible()
    visit.page.wait_for_load_state("networkidle")
    visit.assert_quiet()


def test_redoc_finds_an_operation(visit: Visit) -> None:
    visit.page.goto("/api/redoc/")

    visit.page.get_by_placeholder("Search").fill("refresh")

    # The search runs in a worker, which the page's policy must allow.
    expect(visit.page.get_by_role("search").get_by_text("Refresh", exact=True)).to_be_visible()
    visit.assert_quiet()


@pytest.mark.parametrize("page", ["/api/docs/", "/api/redoc/"])
def test_a_page_may_not_reach_another_server(page: str, visit: Visit) -> None:
    """That the other tests see nothing is no luck: the page's policy would refuse it, and they would see that."""
    visit.page.goto(page)
    visit.page.wait_for_load_state("networkidle")
    visit.assert_quiet()

    visit.page.evaluate("fetch('http://other.example/').catch(() => null)")

    with pytest.raises(AssertionError):
        visit.assert_quiet()
    assert any("Content Security Policy" in complaint for complaint in visit.complaints)
