"""What cannot be loaded is refused: what was found, what is needed, what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration

from fastllm import checkpoints
from fastllm.checkpoints import SHIPPED, load_drafter, load_target, read_card, shipped_drafters
from fastllm.drafters import drafter_class
from fastllm.drafters.ngram import Counts, NgramDrafter
from fastllm.errors import CheckpointError, SettingsError
from fastllm.pretrain.copying_start import t5_config
from fastllm.vocabulary import Vocabulary

Harm = Callable[[Path], object]


def cut_short(name: str) -> Harm:
    def harm(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return harm


def without(*names: str) -> Harm:
    return lambda folder: [(folder / name).unlink() for name in names]


def holding(name: str, text: str) -> Harm:
    return lambda folder: (folder / name).write_text(text)


def saying(**entries: object) -> Harm:
    """Other entries in the configuration."""

    def harm(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return harm


def silent_on(*names: str) -> Harm:
    """Entries of the configuration taken out."""

    def harm(folder: Path) -> None:
        path = folder / "config.json"
        tree = json.loads(path.read_text())
        path.write_text(json.dumps({key: tree[key] for key in tree if key not in names}))

    return harm


def generating(**entries: object) -> Harm:
    """Other entries in the generation configuration."""

    def harm(folder: Path) -> None:
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return harm


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("weights")


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def in_pickles(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    torch.save({}, folder / "checkpoint.pt")


def both(*harms: Harm) -> Harm:
    return lambda folder: [harm(folder) for harm in harms]


SHARD = "model-00001-of-00005.safetensors"
NO_START = both(saying(decoder_start_token_id=None), without("generation_config.json"))
NO_END = both(saying(eos_token_id=None), without("generation_config.json"))

TARGETS: dict[str, tuple[Harm, str]] = {
    "no folder": (shutil.rmtree, r"target does not exist\. It cannot be loaded as a target"),
    "a file": (a_file, r"target is a file, not a folder\. It cannot be loaded as a target"),
    "empty": (emptied, r"has no config\.json: it holds nothing\. It cannot be loaded as a target"),
    "no configuration": (without("config.json"), r"has no config\.json: it holds generation"),
    "configuration cut short": (cut_short("config.json"), r"is not JSON \(.*damaged\. Copy"),
    "no object": (holding("config.json", "[1]"), "needs a JSON object, found list. Copy"),
    "of no library": (silent_on("model_type"), "names no model_type"),
    "of another kind": (
        saying(model_type="gpt2", is_encoder_decoder=False),
        "is a gpt2: a target must be an encoder-decoder, such as google/flan-t5-small",
    ),
    "of an unknown kind": (saying(model_type="t9"), "cannot be loaded as an encoder-decoder"),
    "a drafter": (saying(family="lstm"), r"holds a drafter \(family lstm\), not a target"),
    "file of weights missing": (
        without(SHARD),
        rf"lacks 1 of the 5 files of weights that model\.safetensors\.index\.json names: {SHARD}",
    ),
    "file of weights cut short": (cut_short(SHARD), rf"{SHARD} \([\d,]+ bytes\) is cut short"),
    "pointer of Git LFS": (
        holding(SHARD, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a pointer of Git LFS, not the weights: run `git lfs pull`",
    ),
    "file of weights twice": (
        lambda folder: shutil.copy(folder / "model-00002-of-00005.safetensors", folder / SHARD),
        r"lacks \d+ of the weights that its config\.json asks for, such as .*Copy",
    ),
    "index missing": (
        without("model.safetensors.index.json"),
        r"has no model\.safetensors or model\.safetensors\.index\.json, so no weights",
    ),
    "index cut short": (cut_short("model.safetensors.index.json"), r"index\.json is not JSON"),
    "index of nothing": (holding("model.safetensors.index.json", "{}"), "lists no files"),
    "another format": (in_pickles, r"so no weights that can be read: it holds checkpoint\.pt"),
    "of another width": (saying(d_ff=24), r"another shape than its config\.json .* \(24, 16\)"),
    "of more layers": (saying(num_layers=3), r"lacks 16 of the weights"),
    "no tokenizer": (
        without("tokenizer.json", "tokenizer_config.json"),
        r"has \d+ tokens, the model \d+: it is missing, or another model's. Save the model's own",
    ),
    "tokenizer cut short": (cut_short("tokenizer.json"), "its tokenizer cannot be read .* Save"),
    "generation cut short": (
        cut_short("generation_config.json"),
        r"generation_config\.json is not JSON",
    ),
    "no start of the vocabulary": (
        generating(decoder_start_token_id=10**9),
        "decoder_start_token_id=1000000000 .* is none of its .* tokens: the file is damaged",
    ),
    "start below 0": (generating(decoder_start_token_id=-1), "=-1 .* is none of its .* tokens"),
    "forced out of the vocabulary": (generating(forced_bos_token_id=10**9), "is none of its"),
    "end of no number": (generating(eos_token_id=["a"]), "eos_token_id='a' .* no whole number"),
    "end of nothing": (generating(eos_token_id=[None]), "eos_token_id=None .* no whole number"),
    "padding of NaN": (generating(pad_token_id=float("nan")), "pad_token_id=nan .* no whole"),
    "rule in words": (generating(no_repeat_ngram_size="3"), "no_repeat_ngram_size='3' .* no whole"),
    "least in words": (generating(min_length="9"), "min_length='9' .* no whole number"),
    "least in a list": (generating(min_new_tokens=[9]), r"min_new_tokens=\[9\] .* no whole number"),
    "own section a number": (saying(fastllm=3), '"fastllm" needs an object, .* found 3'),
    "own prefix a number": (saying(fastllm={"prefix": 3}), '"prefix" as text'),
    "own length in words": (saying(fastllm={"source_length": "a"}), '"source_length" as a whole'),
    "no start": (NO_START, "names its decoder_start_token_id. Set it"),
    "no end": (NO_END, "names its eos_token_id. Set it"),
}


@pytest.fixture(scope="module")
def whole_target(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny target in several files."""
    folder = tmp_path_factory.mktemp("whole") / "target"
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(t5_config(len(vocabulary.tokenizer), 16, 2, 1, 1, 16))
    model.save_pretrained(folder, max_shard_size="6KB")
    vocabulary.tokenizer.save_pretrained(folder)
    assert (folder / SHARD).is_file()
    return folder


