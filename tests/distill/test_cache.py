"""The teacher cache: what it keeps, what it refuses, and that training reads the same from it."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastllm.cli.main import main
from fastllm.data.tokens import TokenPairs, padded, write_pairs
from fastllm.distill import cache
from fastllm.distill.cache import TeacherCache, bucketed, write_cache
from fastllm.distill.losses import DIVERGENCES, total_variation
from fastllm.distill.teacher import Teacher
from fastllm.errors import DataError, SettingsError, TrainingError
from fastllm.targets.hub import HubTarget

LENGTH = 7


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> TokenPairs:
    """Eleven articles of random ids, with texts of different lengths."""
    generator = torch.Generator().manual_seed(3)
    rows = []
    for index in range(11):
        ids = torch.randint(5, 300, (20 + index,), generator=generator).tolist()
        rows.append((f"a{index}", [*ids[: 12 + index], 1], [*ids[-2 - index % 8 :], 1]))
    folder = tmp_path_factory.mktemp("texts")
    write_pairs(folder, rows, {})
    return TokenPairs(folder)


def _quiet(line: str) -> None:
    pass


def _given(
    target: HubTarget, texts: TokenPairs, indices: list[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The target's logits, made-up ones of a drafter, and which places are real."""
    rows = [texts.target(index)[:LENGTH] for index in indices]
    prefix = padded([[target.start_id, *row[:-1]] for row in rows], 0)
    p = Teacher(target, texts).logits(indices, prefix)
    generator = torch.Generator().manual_seed(1)
    q = p + torch.randn(p.shape, generator=generator)
    return p, q, padded(rows, -100) != -100


def _write(
    target: HubTarget, texts: TokenPairs, folder: Path, top_k: int, **more: bool
) -> TeacherCache:
    return write_cache(
        target, texts, folder, length=LENGTH, top_k=top_k, say=_quiet, **more
    )  # fmt: skip


@pytest.mark.parametrize("name", DIVERGENCES)
def test_with_every_token_kept_a_loss_is_what_it_is_without_a_cache(
    name: str, tiny_target: HubTarget, texts: TokenPairs, tmp_path: Path
) -> None:
    kept = _write(tiny_target, texts, tmp_path, 10**6, precise=True)
    indices = [10, 0, 3, 7]
    p, q, real = _given(tiny_target, texts, indices)
    q.requires_grad_()
    p_kept, q_kept, likeliest = kept.pair(indices, q)
    assert p_kept.shape == p.shape
    assert torch.equal(likeliest[real], p.argmax(-1)[real])
    values = [DIVERGENCES[name](p, q)[real], DIVERGENCES[name](p_kept, q_kept)[real]]
    gradients = [torch.autograd.grad(value.sum(), q)[0] for value in values]
    assert torch.allclose(*values, atol=1e-5)
    assert torch.allclose(*gradients, atol=1e-5)


def test_divergences_of_the_bucketed_rise_with_k_to_those_of_all(
    tiny_target: HubTarget, texts: TokenPairs, tmp_path: Path
) -> None:
    indices = list(range(11))
    p, q, real = _given(tiny_target, texts, indices)
    for name in ("fkl", "rkl", "jsd", "tvd", "lk_nla"):
        below = torch.zeros(int(real.sum()))
        for k in (1, 4, 32, 200):
            kept = _write(tiny_target, texts, tmp_path / str(k), k, precise=True)
            p_kept, q_kept, _ = kept.pair(indices, q)
            assert p_kept.shape[-1] == q_kept.shape[-1] == k + 1
            assert torch.allclose(p_kept[real].exp().sum(-1), torch.ones(()), atol=1e-5)
            value = DIVERGENCES[name](p_kept, q_kept)[real]
            assert (value >= below - 1e-6).all(), (name, k)
            below = value
            if name == "tvd":
                rest = torch.minimum(p_kept.softmax(-1), q_kept.softmax(-1))[real][:, -1]
                assert (total_variation(p, q)[real] - value <= rest + 1e-6).all()
        assert (below <= DIVERGENCES[name](p, q)[real] + 1e-6).all(), name


