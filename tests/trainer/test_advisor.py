"""The command that fits an advisor's head: from labelled headlines to a checkpoint."""

import gzip
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from configs.load import load
from feeds.errors import DataError
from models.advisor.advice import BUY_SIGNAL, HOLD, SELL_SIGNAL, Headline
from models.advisor.head import Head
from models.advisor.ngrams import NgramConfig
from models.advisor.weights import load as load_head
from models.checkpoint import read_manifest
from trainer.__main__ import main
from trainer.advisor_config import AdvisorTrainConfig
from trainer.advisor_data import grouped, load_labelled, load_sentences, parted
from trainer.advisor_figures import accuracy, calibration_error, macro_f1, precision_at_share
from trainer.advisor_fit import Design, Fitted, calibration, chances, fit, log_loss, ngram_matrix, threshold

NAMES = [
    f"{first}{last}" for first in ("Ac", "Bo", "Cu", "De", "Fi", "Go", "Hu") for last in ("me", "lt", "rex", "wyn")
]
SAID = {
    "1": ("shares soar on record profit", "upgraded after strong sales", "jumps as margins improve"),
    "0": ("shares plunge on heavy loss", "downgraded after weak sales", "sinks as margins shrink"),
    "2": ("names a new auditor", "opens an office abroad", "publishes its annual agenda"),
}


def rows() -> list[tuple[str, str]]:
    places = ("today", "in Europe", "this quarter", "overnight")
    return [
        (f"{name} {words} {places[i % 4]}", label)
        for i, name in enumerate(NAMES)
        for label, all_words in SAID.items()
        for words in all_words
    ]


def data_file(folder: Path, lines: list[tuple[str, str]] | None = None) -> Path:
    path = folder / "headlines.csv"
    body = "\n".join(f'"{text}",{label}' for text, label in (rows() if lines is None else lines))
    path.write_text(f"text,label\n{body}\n")
    return path


def config_file(folder: Path, data: Path, more: str = "") -> Path:
    path = folder / "advisor.toml"
    path.write_text(
        f'name = "tiny"\ndata = "{data}"\nout = "{folder / "made"}"\nfolds = 2\nstrengths = 2\nalike = 1.0\n'
        f'licence = "ours"\n{more}\n[ngrams]\nbuckets_log2 = 12\n'
    )
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("advisor")
    assert main(["advisor", str(config_file(folder, data_file(folder))), "--quiet"]) == 0
    return folder / "made"


def test_what_was_learned_is_told_of_new_names(made: Path) -> None:
    told = ["Zenith shares soar on record profit", "Zenith downgraded after weak sales", "Zenith names a new auditor"]
    answers = Head(made, threshold=0.4).advise([Headline(text=text) for text in told])
    assert [advice.action for advice in answers] == [BUY_SIGNAL, SELL_SIGNAL, HOLD]


def test_the_checkpoint_tells_what_it_saw_and_how_it_did_beside_saying_nothing(made: Path) -> None:
    manifest = read_manifest(made)
    assert manifest.kind == "advisor"
    assert manifest.training.licence == "ours"
    assert manifest.training.start is None  # the rows bear no date: every window overlaps
    assert manifest.training.trials == 2
    assert len(manifest.training.data_sha256) == 64
    figure = manifest.metrics["test_macro_f1"]
    assert figure["value"] > 0.9 > figure["baselines"]["always_hold"]
    assert set(figure["baselines"]) == {"always_hold", "lexicon"}
    low, high = figure["interval_95"]
    assert low <= figure["value"] <= high


def test_the_head_at_work_says_what_the_trainer_computed(made: Path) -> None:
    weights, _ = load_head(made, "head")
    rest = load_labelled(data_file(made.parent), 1.0)
    design = Design(ngram_matrix(rest.texts, NgramConfig(buckets_log2=12)))
    logits = design.ngrams @ weights._ngrams.astype(np.float64) + weights._bias
    for text, want in zip(rest.texts[:20], chances(logits)[:20], strict=True):
        assert weights.chances(text) == pytest.approx(tuple(want), abs=1e-5)