def harmed(whole: Path, place: Path, harm: Harm) -> Path:
    folder = Path(shutil.copytree(whole, place / whole.name))
    harm(folder)
    return folder


@pytest.mark.parametrize("fault", TARGETS)
def test_a_wrong_target_is_refused(fault: str, whole_target: Path, tmp_path: Path) -> None:
    harm, words = TARGETS[fault]
    folder = harmed(whole_target, tmp_path, harm)
    with pytest.raises(CheckpointError, match=words):
        load_target(folder, device="cpu")


def test_the_unharmed_target_is_loaded(whole_target: Path) -> None:
    assert load_target(whole_target, device="cpu").name == "target"


def test_a_tokenizer_of_another_model_is_refused(whole_target: Path, tmp_path: Path) -> None:
    folder = harmed(whole_target, tmp_path, without("tokenizer.json"))
    shutil.copy(SHIPPED / "target" / "tokenizer.json", folder)
    with pytest.raises(CheckpointError, match=r"has 8192 tokens, the model \d+: it is missing, or"):
        load_target(folder, device="cpu")


NATIVE: dict[str, tuple[Harm, str]] = {
    "no folder": (shutil.rmtree, r"does not exist\. Give a drafter's folder, or one of lookup"),
    "a file": (a_file, r"is a file, not a folder\. Give a drafter's folder"),
    "empty": (emptied, r"has no config\.json: it holds nothing\. Give a drafter's folder"),
    "configuration cut short": (cut_short("config.json"), r"is not JSON \(.*damaged\. Copy"),
    "no object": (holding("config.json", "7"), "needs a JSON object, found int"),
    "no family": (silent_on("family", "fastllm", "model_type"), "of the family None; Fast"),
    "unknown family": (
        saying(family="rnn"),
        "of the family 'rnn'; FastLLM has the families lookup, .*Shipped drafters: ",
    ),
    "of another library": (
        saying(family=None, fastllm=None, model_type="bart"),
        "says it is a bart of transformers; FastLLM has the families",
    ),
}
"""Faults of every family's folder."""

