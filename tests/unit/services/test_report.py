"""The report: right verdicts, a page that stands alone, pictures that are pictures."""

import dataclasses
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from coe.core import Policy
from coe.evaluation import ArmResult, Categories, Coverage, Evaluation, evaluate
from coe.routers.calibration import reliability
from coe.routers.frontier import frontier
from coe.routers.outcomes import Outcomes
from coe.services.report import GateCurve, ReportError, write_report
from coe.services.report.arms import kind_of
from coe.services.report.grids import MOST, REST, confusion_grid, expert_grid
from coe.services.report.labels import clean, shortened
from coe.services.report.page import page
from coe.services.report.picture import PLOTS
from coe.services.report.placing import Box, Names
from coe.services.report.verdict import headline, remarks, verdict

VOID = {"meta", "link", "br", "img", "input", "hr", "base", "source", "embed", "col"}
HOSTILE = (
    "<script>alert(1)</script>",
    "\" onload='x' autofocus=\"",
    "a&b $x^2$ %s {0} \\frac",
    "line\nbreak\x00\x1b[31m\u202eevil \ud800",
    'id="m" url(#p) href="#x"',
    "https://example.org/" + "long-" * 40 + "name",
    "https://example.org/" + "long-" * 41 + "name",
)


def names(word: str, n: int) -> list[str]:
    return [f"{word}-{k:02d}" for k in range(n)]