def test_the_same_run_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    assert main(["advisor", str(config_file(tmp_path, data_file(tmp_path))), "--quiet"]) == 0
    for name in ("manifest.json", "weights.safetensors"):
        assert (tmp_path / "made" / name).read_bytes() == (made / name).read_bytes()


def test_rows_of_the_test_part_change_no_weight(made: Path, tmp_path: Path) -> None:
    lines = rows()
    labelled = load_labelled(data_file(tmp_path, lines), 1.0)
    _, test = parted(labelled.groups, 0.2, 2, 0)
    turned = [(text, {"0": "1", "1": "0", "2": "2"}[label]) if i in set(test.tolist()) else (text, label)
              for i, (text, label) in enumerate(lines)]  # fmt: skip
    assert main(["advisor", str(config_file(tmp_path, data_file(tmp_path, turned))), "--quiet"]) == 0
    assert read_manifest(tmp_path / "made").weights_sha256 == read_manifest(made).weights_sha256
    assert read_manifest(tmp_path / "made").metrics["test_accuracy"] != read_manifest(made).metrics["test_accuracy"]


def test_a_shipped_checkpoint_is_written_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(tmp_path, data_file(tmp_path), f'shipped = "{tmp_path / "home"}"')
    assert main(["advisor", str(config), "--quiet", "--update"]) == 0
    assert main(["advisor", str(config), "--quiet"]) == 0
    assert f"identical to {tmp_path / 'home'}" in capsys.readouterr().out.splitlines()[-1]

    data_file(tmp_path, [(text, {"0": "1", "1": "0", "2": "2"}[label]) for text, label in rows()])
    assert main(["advisor", str(config), "--quiet"]) == 1
    assert "trained on other headlines than" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["missing", "cut", "occupied", "no folder for the result"])
def test_a_shipped_checkpoint_that_is_of_no_use_is_refused_before_the_work(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    home = tmp_path / "home"
    if wrong != "missing":
        shutil.copytree(made, home)
    if wrong == "cut":
        (home / "weights.safetensors").write_bytes((made / "weights.safetensors").read_bytes()[:-9])
    if wrong == "occupied":
        (home / "notes.txt").write_text("mine")
    if wrong == "no folder for the result":
        (tmp_path / "made").write_text("a file")
    config = config_file(tmp_path, tmp_path / "absent.csv", f'shipped = "{home}"')  # what is missing is not reached

    assert main(["advisor", str(config), "--quiet", *(["--update"] if wrong == "occupied" else [])]) == 2

    said = capsys.readouterr().err
    want = {
        "missing": f"want a checkpoint to compare with, {home} does not exist: --update makes it",
        "cut": "weights.safetensors is truncated",
        "occupied": f"{home} is no checkpoint, and is not replaced by one",
    }
    assert want.get(wrong, f"{tmp_path / 'made'} is no checkpoint") in said
    assert "absent.csv" not in said


@pytest.mark.parametrize(
    ("more", "reading", "end"),
    [
        ("", "", None),
        ('learnt_until = "2022-09-30"', "", datetime(2022, 9, 30, 23, 59, 59, 999_999)),
        ('learnt_until = "2022-09-30"', 'learnt_until = "2024-11-30"', datetime(2022, 9, 30, 23, 59, 59, 999_999)),
        ('kind = "gpt"\nlearnt_until = "2022-09-30"', "", None),
        (
            'kind = "gpt"\nlearnt_until = "2022-09-30"',
            'learnt_until = "2024-11-30T12:00"',
            datetime(2024, 11, 30, 12),
        ),
        (
            'kind = "gpt"\nlearnt_until = "2025-01-31"',
            'learnt_until = "2024-11-30"',
            datetime(2025, 1, 31, 23, 59, 59, 999_999),
        ),
    ],
)
def test_the_last_day_known_is_the_later_one_of_rows_and_language_model(
    tmp_path: Path, more: str, reading: str, end: datetime | None
) -> None:
    path = config_file(tmp_path, tmp_path / "absent.csv", more)
    path.write_text(f"{path.read_text()}[reading]\n{reading}\n")
    assert load(AdvisorTrainConfig, path).end == end


def test_what_was_learnt_until_then_is_in_sample_and_no_later_day(made: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, data_file(tmp_path), 'learnt_until = "2022-09-30"\ntried_before = 6')
    assert main(["advisor", str(config), "--quiet"]) == 0
    dated, undated = read_manifest(tmp_path / "made"), read_manifest(made)
    assert dated.weights_sha256 == undated.weights_sha256
    assert dated.training.trials == undated.training.trials + 6
    assert dated.overlap(datetime(1999, 1, 1), datetime(1999, 1, 2))
    assert dated.overlap(datetime(2022, 9, 30, 12), datetime(2023, 1, 1))
    assert not dated.overlap(datetime(2022, 10, 1), datetime(2023, 1, 1))
    assert undated.overlap(datetime(2090, 1, 1), datetime(2090, 1, 2))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\nup,7\n", "wanted a label 0, 1 or 2"),
        ("headline,label\nup,1\n", "wanted the columns text and label"),
        ("text,label\nup,1\n", "wanted rows of all three labels"),
        ("", "wanted the columns text and label"),
    ],
)
def test_data_that_cannot_be_used_end_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    assert main(["advisor", str(config_file(tmp_path, path))]) == 2
    assert said in capsys.readouterr().err