WEIGHTS: dict[str, tuple[Harm, str]] = {
    "weights missing": (without("model.safetensors"), r"has no model\.safetensors.*Copy"),
    "weights cut short": (cut_short("model.safetensors"), r"bytes\) is cut short, damaged or no"),
    "another format": (in_pickles, r"so no weights that can be read: it holds checkpoint\.pt"),
}
SETTINGS: dict[str, tuple[Harm, str]] = {
    "a name of NaN": (saying(name=float("nan")), "config.json: name is nan: text is needed"),
    "a number for a vocabulary": (saying(vocabulary=7), "vocabulary is 7: text is needed"),
    "a warmth in words": (
        saying(draft_temperature="3"),
        "draft_temperature is '3': a temperature from 0 to 2 is needed",
    ),
    "a warmth of NaN": (saying(draft_temperature=float("nan")), "draft_temperature is nan: a"),
    "a warmth below 0": (saying(draft_temperature=-1), "draft_temperature is -1: a temperature"),
    "older": (silent_on("vocabulary"), "lacks vocabulary: it was written by another version"),
    "other sizes": (
        saying(settings={"vocabulary_size": 40}),
        r"is not a whole \w+ drafter \(RuntimeError: .*size mismatch",
    ),
    "unknown sizes": (
        saying(settings={"vocabulary_size": 40, "depth": 2}),
        r"is not a whole \w+ drafter \(TypeError: .*depth.*It needs config\.json and model",
    ),
}
DRAFTERS: dict[str, dict[str, tuple[Harm, str]]] = {
    "lstm": NATIVE
    | WEIGHTS
    | SETTINGS
    | {"of another family": (saying(family="cnn"), "is not a whole cnn drafter")},
    "cnn": NATIVE | WEIGHTS | SETTINGS,
    "t5": NATIVE
    | WEIGHTS
    | {
        "of more layers": (saying(num_layers=3), r"not a whole t5 drafter \(it lacks "),
        "of no layers": (saying(num_layers=0), "not a whole t5 drafter"),
        "of no distance": (saying(relative_attention_max_distance=0), "not a whole t5 drafter"),
        "own section a number": (saying(fastllm=3), '"fastllm" needs an object, found 3'),
        "a name of a list": (saying(fastllm={"name": [1]}), r"name is \[1\]: text is needed"),
    },
    "ngram": NATIVE
    | {
        "older": (silent_on("vocabulary", "order"), "lacks vocabulary, order: it was written"),
        "counts missing": (without("counts.npz"), r"is not a whole n-gram .* counts\.npz as"),
        "counts cut short": (cut_short("counts.npz"), "is not a whole n-gram drafter"),
        "another vocabulary size": (saying(vocabulary_size=6), "is not a whole n-gram drafter"),
        "unknown entry": (saying(depth=3), "is not a whole n-gram drafter .*depth"),
    },
}
SIZES: dict[str, dict[str, int]] = {
    "lstm": {"width": 12, "hidden": 8, "mixing": 8, "places": 4},
    "cnn": {"width": 12, "channels": 8, "mixing": 8, "places": 4},
    "t5": {"width": 16, "heads": 2, "layers": 1, "feed_forward": 16},
}


@pytest.fixture(scope="module")
def whole_drafters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny drafter of each family."""
    place = tmp_path_factory.mktemp("drafters")
    for family, sizes in SIZES.items():
        made = drafter_class(family).fresh(40, vocabulary="0123", start="ordinary", **sizes)
        made.save(place / family)
    counts = Counts.none(2, 40).added([[5, 6, 7, 8, 1]])
    NgramDrafter(counts, vocabulary="0123").save(place / "ngram")
    return {family: place / family for family in DRAFTERS}


@pytest.mark.parametrize(
    ("family", "fault"), [(family, fault) for family in DRAFTERS for fault in DRAFTERS[family]]
)
def test_a_wrong_drafter_is_refused(
    family: str, fault: str, whole_drafters: dict[str, Path], tmp_path: Path
) -> None:
    harm, words = DRAFTERS[family][fault]
    folder = harmed(whole_drafters[family], tmp_path, harm)
    with pytest.raises(CheckpointError, match=f"(?s){words}"):
        load_drafter(folder, device="cpu")


@pytest.mark.parametrize("family", DRAFTERS)
def test_an_unharmed_drafter_is_loaded(family: str, whole_drafters: dict[str, Path]) -> None:
    assert load_drafter(whole_drafters[family], device="cpu").vocabulary == "0123"


def test_a_shipped_drafter_is_no_target_and_the_other_way_round() -> None:
    for name in shipped_drafters():
        with pytest.raises(CheckpointError, match=r"holds a drafter .family \w+., not a target"):
            load_target(name, device="cpu")


def test_a_package_without_its_checkpoints_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path / "assets" / "checkpoints")
    monkeypatch.chdir(tmp_path)
    for name in ("target", Path("target")):
        with pytest.raises(CheckpointError, match="come with the repository.*Run this from a cl"):
            load_target(name, device="cpu")


@pytest.mark.parametrize("name", ["lookup+lookup", "lookup+none", "lookup+", "lookup+lookup+x"])
def test_two_different_drafters_compose(name: str) -> None:
    with pytest.raises(CheckpointError, match="stands between two different drafters"):
        load_drafter(name)


def test_a_composition_is_loaded_by_its_name(whole_drafters: dict[str, Path]) -> None:
    table = whole_drafters["ngram"]
    name = load_drafter(table, device="cpu").name
    for parts in (("lookup", str(table)), (str(table), "lookup"), ("lookup", str(table), "lookup")):
        found = load_drafter("+".join(parts), device="cpu")
        assert found.name == "+".join("lookup" if part == "lookup" else name for part in parts)
        assert found.vocabulary == "0123"


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_card_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"card\.json"):
        read_card(tmp_path)


def test_an_empty_name_is_no_drafter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    NgramDrafter(Counts.none(2, 40), vocabulary="0123").save(tmp_path)
    monkeypatch.chdir(tmp_path)  # a drafter's folder: "" must not mean it
    with pytest.raises(CheckpointError, match="the drafter's name is empty: give lookup, "):
        load_drafter("")


def test_a_device_that_is_not_there_is_refused(whole_target: Path) -> None:
    for load in (load_target, load_drafter):
        with pytest.raises(SettingsError, match="device='cuda:77': there is no such device here"):
            load(whole_target, device="cuda:77")
        with pytest.raises(SettingsError, match="device='abacus' is no name of a device"):
            load(whole_target, device="abacus")
