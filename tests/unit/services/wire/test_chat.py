"""What a body asks of experts together, and how a decision says who answers."""

import json
from dataclasses import asdict, replace

import pytest

from coe.core import Message, Policy, Request
from coe.decision import Agreement, Receipt
from coe.errors.callers import RequestError
from coe.mode import Mode
from coe.services.wire.chat import decision_document, parse_chat, receipt_document
from coe.standing import Origin

POLICIES = {"default": Policy("default")}


def parsed(**extras):
    document = {"model": "auto", "messages": [{"role": "user", "content": "hm"}], "coe": extras}
    return parse_chat(json.dumps(document).encode(), POLICIES, frozenset({"small"}))[0]


def test_nothing_is_asked_of_experts_together_unless_the_body_does():
    request = parsed()
    assert (request.mode, request.most_experts, request.tenant) == (None, None, "")


def test_auto_is_no_kind():
    assert parsed(mode="auto").mode is None


@pytest.mark.parametrize("kind", ["single", "vote", "rank", "cascade", "fuse", "mixture"])
def test_a_kind_a_number_of_experts_and_a_tenant_are_read(kind):
    request = parsed(mode=kind, k=3, tenant="acme.eu_1-b")
    assert (request.mode, request.most_experts, request.tenant) == (kind, 3, "acme.eu_1-b")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("k", 0),
        ("k", 9),
        ("k", "2"),
        ("k", True),
        ("mode", "duel"),
        ("mode", None),
        ("tenant", ""),
        ("tenant", "a b"),
        ("tenant", "a\n"),
        ("tenant", "x" * 65),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(RequestError) as refused:
        parsed(**{field: value})
    assert (refused.value.param, refused.value.code) == (f"coe.{field}", "invalid_value")


@pytest.fixture
def decision(make_spec, make_router):
    router = make_router([make_spec("a"), make_spec("b")], [[0.5, 0.4]] * 3)
    return router.decide(Request((Message("user", "some code"),)))


def said_of(decision, mode):
    return decision_document(replace(decision, selection=replace(decision.selection, mode=mode)))


def test_a_decision_says_how_experts_make_one_answer(decision):
    document = said_of(decision, Mode("cascade", (("a",), ("b", "c")), 0.8))
    assert document["mode"] == "cascade"
    assert document["mode_name"] == "a, else b + c (0.80)"
    assert document["stages"] == [["a"], ["b", "c"]]
    assert document["threshold"] == 0.8


def test_only_a_cascade_has_a_threshold(decision):
    document = decision_document(decision)
    assert document["mode"] == "single"
    assert (document["mode_name"], document["stages"]) == ("a", [["a"]])
    assert "threshold" not in document


def needs(**body):
    document = {"model": "auto", "messages": [{"role": "user", "content": "hm"}], **body}
    return parse_chat(json.dumps(document).encode(), POLICIES, frozenset({"small"}))[0].needs


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {}),
        ({"n": 1, "stop": None, "logprobs": False, "tools": []}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"n": 2, "seed": 0, "stop": "x"}, {"n": "n", "seed": "seed", "stop": "stop"}),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": "logprobs"}),
        ({"response_format": {"type": "json_object"}}, {"json_object": "response_format"}),
        ({"response_format": SCHEMA}, {"json_schema": "response_format"}),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {"tools": "tools"}),
        ({"functions": [{"name": "f"}]}, {"tools": "functions"}),
        ({"modalities": ["text", "audio"]}, {"audio": "modalities"}),
        (
            {
                "messages": [
                    {"role": "user", "content": "hm"},
                    {"role": "assistant", "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": "c1", "content": "a"},
                ]
            },
            {"tools": "messages[1].tool_calls"},
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "hm"},
                    {"role": "user", "content": [{"type": "file", "file": {"file_id": "a"}}]},
                ]
            },
            {"files": "messages[1].content"},
        ),
    ],
)
def test_what_a_body_needs_is_read_from_it(body, expected):
    assert needs(**body) == expected


def test_a_field_that_an_expert_takes_goes_along_and_no_other():
    document = {"model": "auto", "messages": [{"role": "user", "content": "hm"}], "top_k": 40}
    body = json.dumps(document).encode()
    request, _ = parse_chat(body, POLICIES, frozenset({"small"}), extras=frozenset({"top_k"}))
    assert (request.extras, request.payload["top_k"]) == ({"top_k"}, 40)
    with pytest.raises(RequestError) as refused:
        parse_chat(body, POLICIES, frozenset({"small"}))
    assert (refused.value.param, refused.value.code) == ("top_k", "unknown_parameter")


PART = Receipt(
    "dec-1", "small", "complete", 1.23456789, 12, 3, 4, "stated", 1e-9 / 3, "measured", "rail", 0.0
)


def short(value):
    """As JSON has it, six digits of every fraction: the slow way."""
    if isinstance(value, dict):
        return {name: short(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [short(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@pytest.mark.parametrize(
    "receipt",
    [
        PART,
        replace(PART, failed_over=("large",), copied_from=Origin("dec-0", "small"), config="c"),
        replace(
            PART,
            parts=(PART, replace(PART, expert_id="large")),
            agreement=Agreement(2 / 3, False, ("small", "large"), (), 1 / 7, 1),
        ),
    ],
)
def test_a_receipt_says_all_that_it_holds(receipt):
    assert json.dumps(receipt_document(receipt)) == json.dumps(short(asdict(receipt)))