def test_a_missing_file_a_wrong_flag_and_no_argument_end_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(config_file(tmp_path, tmp_path / "absent.csv"))
    assert main(["advisor", config]) == 2
    assert "wanted labelled headlines" in capsys.readouterr().err
    assert main(["advisor", config, "--folds", "1"]) == 2
    assert main(["advisor", config, "--learnt-until", "September"]) == 2
    assert "learnt_until must be a date" in capsys.readouterr().err
    assert main(["advisor", config, "--update"]) == 2
    for wrong in ([config, "--no-such"], []):
        with pytest.raises(SystemExit) as left:
            main(["advisor", *wrong])
        assert left.value.code == 2


def test_help_lists_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["advisor", "--help"])
    assert left.value.code == 0
    assert "--reading.layers" in capsys.readouterr().out


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\n" * 99)[:-9])
    with pytest.raises(DataError, match="wanted labelled headlines"):
        load_labelled(path, 0.6)


def test_sentences_are_read_by_their_word(tmp_path: Path) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("Profit rose@positive\nIt met @ noon@neutral\nSales fell .@negative\n")
    found = load_sentences(path, 0.6)
    assert found.labels.tolist() == [2, 1, 0]
    assert found.texts[1] == "It met @ noon"
    path.write_text("Profit rose\n")
    with pytest.raises(DataError, match=r"sentences.txt:1: wanted sentence@"):
        load_sentences(path, 0.6)


def test_near_copies_are_one_group_and_others_are_not() -> None:
    texts = [
        "Acme profit rises on strong demand for anvils in Europe",
        "Acme profit rises on strong demand for anvils in Europe today",
        "Oil slides as traders weigh supply",
        "Oil slides as traders weigh supply",
    ]
    one, again, other, copy = grouped(texts, 0.6)
    assert one == again
    assert other == copy
    assert one != other


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=30, max_size=200), st.integers(0, 1000))
def test_no_group_stands_on_two_sides(groups: list[int], seed: int) -> None:
    names = np.array(groups)
    fold, test = parted(names, 0.2, 3, seed)
    for name in np.unique(names):
        assert len(np.unique(fold[names == name])) == 1
    assert np.array_equal(np.flatnonzero(fold == -1), test)