def test_bucketing_by_hand() -> None:
    chances = torch.tensor([0.1, 0.2, 0.3, 0.4])
    found = bucketed(chances.log()[None, None] + 2.0, torch.tensor([[[3, 0]]])).softmax(-1)
    assert found.flatten().tolist() == pytest.approx([0.4, 0.1, 0.5])
    logits = torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[[0, 4], [2, 1]]])
    assert torch.autograd.gradcheck(lambda x: bucketed(x, ids), logits)


def test_half_precision_costs_little_and_the_size_is_told_beforehand(
    tiny_target: HubTarget, texts: TokenPairs, tmp_path: Path
) -> None:
    lines: list[str] = []
    kept = write_cache(tiny_target, texts, tmp_path, length=LENGTH, top_k=8, say=lines.append)
    places = sum(min(LENGTH, int(length)) for length in texts.lengths())
    assert kept.places == places
    assert kept.nbytes == places * (8 * 4 + 4)
    assert f"{places} places of 36 bytes" in lines[0]
    p, q, real = _given(tiny_target, texts, [2, 9])
    rough, _, _ = kept.pair([2, 9], q)
    exact, _, _ = _write(tiny_target, texts, tmp_path / "exact", 8, precise=True).pair([2, 9], q)
    assert torch.allclose(rough[real], exact[real], rtol=1e-3)


def test_interrupted_writing_goes_on_and_writes_the_same(
    tiny_target: HubTarget, texts: TokenPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "TEXTS_A_SHARD", 4)
    _write(tiny_target, texts, tmp_path / "whole", 8)

    lines: list[str] = []

    def stop_at_second(line: str) -> None:
        lines.append(line)
        if "2/3 shards" in line:
            raise KeyboardInterrupt

    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        write_cache(tiny_target, texts, broken, length=LENGTH, top_k=8, say=stop_at_second)
    assert "interrupted. 2 of 3 shards" in lines[-1]
    with pytest.raises(DataError, match="not a whole teacher cache"):
        TeacherCache(broken)
    for text in ("[]", "null", '{"shards": []}', '{"shards": 3, "lengths": []}'):
        (broken / "meta.json").write_text(text)
        with pytest.raises(DataError, match="not a whole teacher cache"):
            TeacherCache(broken)
    (broken / "meta.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in broken.glob("shard-*.npy")}
    assert len(before) == 2
    resumed = _write(tiny_target, texts, broken, 8)
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in broken.glob("*.npy")}.items()
    for path in (tmp_path / "whole").glob("shard-*.npy"):
        assert path.read_bytes() == (broken / path.name).read_bytes()
    # Whatever shard a text lies in, it is found.
    p, q, real = _given(tiny_target, texts, [0, 3, 4, 10])
    p_kept, _, likeliest = resumed.pair([0, 3, 4, 10], q)
    assert torch.equal(likeliest[real], p.argmax(-1)[real])
    top = p.log_softmax(-1).max(-1).values
    assert torch.allclose(p_kept[..., 0][real], top[real], rtol=1e-3)


def test_a_cache_of_something_else_is_refused(
    tiny_target: HubTarget, texts: TokenPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tiny_target, texts, tmp_path / "cache", 8)
    with pytest.raises(DataError, match="top_k: 8, now 9"):
        _write(tiny_target, texts, tmp_path / "cache", 9)
    with pytest.raises(DataError, match="length: 7, now 6"):
        write_cache(tiny_target, texts, tmp_path / "cache", length=6, top_k=8, say=_quiet)
    for name, value in (("prefix", "news: "), ("source_length", 11)):
        with monkeypatch.context() as patch:
            patch.setattr(tiny_target, name, value)
            with pytest.raises(DataError, match=f"{name}: "):
                _write(tiny_target, texts, tmp_path / "cache", 8)
    weight = tiny_target.model.lm_head.weight
    before = weight.detach().clone()
    try:
        weight.data[0, 0] += 1.0
        with pytest.raises(DataError, match="weights: "):
            _write(tiny_target, texts, tmp_path / "cache", 8)
    finally:
        weight.data.copy_(before)
    write_pairs(tmp_path / "other", [("a", [5, 1], [6, 7, 1])], {})
    with pytest.raises(DataError, match="texts: "):
        _write(tiny_target, TokenPairs(tmp_path / "other"), tmp_path / "cache", 8)
    kept = TeacherCache(tmp_path / "cache")
    with pytest.raises(SettingsError, match="has 3 logits"):
        kept.pair([0], torch.zeros(1, 7, 3))
    with pytest.raises(SettingsError, match="teacher_top_k=0"):
        _write(tiny_target, texts, tmp_path / "cache", 0)