def make_evaluation(
    experts=None, categories=None, n=600, lift=None, seed=0, known=("cost_usd", "energy_j")
):
    """An evaluation of random outcomes, with the arms of a real one.

    ``lift`` sets the interval of the difference of arm coe to the best single expert; ``known``
    the resources of which the usage is known.
    """
    rng = np.random.default_rng(seed)
    experts = names("expert", 18) if experts is None else experts
    categories = names("category", 16) if categories is None else categories
    shares = rng.dirichlet(np.full(len(categories), 2.0))
    label = np.concatenate(
        [
            np.arange(len(categories)),
            rng.choice(len(categories), max(n - len(categories), 0), p=shares),
        ]
    )
    n = len(label)
    size = np.sort(rng.lognormal(2.5, 1.0, len(experts)))
    ability = 0.35 + 0.35 * np.linspace(0, 1, len(experts)) ** 0.6
    truth = np.clip(
        ability + rng.normal(0, 0.1, (len(categories), len(experts)))
        + rng.normal(0, 0.12, (len(categories), 1)), 0.02, 0.98,
    )  # fmt: skip
    scores = (rng.random((n, len(experts))) < truth[label]).astype(float)
    length = rng.lognormal(5.5, 0.5, (n, 1))
    usage = {
        "cost_usd": length * size * 2e-8,
        "energy_j": length * size * 0.02,
        "latency_ms": length * (5 + size) * 1.5,
        "active_params_b": np.broadcast_to(size, scores.shape),
    }
    quality = np.clip(truth[label] + rng.normal(0, 0.05, scores.shape), 0, 1)
    single = int(scores.mean(axis=0).argmax())
    eye = np.eye(len(experts))
    dear = quality - 0.2 * size / size.max()
    weights = {
        **{f"always {name}": np.tile(eye[k], (n, 1)) for k, name in enumerate(experts)},
        "random": np.full(scores.shape, 1 / len(experts)),
        "best single under 14B": np.tile(eye[min(len(experts) - 1, len(experts) // 2)], (n, 1)),
        "knn": eye[(quality + rng.normal(0, 0.1, scores.shape)).argmax(axis=1)],
        "direct classifier": eye[(quality + rng.normal(0, 0.2, scores.shape)).argmax(axis=1)],
        "two-step": eye[truth.argmax(axis=1)[label]],
        "two-step robust": eye[
            np.where(rng.random(n) < 0.8, truth.argmax(axis=1)[label], truth.mean(axis=0).argmax())
        ],
        "oracle category": eye[truth.argmax(axis=1)[label]],
        "oracle prompt": eye[scores.argmax(axis=1)],
        "coe": eye[quality.argmax(axis=1)],
        "coe eco": eye[dear.argmax(axis=1)],
        "coe fast": eye[(dear - 0.2 * size / size.max()).argmax(axis=1)],
    }
    reference = scores[:, single]
    best, oracle = float(reference.mean()), float(scores.max(axis=1).mean())

    def arm(name: str, weight: np.ndarray) -> ArmResult:
        got = (weight * scores).sum(axis=1)
        low, high = np.array([-1.96, 1.96]) * got.std() / n**0.5
        delta = got.mean() - best
        spread = 1.96 * (got - reference).std() / n**0.5
        interval = (delta - spread, delta + spread)
        if name == "coe" and lift is not None:
            interval, delta = lift, sum(lift) / 2
        spent = {
            axis: float((weight * usage[axis]).sum(axis=1).mean())
            if axis in known or axis == "active_params_b" else None
            for axis in usage
        }  # fmt: skip
        return ArmResult(
            name, float(got.mean()), (got.mean() + low, got.mean() + high), float(delta), interval,
            **spent, oracle_gap_closed=float(delta) / (oracle - best) if oracle > best else None,
            refused=0.0, n_asked=1.0, oracle=name.startswith("oracle"),
        )  # fmt: skip

    masks = [label == k for k in range(len(categories))]
    guess = np.where(rng.random(n) < 0.75, label, rng.integers(0, len(categories) + 1, n))
    covered = np.arange(n + 1) / n
    return Evaluation(
        dataset="outcomes of July",
        n_prompts=n,
        n_left_out=12,
        expert_ids=tuple(experts),
        best_single=experts[single],
        arms=tuple(arm(name, weight) for name, weight in weights.items()),
        curves={
            axis: frontier(quality, usage[axis], scores, usage[axis])
            for axis in ("cost_usd", "energy_j") if axis in known
        },
        calibration=reliability(quality, scores),
        categories=Categories(
            names=tuple(categories),
            n=np.array([mask.sum() for mask in masks]),
            scores=np.array([scores[mask].mean(axis=0) for mask in masks]),
            chosen=np.array([weights["coe"][mask].mean(axis=0) for mask in masks]),
            predicted=(*categories, "general"),
            confusion=np.array(
                [[(guess[m] == c).mean() for c in range(len(categories) + 1)] for m in masks]
            ),
        ),
        coverage=Coverage(
            covered,
            best + 0.03 * covered * (1.6 - covered) + rng.normal(0, 0.001, n + 1).cumsum() / 9,
            0.83,
        ),
        ladder=(),
        seed=7,
        n_resamples=2000,
    )  # fmt: skip


def make_curve(chosen=(0.4, 0.588)):
    share = np.linspace(0, 1, 80)
    return GateCurve(share, 0.5 + 0.3 * share - 0.2 * share**2, 0.5, 0.6, (0.36, 0.71), chosen)


class Page(HTMLParser):
    """What a strict reader sees: every element closed in its turn, texts, attributes, ids."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def png_size(content):
    """Width and height, after every chunk's checksum was found right."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    place, kinds = 8, []
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        body = content[place + 4 : place + 8 + length]
        assert (
            struct.pack(">I", zlib.crc32(body)) == content[place + 8 + length : place + 12 + length]
        )
        kinds.append(body[:4])
        place += 12 + length
    assert (kinds[0], kinds[-1]) == (b"IHDR", b"IEND")
    return struct.unpack(">II", content[16:24])


def check(paths, plots):
    """That a page stands alone and its pictures are pictures; the page."""
    path, *pictures = paths
    stem = path.stem
    assert [p.name for p in pictures] == [f"{stem}-{n}.{s}" for n in plots for s in ("png", "svg")]
    assert {p.name for p in path.parent.iterdir()} == {p.name for p in paths}
    for picture in pictures:
        if picture.suffix == ".png":
            width, height = png_size(picture.read_bytes())
            assert 150 <= width <= 6000
            assert 150 <= height <= 6000
        else:
            assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    content = path.read_text(encoding="utf-8")
    found = Page(content)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(found.tags)
    assert found.tags.count("svg") == len(plots)
    ids = [value for _, name, value in found.attributes if name == "id"]
    known = set(ids)
    assert len(ids) == len(known)
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name != "src", tag
        if name in ("href", "xlink:href"):
            assert value.removeprefix("#") in known
        if name != "aria-label":
            assert "//" not in value, (tag, name, value)
        assert set(re.findall(r"url\(#([^)]*)\)", value)) <= known
    style = content[content.index("<style>") : content.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert ("meta", "name", "viewport") in found.attributes
    return found


@pytest.fixture(scope="module")
def typical():
    return make_evaluation(known=("cost_usd", "energy_j", "latency_ms"))


@pytest.fixture(scope="module")
def typical_report(typical, tmp_path_factory):
    return write_report(typical, tmp_path_factory.mktemp("typical") / "report.html", make_curve())


@pytest.fixture(scope="module")
def typical_page(typical_report):
    return check(typical_report, PLOTS)


def test_a_page_has_every_section_and_every_arm(typical, typical_page):
    for words in ("Quality against", "Experts by", "Calibration", "taken for", "sure", "Retrieval"):
        assert words in typical_page.text
    for arm in typical.arms:
        assert arm.name in typical_page.texts


def test_a_page_says_what_it_was_made_of(typical, typical_page):
    for fact in ("outcomes of July", "600", "12", "7", "2,000", typical.best_single):
        assert fact in typical_page.texts
    assert "12 prompts were left out" in typical_page.text


def test_a_page_warns_of_the_luck_in_the_oracle(typical_page):
    assert "Part of its lead is luck" in typical_page.text


def test_figures_of_a_page_are_those_of_the_arms(typical, typical_page):
    ours = next(arm for arm in typical.arms if arm.name == "coe")
    row = typical_page.texts[typical_page.texts.index("oracle gap closed") + 1 :]
    shown = [cell for cell in row if cell.strip()][:11]
    assert shown[1] == f"{ours.score:.3f}"
    assert shown[3] == f"{ours.delta_best_single:+.3f}"
    assert float(shown[6]) == pytest.approx(1000 * ours.cost_usd, rel=0.01)
    assert float(shown[7].replace(",", "")) == pytest.approx(ours.energy_j, rel=0.01)
    assert float(shown[8]) == pytest.approx(ours.latency_ms / 1000, rel=0.01)
    assert shown[10] == f"{100 * ours.oracle_gap_closed:.0f} %"


def test_the_retrieval_section_tells_what_the_gate_brings(typical_page):
    # 0.588 lies 0.012 below the better constant, of 0.11 up to the oracle
    assert "closes -11 % of the oracle's lead" in typical_page.text


def test_the_same_evaluation_gives_the_same_bytes(tmp_path):
    evaluation = make_evaluation(names("e", 3), names("c", 3), n=60)
    once = write_report(evaluation, tmp_path / "once" / "r.html")
    # what others set must not show
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 33}):
        again = write_report(evaluation, tmp_path / "again" / "r.html")
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in again]


def test_names_cannot_break_out_of_a_page(tmp_path):
    evaluation = make_evaluation(list(HOSTILE), list(HOSTILE), n=100)
    evaluation = dataclasses.replace(evaluation, dataset="</title><script>alert(2)</script>")
    curve = make_curve(None)
    found = check(write_report(evaluation, tmp_path / "r.html", curve), PLOTS)
    for name in HOSTILE:
        assert clean(name) in found.texts
    assert all(ord(c) >= 32 or c == "\n" for c in (tmp_path / "r.html").read_text())


def test_one_expert_in_one_category_of_unknown_usage_is_a_report(tmp_path):
    evaluation = make_evaluation(["only"], ["all"], n=20, known=())
    found = check(write_report(evaluation, tmp_path / "r.html"), PLOTS[1:-1])
    assert "There is only one expert" in found.text
    assert "within noise" in found.text
    assert "Nothing is drawn against dollars" in found.text
    assert "Nothing is drawn against joules" in found.text
    assert "no outcomes with and without retrieval" in found.text


def test_one_prompt_is_a_report(tmp_path):
    check(write_report(make_evaluation(["only"], ["all"], n=1), tmp_path / "r.html"), PLOTS[:-1])


def test_sixty_experts_and_categories_are_a_report(tmp_path):
    evaluation = make_evaluation(
        names("vendor/an-expert-of-a-long-name", 60), names("a category of a long name", 60), n=900
    )
    found = check(write_report(evaluation, tmp_path / "r.html"), PLOTS[:-1])
    assert f"the {MOST} largest categories; 20 smaller ones are left out" in found.text
    width, height = png_size((tmp_path / "r-experts.png").read_bytes())
    # room for a figure in each of 60 x 40 cells
    assert width > 60 * 50
    assert height > 40 * 50
    for name in (*evaluation.expert_ids, *evaluation.categories.names):
        assert name in found.texts


def test_arms_of_unknown_usage_are_counted():
    evaluation = make_evaluation(names("e", 3), names("c", 2), n=60)
    first, *others = evaluation.arms
    arms = (dataclasses.replace(first, cost_usd=None), *others)
    found = Page(page(dataclasses.replace(evaluation, arms=arms), {}))
    assert "Against dollars 1 arm is missing" in found.text
    assert "unknown" in found.texts
    assert "Nothing is drawn against time" in found.text


def test_what_nobody_takes_is_not_drawn(tmp_path):
    evaluation = make_evaluation(names("e", 3), names("c", 2), n=60, known=("cost_usd",))
    free = tuple(dataclasses.replace(arm, cost_usd=0.0) for arm in evaluation.arms)
    evaluation = dataclasses.replace(evaluation, arms=free)
    found = check(write_report(evaluation, tmp_path / "r.html"), PLOTS[1:-1])
    assert "against dollars: no arm takes any" in found.text


def test_refusals_have_a_column_where_there_are_any():
    evaluation = make_evaluation(names("e", 3), names("c", 2), n=60)
    *others, last = evaluation.arms
    arms = (*others, dataclasses.replace(last, refused=0.125))
    found = Page(page(dataclasses.replace(evaluation, arms=arms), {}))
    assert "12.5 %" in found.texts
    assert "refused" in found.texts


def test_a_real_evaluation_is_a_report(tmp_path, make_router, make_spec):
    """Two experts of opposite talents, through `evaluate`."""
    specs = [
        make_spec("small", params_b=1.0, usd_per_mtok_out=0.1),
        make_spec("large", watts=50.0, params_b=8.0, usd_per_mtok_out=1.0),
    ]
    router = make_router(specs, [[0.2, 0.9], [0.9, 0.3], [0.5, 0.6]])
    topics = ["code", "maths"] * 20
    right = np.array([[0.0, 1.0] if topic == "code" else [1.0, 0.0] for topic in topics])
    outcomes = Outcomes.of(
        [f"some {topic} {k}" for k, topic in enumerate(topics)],
        ("small", "large"),
        right,
        categories=np.array(topics),
        splits=np.array(["train"] * 20 + ["test"] * 20),
    )
    evaluation = evaluate(router, outcomes, "by hand", policies={"eco": Policy("eco")})
    found = check(write_report(evaluation, tmp_path / "r.html"), PLOTS[:-1])
    assert "Routing beats the best single expert, small: 1.000 against 0.500" in found.text
    assert "coe eco" in found.texts


def test_pictures_of_an_earlier_report_do_not_outlive_it(tmp_path):
    evaluation = make_evaluation(names("e", 2), ["c"], n=30)
    bystander = tmp_path / "r-other.png"
    for path in (bystander, tmp_path / "r-retrieval.png", tmp_path / "r-retrieval.svg"):
        path.write_bytes(b"old")
    paths = write_report(evaluation, tmp_path / "r.html")
    bystander.unlink()
    check(paths, PLOTS[:-1])


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    evaluation = make_evaluation(names("e", 2), ["c"], n=30)
    taken = tmp_path / "report.html"
    taken.mkdir()
    with pytest.raises(ReportError, match=r"report\.html: cannot be written"):
        write_report(evaluation, taken)
    assert [p for p in tmp_path.iterdir() if p.name.endswith(".partial")] == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReportError, match="cannot be written"):
        write_report(evaluation, tmp_path / "file" / "report.html")