def test_a_fit_finds_where_the_slope_is_zero() -> None:
    texts = [text for text, _ in rows()][:90]
    labels = np.array([{"0": 0, "2": 1, "1": 2}[label] for _, label in rows()][:90])
    design = Design(ngram_matrix(texts, NgramConfig(buckets_log2=9)), np.random.default_rng(0).normal(size=(90, 4)))
    head = fit(design, labels, 0.5, share=0.1, steps=2_000)
    seen = np.bincount(design.ngrams.indices, minlength=512)
    rarity = np.where(seen, np.log(91.0 / (1.0 + seen)) + 1.0, 1.0)
    error = chances(head.logits(design)) - np.eye(3)[labels]
    slope = (design.ngrams.T @ error) * rarity[:, None] + head.ngrams / rarity[:, None] / 0.5
    assert np.abs(slope[seen > 0]).max() < 2e-2
    assert np.abs(error.sum(axis=0)).max() < 2e-2
    assert head.dense is not None
    dense = (design.dense - head.mean) / head.scale
    assert np.abs(dense.T @ error + head.dense / 0.5).max() < 2e-2


@pytest.mark.parametrize("offsets", [False, True])
def test_a_temperature_makes_overconfident_logits_right(offsets: bool) -> None:
    chance = np.random.default_rng(0)
    true = chance.normal(size=(4_000, 3))
    labels = np.array([chance.choice(3, p=p) for p in chances(true)])
    by = calibration(3.0 * true, labels, offsets=offsets)
    assert by.temperature == pytest.approx(3.0, rel=0.1)
    assert by.offsets == pytest.approx(np.zeros(3), abs=0.15)
    assert log_loss(by.of(3.0 * true), labels) < log_loss(3.0 * true, labels)


def test_offsets_give_a_class_back_what_was_taken_from_it() -> None:
    chance = np.random.default_rng(0)
    true = chance.normal(size=(4_000, 3))
    labels = np.array([chance.choice(3, p=p) for p in chances(true)])
    shifted = 2.0 * (true - np.array([0.7, 0.0, -0.4]))
    by = calibration(shifted, labels, offsets=True)
    assert by.offsets == pytest.approx([0.7, 0.0, -0.4], abs=0.15)
    assert log_loss(by.of(shifted), labels) < log_loss(calibration(shifted, labels, offsets=False).of(shifted), labels)
    head = Fitted(ngrams=np.zeros((4, 3)), bias=np.zeros(3), dense=np.eye(3), mean=np.zeros(3), scale=np.ones(3))
    design = Design(csr_matrix((4_000, 4)), shifted)
    assert head.calibrated(by).logits(design) == pytest.approx(by.of(shifted))


def test_the_threshold_is_the_lowest_that_keeps_the_precision() -> None:
    up = np.array([0.99, 0.9, 0.8, 0.7, 0.6])
    probabilities = np.column_stack([np.zeros(5), 1 - up, up])
    labels = np.array([2, 2, 2, 1, 1])
    assert threshold(probabilities, labels, 0.9, 0.02) == pytest.approx(0.8)
    assert threshold(probabilities, labels, 0.75, 0.02) == pytest.approx(0.7)
    assert threshold(probabilities, np.ones(5, np.int64), 0.9, 0.02) == 1.0


def test_figures_by_hand() -> None:
    probabilities = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6], [0.5, 0.4, 0.1]])
    labels = np.array([2, 0, 1, 1, 0])
    assert accuracy(probabilities, labels) == 0.8
    assert macro_f1(probabilities, labels) == pytest.approx((1.0 + 2 / 3 + 2 / 3) / 3)
    assert precision_at_share(probabilities, labels) == 1.0
    assert calibration_error(np.tile([0.0, 1.0, 0.0], (5, 1)), labels) == pytest.approx(0.6)
