"""Rights: what is not listed is for admins alone."""

import pytest

from coe.access.rights import PUBLIC, RIGHTS, right_to, verdict


def may(role, method, path):
    return verdict(right_to(method, path), role, path)


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: f"{right.method} {right.path}")
def test_a_right_is_found_under_its_path_and_for_its_roles_only(right):
    path = right.path + ("anything/else" if right.path.endswith("/") else "")
    assert right_to(right.method, path) is right
    for role in ("user", "viewer", "admin"):
        assert (may(role, right.method, path) == "yes") == (role in right.roles)
    assert "admin" in right.roles
    assert right.path not in PUBLIC


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/v1/secret", "unknown_url"),
        ("GET", "/admin", "unknown_url"),
        ("GET", "/admin/experts/x", "method_not_allowed"),
        ("DELETE", "/v1/models", "method_not_allowed"),
        ("POST", "/v1/chat/completions/", "unknown_url"),
        ("POST", "/V1/chat/completions", "unknown_url"),
        ("POST", "//v1/chat/completions", "unknown_url"),
        ("PUT", "/admin/experts/x", "forbidden"),
        ("POST", "/metrics", "method_not_allowed"),
        ("HEAD", "/v1/models", "yes"),
        ("HEAD", "/metrics", "forbidden"),
    ],
)
def test_what_a_user_hears_otherwise(method, path, said):
    assert may("user", method, path) == said
    assert may("admin", method, path) == "yes"