def test_an_evaluation_without_arm_coe_is_refused(tmp_path):
    evaluation = make_evaluation(names("e", 2), ["c"], n=30)
    arms = tuple(arm for arm in evaluation.arms if arm.name != "coe")
    with pytest.raises(ReportError, match="no arm 'coe'"):
        write_report(dataclasses.replace(evaluation, arms=arms), tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_an_error_says_what_to_install():
    program = """
import sys
sys.modules["matplotlib"] = None
from pathlib import Path
from coe.errors import CoeError
from coe.services.report import write_report
try:
    write_report(None, Path("/nowhere/report.html"))
except CoeError as error:
    sys.stdout.write(f"{type(error).__name__}: {error}")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("ReportError: "), done.stderr
    assert "pip install 'coe-router[plots]'" in done.stdout


def test_matplotlib_is_imported_where_pictures_are_drawn_and_nowhere_else():
    folder = Path(__file__).resolve().parents[3] / "services"
    texts = {p.name: p.read_text() for p in folder.rglob("*.py")}
    users = {
        name
        for name, text in texts.items()
        if re.search(r"^\s*(?:import|from) matplotlib", text, re.M)
    }
    assert users == {"canvas.py", "fleets.py", "plots.py", "staircase.py"}
    pyplot = re.compile(r"^\s*(?:import|from) .*pyplot", re.M)
    assert not any(pyplot.search(text) for text in texts.values())


@pytest.mark.parametrize(
    ("interval", "expected", "words"),
    [
        ((0.01, 0.03), "above", "beats the best single expert"),
        ((-0.01, 0.03), "noise", "within noise of the best single expert"),
        ((0.0, 0.03), "noise", "within noise of the best single expert"),
        ((-0.03, 0.0), "noise", "within noise of the best single expert"),
        ((-0.03, -0.01), "below", "is below the best single expert"),
    ],
)
def test_only_an_interval_without_0_decides(interval, expected, words):
    evaluation = make_evaluation(names("e", 3), names("c", 2), n=60, lift=interval)
    ours = next(arm for arm in evaluation.arms if arm.name == "coe")
    assert verdict(ours) == expected
    sentence = headline(evaluation)
    assert words in sentence
    assert f"{interval[0]:+.3f} to {interval[1]:+.3f}" in sentence
    assert evaluation.best_single in sentence


def test_remarks_compare_what_is_spent():
    evaluation = make_evaluation(names("e", 3), names("c", 2), n=60)
    arms = tuple(
        dataclasses.replace(arm, cost_usd=2.0 if arm.name == "coe" else 4.0, energy_j=None)
        for arm in evaluation.arms
    )
    found = remarks(dataclasses.replace(evaluation, arms=arms))
    assert "Compared with that expert it spends 50 % of its dollars." in found


def test_remarks_name_the_expert_that_was_better_in_hindsight():
    evaluation = make_evaluation(names("e", 3), names("c", 2), n=60)
    assert not any("afterwards" in sentence for sentence in remarks(evaluation))
    arms = tuple(
        dataclasses.replace(arm, score=0.99) if arm.name == "always e-00" else arm
        for arm in evaluation.arms
    )
    found = remarks(dataclasses.replace(evaluation, arms=arms, best_single="e-01"))
    assert any("e-00 scored 0.990" in sentence for sentence in found)


def test_remarks_say_when_nothing_is_routed():
    evaluation = make_evaluation(names("e", 3), names("c", 2), n=60)
    chosen = np.zeros((2, 3))
    chosen[:, 1] = 1.0
    categories = dataclasses.replace(evaluation.categories, chosen=chosen)
    alone = dataclasses.replace(evaluation, categories=categories)
    assert any("it asks e-01" in sentence for sentence in remarks(alone))
    # whose answer is always delivered need not be the only one who is asked
    arms = tuple(dataclasses.replace(arm, n_asked=1.5) for arm in evaluation.arms)
    assert not any("it asks" in one for one in remarks(dataclasses.replace(alone, arms=arms)))


def test_notes_of_an_evaluation_are_on_its_page():
    evaluation = make_evaluation(names("e", 3), names("c", 2), n=60)
    noted = dataclasses.replace(evaluation, notes=("coe: modes could not be played",))
    assert "coe: modes could not be played." in Page(page(noted, {})).text


def test_kinds_of_arms_follow_from_their_names():
    evaluation = make_evaluation(["coe", "random"], ["c"], n=30)
    kinds = {arm.name: kind_of(arm, evaluation.expert_ids) for arm in evaluation.arms}
    assert kinds["always coe"] == kinds["always random"] == "single"
    assert kinds["coe"] == kinds["coe eco"] == "coe"
    assert kinds["random"] == kinds["two-step"] == "baseline"
    assert kinds["oracle prompt"] == "oracle"


def test_the_oracle_gap_of_a_gate_counts_from_the_better_constant():
    share = np.array([0.0, 1.0])
    curve = GateCurve(share, share, 0.4, 0.6, (0.5, 0.8), (0.3, 0.65))
    assert curve.oracle_gap_closed == pytest.approx(0.25)
    assert dataclasses.replace(curve, chosen=None).oracle_gap_closed is None
    assert dataclasses.replace(curve, oracle=(0.5, 0.6)).oracle_gap_closed is None


def test_the_map_of_experts_keeps_every_value_and_marks_the_choice():
    evaluation = make_evaluation(names("e", 4), names("c", 5), n=200)
    found, grid = evaluation.categories, expert_grid(evaluation)
    assert list(grid.n) == sorted(found.n, reverse=True)
    for i, row in enumerate(grid.rows):
        there = found.names.index(row)
        for k, column in enumerate(grid.columns):
            assert grid.values[i, k] == found.scores[there, evaluation.expert_ids.index(column)]
        asked = evaluation.expert_ids.index(grid.columns[grid.marked[i]])
        assert found.chosen[there, asked] == found.chosen[there].max()


def test_a_category_whose_prompts_were_all_refused_marks_nobody():
    evaluation = make_evaluation(names("e", 3), ["c"], n=30)
    categories = dataclasses.replace(evaluation.categories, chosen=np.zeros((1, 3)))
    assert expert_grid(dataclasses.replace(evaluation, categories=categories)).marked[0] == -1


@pytest.mark.parametrize("n", [1, 5, 60])
def test_rows_of_the_confusion_stay_whole_and_their_own_is_marked(n):
    found = make_evaluation(names("e", 2), names("c", n), n=400).categories
    grid = confusion_grid(found)
    np.testing.assert_allclose(grid.values.sum(axis=1), 1.0)
    assert grid.columns[-1] == "general"
    assert (REST in grid.columns) == (n > MOST)
    assert grid.n_hidden == max(n - MOST, 0)
    assert [grid.columns[k] for k in grid.marked] == list(grid.rows)


def test_categories_of_other_names_are_not_marked():
    found = make_evaluation(names("e", 2), names("c", 4), n=100).categories
    found = dataclasses.replace(found, predicted=("a", "b", "d", "f", "general"))
    assert (confusion_grid(found).marked == -1).all()


def test_shortened_names_are_short_and_different():
    long = [f"vendor/a-very-long-common-beginning-{k}-and-a-common-end" for k in range(60)]
    found = shortened(long, 24)
    assert len(set(found)) == 60
    assert max(map(len, found)) <= 24 + len(" (60)")
    assert all("…" in name for name in found)


def test_names_that_differ_only_where_nothing_is_shown_are_numbered():
    assert shortened(["a" * 40 + "b" + "a" * 40, "a" * 40 + "c" + "a" * 40], 9) == [
        "aaaa…aaaa",
        "aaaa…aaaa (2)",
    ]
    assert shortened(["x (2)", "x", "x\n"], 9) == ["x (2)", "x", "x (3)"]


def test_short_names_stay():
    assert shortened(["a", "bb", "é中"], 9) == ["a", "bb", "é中"]
    assert clean("") == clean(" \n ") == "(no name)"


def test_names_in_a_picture_hide_nothing():
    rng = np.random.default_rng(3)
    room, size = Box(0.0, 0.0, 300.0, 200.0), (60.0, 9.0)
    points = [(float(x), float(y)) for x, y in rng.uniform((0, 0), (300, 200), (25, 2))]
    names = Names(room)
    names.keep_dots(points)
    names.keep_line([(0.0, 0.0), (300.0, 200.0)])
    places = [names.of_level(150.0, size), *(names.of_dot(point, size) for point in points)]
    found = [place for place in places if place is not None]
    assert len(found) > 15
    assert all(place.within(room) for place in found)
    assert not any(one.overlaps(other) for one, other in combinations(found, 2))
    assert not any(place.overlaps(Box.about(*p, 3.9)) for place in found for p in points)
    assert not any(place.left <= 1.5 * y <= place.right for place in found for y in place[1::2])


def test_where_there_is_no_room_there_is_no_name():
    names = Names(Box(0.0, 0.0, 20.0, 20.0))
    assert names.of_dot((10.0, 10.0), (30.0, 9.0), important=True) is None
    assert names.of_level(10.0, (30.0, 9.0)) is None
    assert names.of_line([(10.0, 10.0)], (30.0, 9.0)) is None