def test_a_disk_without_room_is_told_before_anything_is_written(
    tiny_target: HubTarget, texts: TokenPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 4, 5))
    with pytest.raises(TrainingError, match="make room"):
        _write(tiny_target, texts, tmp_path / "cache", 8)
    assert not (tmp_path / "cache").exists()


def test_padding_is_no_number_that_could_spoil_a_mean(
    tiny_target: HubTarget, texts: TokenPairs, tmp_path: Path
) -> None:
    kept = _write(tiny_target, texts, tmp_path, 4)
    _, q, real = _given(tiny_target, texts, [0, 7])
    assert not real.all()
    for divergence in DIVERGENCES.values():
        logits = q.clone().requires_grad_()
        p_kept, q_kept, _ = kept.pair([0, 7], logits)
        (divergence(p_kept, q_kept) * real).sum().backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert (logits.grad[~real] == 0).all()
    assert np.isfinite(p_kept.numpy()).all()


def test_train_learns_from_a_cache_as_from_the_target(
    data: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pseudo = tmp_path / "pseudo"
    common = ["--target", str(target), "--device", "cpu", "--length", "12"]
    assert main(["pseudo", "--data", str(data), "--out", str(pseudo), *common]) == 0
    train = [
        *("train", "--drafter", "lstm", "--exp_name", "x", "--method", "f_distill", *common),
        *("--pseudo_dataset_path", str(pseudo), "--updates", "6", "--batch", "4"),
        *("--log_every", "1", "--validation", "none"),
    ]  # fmt: skip
    cached = ["--teacher_cache", str(tmp_path / "cache"), "--teacher_top_k", "99999"]
    assert main([*train, "--run", str(tmp_path / "fly")]) == 0
    capsys.readouterr()
    assert main([*train, "--run", str(tmp_path / "disk"), *cached]) == 0
    shown = capsys.readouterr().out
    assert shown.index("MB in") < shown.index("1/6"), "the size is told first"
    logs = [
        [json.loads(line) for line in (tmp_path / name / "training.jsonl").read_text().splitlines()]
        for name in ("fly", "disk")
    ]
    for fly, disk in zip(*logs, strict=True):
        assert disk["loss"] == pytest.approx(fly["loss"], rel=2e-3)
        assert disk["tokens"] == fly["tokens"]
    assert not math.isclose(logs[0][0]["loss"], logs[0][-1]["loss"], rel_tol=1e-4), "it learns"
    card = json.loads((tmp_path / "disk" / "checkpoint" / "card.json").read_text())
    size = TeacherCache(tmp_path / "cache" / "written").meta["vocabulary_size"]
    assert card["teacher_cache"]["top_k"] == size
    assert card["teacher_cache"]["places"] > 0
    again = [*train, "--run", str(tmp_path / "again"), *cached]
    assert main([*again, "--kd_temp", "2"]) == 2
    assert "needs every logit" in capsys.readouterr().err
    assert main([*again, "--method", "on_policy_gkd"]) == 2
    assert "asks it about none" in capsys.readouterr().err
    assert main([*again, "--run", str(tmp_path / "disk"), "--teacher_top_k", "9"]) == 2
    assert f"top_k: {size}, now 9" in capsys.readouterr().err
