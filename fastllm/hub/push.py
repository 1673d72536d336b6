"""`fastllm push`: a checkpoint as a model repository on the Hub, with a model card.

The card is written from the checkpoint's own `config.json` and `card.json`; it says nothing that
does not stand there.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastllm import paths
from fastllm.drafters import families
from fastllm.errors import CheckpointError
from fastllm.files import json_in
from fastllm.hub import upload

LICENSE = "apache-2.0"

METHODS = {
    "supervised": "cross-entropy on written texts, no distillation",
    "seq_kd": "sequence-level distillation, cross-entropy on the target's own texts",
    "supervised_kd": "distillation of the target's probabilities on written texts",
    "imit_kd": "imitation learning, the drafter's own texts among written ones",
    "f_distill": "f-distillation, on texts of the target and of the drafter",
    "on_policy_gkd": "on-policy distillation, on the drafter's own texts",
    "mixed_gkd": "generalised distillation, on texts of the target and of the drafter",
    "opd": "on-policy distillation, on the target's texts and on refused drafts (Draft-OPD)",
}
"""Methods in words; others are named as the card names them."""

NUMBERS = {
    "alpha": "accepted share of drafted tokens, expected, when sampling",
    "alpha_greedy": "accepted share of drafted tokens, greedy",
    "tau": "tokens per call of the target",
}
"""What a validation measures, in words."""


@dataclass(frozen=True)
class Package:
    """A checkpoint ready for the Hub: OWNER/NAME, the text of README.md, and the folder with it."""

    repository: str
    card: str
    files: dict[str, Path | bytes] = field(repr=False)


def package(
    checkpoint: str, repository: str, *, base_model: str = "", license_name: str = LICENSE
) -> Package:
    """Lists what goes to the Hub; nothing is sent.

    Args:
        checkpoint: the name of a shipped one, or a folder.
        repository: OWNER/NAME.
        base_model: OWNER/NAME of the model that it comes from or was distilled for.
        license_name: as the Hub calls it.

    Raises:
        CheckpointError: there is no such checkpoint, or its config.json or card.json is no JSON.
        SettingsError: a name is not OWNER/NAME.
    """
    upload.require_repository(repository)
    if base_model:
        upload.require_repository(base_model)
    shipped = paths.CHECKPOINTS / checkpoint
    folder = shipped if (shipped / "config.json").is_file() else Path(checkpoint)
    files = upload.checkpoint_files(folder)
    config = _json(folder / "config.json")
    told = _json(folder / "card.json") if "card.json" in files else {}
    own = config.get("fastllm") or {}
    family = config.get("family") or own.get("family") or ""
    if not base_model and "/" in str(told.get("target", "")):
        base_model = told["target"]
    ours = family not in ("", "t5")
    values = {
        "license": license_name,
        "language": "en",
        "library_name": "fastllm" if ours else "transformers",
        "pipeline_tag": "summarization",
        "tags": ["fastllm", "speculative-decoding", "summarization"]
        + (["knowledge-distillation", "drafter", family] if family else ["t5"]),
    }
    if base_model:
        values["base_model"] = base_model
    name = told.get("name") or own.get("name") or config.get("name") or folder.name
    tokenizer = "tokenizer.json" in files or "spiece.model" in files
    # A drafter that reads its target's encoder says in its settings which target that is.
    bound = bool((config.get("settings") or {}).get("target"))
    parts = list(_sections(str(name), family, repository, told, tokenizer, bound))
    if told:
        curves = "; the training curves are in `training.jsonl`" * ("training.jsonl" in files)
        parts.append(f"Everything known of its making stands in `card.json`{curves}.")
    body = "\n\n".join(parts)
    readme = upload.front_matter(values, body)
    return Package(repository, readme.decode(), {**files, "README.md": readme})


def push(
    package: Package,
    *,
    private: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
) -> str:
    """Creates or updates the repository; returns its address.

    - `private`: if the repository is created, nobody else sees it.
    - `endpoint`, `token`: as for `upload.client`.

    Raises:
        HubError: the Hub refused, or could not be reached.
    """
    api = upload.client(endpoint, token)
    name = package.repository
    with upload.explained(f"creating the model repository {name}"):
        address = api.create_repo(name, repo_type="model", private=private or None, exist_ok=True)
    upload.commit(api, name, "model", package.files, "Push with FastLLM")
    return str(address)


def add_arguments(commands: Any) -> None:
    """Adds the command `push`."""
    parser = commands.add_parser(
        "push",
        help="put a checkpoint on the Hugging Face Hub, with a model card",
        description="Puts a drafter or a target on the Hub as a model repository. The model card "
        "is written from the checkpoint's config.json and card.json.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a shipped one, or a folder")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME")
    parser.add_argument(
        "--base-model", default="", metavar="OWNER/NAME", help="the target, if it is on the Hub"
    )
    parser.add_argument("--license", default=LICENSE, help=f"default: {LICENSE}")
    upload.add_sending_arguments(parser)
    parser.set_defaults(handle=run)


def run(options: argparse.Namespace) -> None:
    """Pushes, or shows what would be pushed."""
    made = package(
        options.checkpoint,
        options.repo,
        base_model=options.base_model,
        license_name=options.license,
    )
    print(f"model repository {made.repository}\n\n{made.card}\n{upload.listing(made.files)}")
    upload.carry_out(options, "the model", made.files, lambda: push(made, private=options.private))


def _sections(
    name: str, family: str, repository: str, told: dict[str, Any], tokenizer: bool, bound: bool
) -> Iterator[str]:
    """The parts of the card, in order."""
    yield f"# {name}"
    if family:
        known = families()
        what = known[family].description if family in known else f"of the family {family}"
        fits = "this very target" if bound else "targets with the same vocabulary"
        yield (
            f"A *drafter* for speculative decoding with FastLLM: {what} "
            f"that guesses the next tokens of `{told.get('target', 'its target')}`. It never "
            "changes the target's text, only how fast the text comes. "
            f"It fits {fits} and no others."
        )
    else:
        yield "A *target* for speculative decoding with FastLLM: it summarises English news."
    if facts := list(_facts(told)):
        yield "## How it was made\n\n" + "\n".join(facts)
    if isinstance(told.get("validation"), dict):
        yield "## Numbers\n\n" + _numbers(told["validation"])
    limits = told.get("limits")
    if isinstance(limits, list) and limits:
        yield "## Limits\n\n" + "\n".join(f"- {entry}" for entry in limits)
    elif family:
        yield (
            "## Limits\n\nIt was made for one target and the texts named above; on other texts "
            "fewer of its guesses are accepted."
        )
    load = f"load_{'drafter' if family else 'target'}"
    yield (
        "## How to load it\n\n```python\nfrom huggingface_hub import snapshot_download\n\n"
        f"from fastllm.checkpoints import {load}\n\n"
        f'{load.removeprefix("load_")} = {load}(snapshot_download("{repository}"))\n```'
    )
    if not family and tokenizer:
        yield (
            "It is a plain encoder-decoder of transformers:\n\n```python\n"
            "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
            f'model = AutoModelForSeq2SeqLM.from_pretrained("{repository}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{repository}")\n```'
        )
    if family == "t5":
        yield (
            "In transformers it assists the target it was made for:\n\n```python\n"
            "from transformers import T5ForConditionalGeneration\n\n"
            f'assistant = T5ForConditionalGeneration.from_pretrained("{repository}")\n'
            "target.generate(**inputs, assistant_model=assistant)\n```"
        )


def _facts(told: dict[str, Any]) -> Iterator[str]:
    method = told.get("method")
    if isinstance(method, dict):
        label = str(method.get("name", ""))
        rest = ", ".join(f"{key} {value}" for key, value in method.items() if key != "name")
        in_words = METHODS.get(label, "")
        said = f"`{label}`" + (f", {in_words}" if in_words else "")
        yield f"- method: {said}" + (f" ({rest})" if rest else "")
    for key in ("status", "architecture", "data", "texts", "start", "recipe"):
        if isinstance(told.get(key), str):
            yield f"- {key}: {told[key]}"
    recipe = told.get("recipe")
    if isinstance(recipe, dict) and "updates" in recipe and "batch" in recipe:
        yield f"- updates: {recipe['updates']:,} of {recipe['batch']} articles each"
    for key in ("articles", "parameters"):
        if isinstance(told.get(key), int):
            yield f"- {key}: {told[key]:,}"
    if told.get("prefix"):
        yield f"- before each article: `{told['prefix']}`"
    if told.get("source_length"):
        yield f"- reads {told['source_length']} source tokens"
    if told.get("seconds"):
        yield f"- trained for {told['seconds']:,.0f} seconds on {told.get('device', 'a machine')}"


def _numbers(validation: dict[str, Any]) -> str:
    rows = [f"| {NUMBERS[key]} | {validation[key]:.3f} |" for key in NUMBERS if validation.get(key)]
    articles = validation.get("articles", "some")
    gamma = f", draft length {validation['gamma']}" if "gamma" in validation else ""
    return "\n".join(
        [f"On {articles} articles held out from training{gamma}:", "", "| | |", "|---|---|", *rows]
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json_in(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): save the checkpoint anew."
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: needs a JSON object, found {type(found).__name__}.")
    return found
