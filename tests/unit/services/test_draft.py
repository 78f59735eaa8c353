"""What a configuration comes to, and what is said of folders that it names."""

import pytest

from coe.budgets import load_budgets
from coe.config import DATA, RetrievalSection, load_config
from coe.errors.files import ArtefactError
from coe.services.draft import tag_of
from coe.shadow import ShadowSection
from coe.tenants import TenantSection


@pytest.mark.parametrize(
    ("setting", "section", "verb"),
    [
        ("artefact", lambda absent: {"artefact": absent}, "train"),
        ("shadow.artefact", lambda absent: {"shadow": ShadowSection(artefact=absent)}, "train"),
        (
            "retrieval.index",
            lambda absent: {"retrieval": RetrievalSection(index=absent)},
            "index build",
        ),
        (
            "tenants.acme.gate",
            lambda absent: {"tenants": {"acme": TenantSection(expert="x", gate=absent)}},
            "personalise",
        ),
    ],
)
def test_a_folder_that_is_not_there_is_named_with_its_setting(tmp_path, setting, section, verb):
    config = load_config(DATA / "coe.yaml").model_copy(update=section(tmp_path / "absent"))
    with pytest.raises(ArtefactError) as refused:
        tag_of(config, load_budgets(config.budgets, config.specs))
    assert str(refused.value) == (
        f"{setting}: {tmp_path}/absent: no readable manifest: No such file or directory: "
        f"`coe {verb}` makes one"
    )
