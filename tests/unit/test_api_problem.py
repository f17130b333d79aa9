"""What errors look like outside."""

from __future__ import annotations

import json

import pytest

from edgegc import errors
from edgegc.api import problem
from edgegc.connection import Head
from edgegc.problem import rebuild


@pytest.mark.parametrize("code", list(problem.STATUS))
def test_every_code_has_a_status_and_the_status_leads_back(code: errors.Code) -> None:
    made = problem.answer(problem.STATUS[code], "a sentence", request_id="r1")
    assert json.loads(made.body) == {
        "type": "about:blank",
        "title": json.loads(made.body)["title"],
        "status": problem.STATUS[code],
        "code": code,
        "detail": "a sentence",
        "request_id": "r1",
    }
    assert dict(made.headers)["content-type"] == "application/problem+json"


def test_an_authentication_failure_never_says_why() -> None:
    reasons = ("no such token", "expired", "revoked")
    made = {problem.of_error(errors.Unauthorized(reason), request_id="r").body for reason in reasons}
    assert len(made) == 1
    headers = dict(problem.of_error(errors.Unauthorized("x"), request_id="r").headers)
    assert headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("error", [errors.TooMany("slow down"), errors.Unavailable("the disk is full")])
def test_who_may_come_back_is_told_when(error: errors.Error) -> None:
    assert int(dict(problem.of_error(error, request_id="r").headers)["retry-after"]) > 0


def test_the_time_an_error_names_wins() -> None:
    made = problem.of_error(errors.TooMany("slow down", retry_after_s=42), request_id="r")
    assert dict(made.headers)["retry-after"] == "42"


def test_a_refusal_that_can_be_overruled_says_by_what_and_comes_back_as_it_was() -> None:
    made = problem.of_error(errors.Conflict("it has nodes", unless="cascade"), request_id="r")
    assert json.loads(made.body)["unless"] == "cascade"
    again = rebuild(Head(status=made.status, headers={}), made.body)
    assert isinstance(again, errors.Conflict)
    assert (again.message, again.unless) == ("it has nodes", "cascade")


def test_a_group_stands_for_the_error_in_it() -> None:
    inner = errors.Conflict("taken")
    assert problem.single(ExceptionGroup("", [ExceptionGroup("", [inner])])) is inner


def test_a_bug_beside_an_error_of_ours_is_not_hidden_by_it() -> None:
    bug = ZeroDivisionError()
    assert problem.single(ExceptionGroup("", [errors.Conflict("taken"), bug])) is bug
