"""`fastllm bench`: seconds, lanes side by side, those of other libraries included."""

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm.cli.lanes import load_lanes
from fastllm.cli.options import add_measuring_arguments, measured_settings
from fastllm.cli.output import charts, say, write_report
from fastllm.errors import SettingsError
from fastllm.files import write_whole

BENCH_GAMMAS = (2, 5, 8)
"""The draft lengths of the benchmark, unless others are given: ten minutes for 50 articles."""

BENCH_ARTICLES = 50
BENCH_SOURCES = 5
"""How many articles, and how many random sources where the weights are random."""


def add_arguments(commands: Any) -> None:
    """Adds the command `bench`."""
    parser = commands.add_parser(
        "bench",
        help="time lanes side by side, those of other libraries included",
        description="Times plain decoding, speculation with each drafter, transformers' "
        "generate, assisted generation and prompt lookup, and CTranslate2 where it is installed, "
        "interleaved in one run, and prints medians over articles. --target-shape measures the "
        "costs of a large target on this machine with random weights; how many drafts are "
        "accepted is then simulated.",
    )
    parser.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time the lanes of transformers and CTranslate2 as well (default: yes)",
    )
    parser.add_argument(
        "--assistant",
        metavar="NAME",
        help="the T5 drafter that transformers' assisted generation drafts with (default: "
        "t5-after, or else the first T5 among the drafters)",
    )
    parser.add_argument(
        "--dtype",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of the target's weights (default: fp32)",
    )
    parser.add_argument("--out", metavar="FOLDER", help="write bench.json, .md and .html there")
    shapes = parser.add_argument_group("without weights")
    shapes.add_argument(
        "--target-shape",
        metavar="SHAPE",
        help="google/flan-t5-xl or another T5, or a folder with config.json",
    )
    shapes.add_argument(
        "--random-weights", action="store_true", help="fill that shape with random numbers"
    )
    shapes.add_argument(
        "--drafter-shape",
        metavar="SHAPE",
        nargs="+",
        default=["google-t5/t5-small"],
        help="shapes of the drafters: T5s, or lstm, cnn, shared in their usual sizes "
        "(default: google-t5/t5-small)",
    )
    shapes.add_argument(
        "--profile",
        action="store_true",
        help="print which operations a plain token and each drafter's draft consist of",
    )
    shapes.add_argument(
        "--alpha",
        type=float,
        metavar="N",
        help="the chance that a drafted token is accepted, 0 to 1: simulated acceptance",
    )
    shapes.add_argument(
        "--source-length", type=int, default=512, metavar="N", help="source tokens (default: 512)"
    )
    add_measuring_arguments(
        parser,
        limit=f"{BENCH_ARTICLES}; random sources: {BENCH_SOURCES}",
        gammas=BENCH_GAMMAS,
        gamma_help=" ".join(map(str, BENCH_GAMMAS)),
        temperatures=(0.0, 1.0),
    )
    parser.set_defaults(handle=bench)


def bench(options: argparse.Namespace) -> int:
    """Times the lanes; 1 where a greedy text of ours is another than it has to be."""
    config, gammas, temperatures = measured_settings(options)
    _require_bench(options)
    arguments, more = (_bench_random if options.target_shape else _bench_articles)(options)
    if options.baselines and not options.target_shape:
        import_module("transformers.utils.logging").set_verbosity_error()
    measuring, report = (import_module(f"fastllm.bench.{n}") for n in ("measure", "report"))
    done = measuring.measure(
        **arguments, config=config, gammas=gammas, temperatures=temperatures, say=say
    )
    summary = report.summarise(done, peak_process_bytes=_peak_memory(), **more)
    text = report.markdown(summary)
    print(text)
    page = ""
    if options.out and (plots := charts()) is not None:
        page = plots.document(
            report.heading(summary),
            report.preamble(summary),
            plots.bench_charts(summary),
            report.sections(summary),
        )
    write_report(options.out, "bench", report.to_json(done, summary), text, page)
    if options.profile:
        profiles = import_module("fastllm.bench.simulate").profiles(
            arguments["target"], arguments["drafters"], arguments["sources"][0][1], config
        )
        print(profiles)
        if options.out:
            write_whole(Path(options.out) / "profile.txt", profiles + "\n")
    if summary["articles"] < summary["asked"]:
        return 130
    return 0 if done.exact else 1


def _require_bench(options: argparse.Namespace) -> None:
    """Refuses what would fail later.

    Raises:
        SettingsError: what is missing, out of range, or excludes another option.
    """
    shape, alpha = options.target_shape is not None, options.alpha
    for wrong, message in (
        (
            not shape and (options.random_weights or alpha is not None),
            "--random-weights and --alpha belong to --target-shape: name a shape, such as "
            "google/flan-t5-xl, or leave them out.",
        ),
        (
            not shape and options.data is None,
            "--data is missing: give a file of articles, or --target-shape for random ones.",
        ),
        (
            shape and not (options.random_weights and alpha is not None),
            "--target-shape has no weights and no articles: add --random-weights, and --alpha N, "
            "the chance that a drafted token is accepted.",
        ),
        (
            shape and not 0 <= (alpha or 0) <= 1,
            f"--alpha {alpha}: give a chance between 0 and 1.",
        ),
        (
            shape and options.source_length < 2,
            f"--source-length {options.source_length}: give at least 2 tokens.",
        ),
    ):
        if wrong:
            raise SettingsError(message)


def _bench_articles(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to measure on articles, for `measure`, and what to say of it, for `summarise`."""
    choose = import_module("fastllm.evaluation.measure").choose_articles
    chosen = choose(options.data, options.limit or BENCH_ARTICLES)
    target, drafters = load_lanes(options)
    names: list[str] = []
    assistant, model = None, None
    if options.baselines:
        measuring = import_module("fastllm.bench.measure")
        assistant, model = _assistant(options, drafters)
        names = [n for n in measuring.BASELINES if n != measuring.ASSISTED or model is not None]
        if import_module("fastllm.bench.peer").installed():
            names += measuring.PEERS
        else:
            say("no lanes of CTranslate2: it is not installed (pip install 'fastllm[bench]')")
    encode = target.vocabulary.encode
    sources = [
        (article.id, encode(article.text, target.source_length, target.prefix).ids)
        for article in chosen
    ]
    roofline = import_module("fastllm.bench.simulate").roofline(target)
    return {
        "target": target,
        "drafters": drafters,
        "sources": sources,
        "baselines": names,
        "assistant": model,
    }, {"assistant": assistant, "roofline": roofline}


def _assistant(options: argparse.Namespace, drafters: dict[str, Any]) -> tuple[str | None, Any]:
    """The name of the drafter that assists transformers, and its model; None if there is none."""
    family = import_module("fastllm.drafters").drafter_class("t5")
    able = [name for name, drafter in drafters.items() if isinstance(drafter, family)]
    name = options.assistant or ("t5-after" if "t5-after" in able else next(iter(able), None))
    if name is None:
        return None, None
    drafter = drafters.get(name)
    if drafter is None:
        checkpoints = import_module("fastllm.checkpoints")
        drafter = checkpoints.load_drafter(name, device=options.device)
    if not isinstance(drafter, family):
        raise SettingsError(
            f"--assistant {name}: transformers needs a T5, this is a {type(drafter).__name__}. "
            "Give t5-after, or the folder of a T5."
        )
    return name, drafter.model.network


def _bench_random(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to measure on random weights, and what to say of it."""
    simulate, torch = import_module("fastllm.bench.simulate"), import_module("torch")
    device = import_module("fastllm.devices").usable_device(options.device)
    say(f"random weights for {options.target_shape} on {device}")
    target = simulate.random_target(
        options.target_shape,
        device=device,
        dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype],
        source_length=options.source_length,
    )
    made = [simulate.random_drafter(name, target) for name in options.drafter_shape]
    measuring = import_module("fastllm.bench.measure")
    return {
        "target": target,
        "drafters": {drafter.name: drafter for drafter in made},
        "sources": simulate.random_sources(
            options.limit or BENCH_SOURCES,
            options.source_length,
            target.logit_count,
            options.seed,
        ),
        "baselines": [measuring.GENERATE] if options.baselines else [],
        "alpha": options.alpha,
    }, {
        "roofline": simulate.roofline(target),
        "drafter_dtype": str(target.model.dtype).removeprefix("torch."),
    }


def _peak_memory() -> int | None:
    """The most bytes that this process has held; None where the system does not say."""
    try:
        resource = import_module("resource")
    except ImportError:  # Windows
        return None
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else 1024 * peak
