"""The command line: data on stdout, everything else on stderr, one exit code for each refusal.

Nothing here but arguments and their presentation: whatever a command does, the library does too.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from kerasport.errors import (
    KerasportError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from kerasport.version import VERSION

__all__ = ["main"]

# Below this many bytes nobody waits.
LONG = 100_000_000

EXIT_CODES = """exit codes:
  0  done
  1  a bug in kerasport
  2  the call makes no sense: a missing file, an unknown option
  3  unknown or unsupported format
  4  malformed or hostile input
  5  a layer or weight that the target cannot hold
  6  verification failed
  7  an optional package is missing"""


BUG = "kerasport: this is a bug. Please report it with the lines above and what the file is"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A layer's name may hold what the terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    # Nothing is multiplied here, and half of NumPy's start is threads that would wait for that.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What is made for a model is needed until the end: who looks for garbage in it finds none. Nor
    # does Python at its end, where the search is a tenth of a small conversion.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser(words).parse_args(words)
    try:
        options.run(options)
        if sys.stdout is not None:  # it is None where the caller has closed it
            sys.stdout.flush()
    except BrokenPipeError:
        _abandon_output()  # the reader of our output has left, as `head` does
    except OSError as error:  # of the output, or of a place that no module of ours knows better
        _abandon_output()
        where = f"{error.filename}: " if error.filename else ""
        _tell(f"kerasport: {where}{error.strerror or error}")
        sys.exit(UsageError.exit_code)
    except KerasportError as error:
        if error.exit_code == KerasportError.exit_code:
            _tell_bug()
        else:
            _tell(f"kerasport: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _tell("kerasport: interrupted; the target is as it was")
        sys.exit(130)
    except Exception:  # whatever is no refusal is our fault, and its traceback is what we need
        _tell_bug()
        sys.exit(KerasportError.exit_code)
    sys.exit(0)


def _tell_bug() -> None:
    import traceback

    traceback.print_exc()
    _tell(BUG)


def _abandon_output() -> None:
    """Let what is still buffered go nowhere: flushing it at exit would fail a second time."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands, of which only those among the words know their arguments."""
    parser = argparse.ArgumentParser(
        prog="kerasport",
        description="Gets the weights out of Keras and TensorFlow models and into everything else.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kerasport {VERSION}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (what, run, arguments) in VERBS.items():
        verb = verbs.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        if name in words:  # the arguments of the others would take as long as listing a model
            verb.set_defaults(run=run)
            verb.add_argument("--json", action="store_true", help="print JSON")
            arguments(verb)
    return parser


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", type=_file, help="the model, or its weights")
    parser.add_argument(
        "target", metavar="DST", type=_file, help="the file to write; its suffix says how"
    )
    parser.add_argument(
        "--module",
        action="store_true",
        help="write DST as a folder: the source of a PyTorch module that runs, and its weights",
    )
    parser.add_argument(
        "--vectors",
        metavar="FILE",
        nargs="?",
        const=True,
        help="store inputs and outputs with the module, to prove it without Keras: made by Keras, "
        "or by a port of the model (.onnx, .tflite), or taken from a .npz file",
    )
    _reading(parser)
    _planning(parser)
    parser.add_argument("--format", help="the target's format, where its suffix does not say")
    parser.add_argument("--dtype", help="cast floating-point tensors: f32, f16, bf16, …")
    parser.add_argument(
        "--max-shard-size", metavar="SIZE", type=_size, help="cut into shards: 5GB, 500MB, …"
    )
    parser.add_argument(
        "--no-strict",
        dest="strict",
        action="store_false",
        help="pass on as stored what the target cannot hold, instead of refusing",
    )
    parser.add_argument(
        "--like",
        metavar="FILE",
        type=_file,
        help="the way back: SRC is a state dict, DST a copy of this Keras file with its values",
    )
    parser.add_argument(
        "--sum-biases",
        action="store_true",
        help="with --like: add up the two biases of PyTorch's recurrent layers, rounded once",
    )
    parser.add_argument(
        "--into",
        metavar="TARGET",
        type=_file,
        help="with --names: the state dict whose tensors that are no weights are passed on",
    )
    _naming(parser)


def _match_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", type=_file, help="the model, or its weights")
    parser.add_argument(
        "--into",
        metavar="TARGET",
        type=_file,
        required=True,
        help="a safetensors or .pt file, or package.module:factory, which is run",
    )
    parser.add_argument(
        "-o", dest="output", metavar="NAMES", type=_file, help="write the names to this TOML file"
    )
    parser.add_argument(
        "--hint",
        metavar="LAYERS=NAMES",
        action="append",
        default=[],
        help="patterns that belong together: 'encoder/*=bert.encoder.*'",
    )
    parser.add_argument(
        "--keep",
        metavar="NAMES",
        action="append",
        default=[],
        help="tensors that the model does not have: they stay the target's own: 'classifier.*'",
    )
    parser.add_argument(
        "--inputs",
        metavar="NPZ",
        type=_file,
        help="prove the match by running the factory's module: its inputs, and the 'outputs' "
        "that the model gave; without these Keras is run",
    )
    _reading(parser)


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=_file, help="a model, or anything that kerasport wrote"
    )
    _reading(parser)


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", type=_file, help="the model, or its weights")
    _reading(parser)
    _planning(parser)
    _naming(parser)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="DST", type=_file, help="what kerasport wrote")
    parser.add_argument("--against", metavar="SRC", type=_file, help="the model that it came from")
    _running(parser)
    _naming(parser)
    _reading(parser)


def _running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running a module")
    group.add_argument(
        "--run",
        dest="running",
        action="store_true",
        help="run DST/model.py, which you should trust, beside Keras, and compare every layer",
    )
    group.add_argument(
        "--inputs", metavar="FILE", type=_file, help="a .npz file of inputs; random ones otherwise"
    )
    group.add_argument(
        "--dtype", help="what both compute in: f32, f64; f32 first and f64 to settle it otherwise"
    )
    group.add_argument(
        "--tolerance",
        metavar="NUMBER",
        type=float,
        help="the largest deviation, absolute or relative to a layer's scale: 1e-5",
    )
    group.add_argument("--seed", metavar="NUMBER", type=int, help="of the random inputs: 0")


def _reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reading")
    group.add_argument(
        "--kind",
        metavar="PATTERN=KIND",
        action="append",
        default=[],
        help="what layers of unknown class are: 'block*_conv=Conv2D'",
    )
    group.add_argument(
        "--layers",
        metavar="FILE",
        type=_file,
        help="what classes of your own store: a TOML file of sentences",
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        type=_file,
        help="take the architecture from this JSON or model file",
    )
    group.add_argument(
        "--optimizer", action="store_true", help="keep the optimizer's state as tensors too"
    )
    group.add_argument(
        "--ema", action="store_true", help="weights with the values of their moving averages"
    )
    group.add_argument(
        "--ema-name", metavar="NAME", help="what the averages are called, if not as by default"
    )
    group.add_argument(
        "--assume-dtype", metavar="DTYPE", help="what unmarked two-byte values are: bf16"
    )
    group.add_argument(
        "--dequantize", action="store_true", help="quantized weights as the floats that they mean"
    )
    group.add_argument(
        "--merge-lora", action="store_true", help="low-rank factors merged into their weights"
    )
    group.add_argument(
        "--include", metavar="PATTERN", action="append", default=[], help="only these"
    )
    group.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="all but these"
    )


def _naming(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--names",
        metavar="FILE",
        type=_file,
        help="the names and layouts of a PyTorch model, as match found them",
    )


def _planning(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", required=True, help="names and layouts of: keras, torch, onnx")
    parser.add_argument(
        "--flatten",
        choices=("reorder", "keep"),
        default="reorder",
        help="the order of Dense rows behind a flattened image: the target's, or as stored",
    )
    parser.add_argument(
        "--unknown",
        choices=("error", "keep"),
        default="error",
        help="layers of no known kind: refuse them, or pass them on as stored",
    )
    parser.add_argument(
        "--tied",
        choices=("once", "both", "content"),
        default="once",
        help="one variable of two names: written once with an alias, or under both; by content: "
        "tensors of equal values are one variable too",
    )


def _snapshot(source: str, options: argparse.Namespace) -> Any:
    from kerasport import api

    kinds = {}
    for wish in options.kind:
        pattern, equals, kind = wish.rpartition("=")
        if not equals:
            raise UsageError(f"--kind {wish}: expected PATTERN=KIND, such as 'conv*=Conv2D'")
        kinds[pattern] = kind
    snapshot = api.read(
        source,
        kinds=kinds,
        config=options.config,
        optimizer=options.optimizer,
        ema=options.ema_name or options.ema,
        assume_dtype=options.assume_dtype,
        layers=options.layers,
        dequantize=options.dequantize,
        merge_lora=options.merge_lora,
    )
    if getattr(options, "names", None):
        snapshot = api.settled(snapshot, options.names)
    if getattr(options, "tied", "") == "content":
        snapshot = api.tie(snapshot)
    return api.select(snapshot, include=options.include, exclude=options.exclude)


# What a module is not written with, and what to do instead.
NOT_FOR_A_MODULE: Mapping[str, str] = {
    "include": "a module needs all weights; leave out --include",
    "exclude": "a module needs all weights; leave out --exclude",
    "optimizer": "a module has no optimizer's state; leave out --optimizer",
    "max_shard_size": "a module loads one file; leave out --max-shard-size",
    "format": "a module's weights are safetensors; leave out --format",
    "no_strict": "layers of no known kind become stubs with --unknown keep; leave out --no-strict",
    "tied": "what the model shares, the module shares; leave out --tied",
}


def _refuse_beside_module(options: argparse.Namespace) -> None:
    """Refuse options that make no sense for a module."""
    if options.to != "torch":
        raise UsageError(f"--module: a module is PyTorch's, and --to says {options.to}: --to torch")
    given = {**vars(options), "no_strict": not options.strict, "tied": options.tied != "once"}
    for name, advice in NOT_FOR_A_MODULE.items():
        if given[name]:
            raise UsageError(f"--module: {advice}")


def _convert_module(options: argparse.Namespace) -> None:
    from kerasport import api

    _refuse_beside_module(options)
    if options.vectors:
        _quiet()
    _report(
        api.write_module(
            _snapshot(options.source, options),
            options.target,
            layers=options.layers,
            flatten=options.flatten,
            unknown=options.unknown,
            dtype=options.dtype,
            vectors=options.vectors or False,
            progress=_Progress() if sys.stderr.isatty() else None,
        ),
        options,
    )


def _convert(options: argparse.Namespace) -> None:
    from pathlib import Path

    from kerasport import api, formats

    if options.module:
        try:
            _convert_module(options)
        except UnsupportedError as error:
            if options.json and error.report is not None:
                _report(error.report, options)
            raise
        return
    if options.vectors:
        raise UsageError("--vectors: are stored with a module: add --module")
    if options.like is None:
        if options.sum_biases:
            raise UsageError("--sum-biases: expected --like, the Keras file to fill")
        if options.into and not options.names:
            raise UsageError("--into: expected --names, which say what is no weight")
        formats.for_target(Path(options.target), options.format)
    snapshot = _snapshot(options.like or options.source, options)
    try:
        report = api.convert(
            options.source if options.like else snapshot,
            options.target,
            to=options.to,
            strict=options.strict,
            unknown=options.unknown,
            tied="both" if options.tied == "both" else "once",
            format=options.format,
            flatten=options.flatten,
            dtype=options.dtype,
            max_shard_size=options.max_shard_size,
            progress=_Progress() if sys.stderr.isatty() else None,
            like=snapshot if options.like else None,
            sum_biases=options.sum_biases,
            names=options.names,
            into=options.into,
        )
    except UnsupportedError as error:
        if options.json and error.report is not None:
            _report(error.report, options)
        raise
    _report(report, options)


def _match(options: argparse.Namespace) -> None:
    from kerasport import api

    hints = []
    for hint in options.hint:
        left, equals, right = hint.partition("=")
        if not equals:
            raise UsageError(f"--hint {hint}: expected LAYERS=NAMES, such as 'encoder/*=bert.*'")
        hints.append((left, right))
    found = api.match(
        _snapshot(options.source, options),
        options.into,
        hints=hints,
        keep=options.keep,
        inputs=options.inputs,
    )
    if options.output:
        api.write_names(found, options.output)
    if options.json:
        _print_json(found.to_json())
    elif not options.output:
        _say(str(found).rstrip("\n"))
    else:
        lines = len(found.entries)
        _say(f"{options.output}: {lines} {'line' if lines == 1 else 'lines'} of names")
        for line in found.notes:
            _say(f"  {line}")


def _verify(options: argparse.Namespace) -> None:
    from kerasport import api

    if options.running:
        _verify_run(options)
        return
    for name in ("inputs", "dtype", "tolerance", "seed"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name}: makes sense where a module is run: add --run")
    if options.against is None:
        raise UsageError(
            "expected --against SRC, the model that it came from; or --run, where a module was "
            "written with --vectors"
        )
    _report(api.verify(options.target, against=_snapshot(options.against, options)), options)


def _verify_run(options: argparse.Namespace) -> None:
    from kerasport import api

    _quiet()
    if options.against is None and options.seed is not None:
        raise UsageError("--seed: stored inputs are not random: leave it out, or add --against SRC")
    wishes = {"tolerance": options.tolerance, "seed": options.seed}
    try:
        report = api.verify_run(
            options.target,
            against=None if options.against is None else _snapshot(options.against, options),
            layers=options.layers,
            inputs=options.inputs,
            dtype=options.dtype,
            **{name: value for name, value in wishes.items() if value is not None},
        )
    except VerificationError as error:
        if error.report is not None:
            _run_report(error.report, options)
        raise
    _run_report(report, options)


def _quiet() -> None:
    """What TensorFlow says at its start is not to the point, and a GPU rounds to ten bits."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def _run_report(report: Any, options: argparse.Namespace) -> None:
    if options.json:
        _print_json(report.to_json())
        return
    _say(f"{report.source} = {report.target}  run beside {report.by} in {report.dtype}")
    seed = "given" if report.seed is None else f"random, seed {report.seed}"
    inputs = ", ".join(f"{name} {_shape(shape)}" for name, shape in report.inputs.items())
    _say(f"  inputs: {inputs} ({seed})")
    rows = [("layer", "class", "gives", "absolute", "relative", "")]
    for row in (*report.layers, *report.outputs):
        mark = "" if row.within else row.note or "leaves the tolerance"
        numbers = f"{row.absolute:.1e}", f"{row.relative:.1e}"
        rows.append((row.path, row.class_name, _shape(row.shape), *numbers, mark))
    _print_table(rows)
    for note in report.notes:
        _say(f"note: {note}")
    if report.first is None:
        _say(f"all within {report.tolerance:g}, absolute or relative to the layer's scale")


def _shape(sizes: Sequence[int]) -> str:
    return f"[{','.join(map(str, sizes))}]"


def _plan(options: argparse.Namespace) -> None:
    from kerasport import api

    snapshot = _snapshot(options.source, options)
    if options.names is None:
        steps = api.plan(
            snapshot,
            to=options.to,
            flatten=options.flatten,
            unknown=options.unknown,
            tied="both" if options.tied == "both" else "once",
        )
    elif options.to != "torch":
        raise UsageError(f"--names: expected --to torch, whose names they are, found {options.to}")
    else:
        steps, _ = api.renamed_plan(snapshot, options.names, flatten=options.flatten)
    if options.json:
        _print_json(steps.to_json())
    elif steps.moves:
        _say(str(steps))
    if not options.json:
        for line in _gathered(steps.notes):
            _tell(f"note: {line}")
    steps.refuse_losses()


def _inspect(options: argparse.Namespace) -> None:
    snapshot = _snapshot(options.file, options)
    if options.json:
        _print_json(snapshot.to_json())
        return
    for layer in snapshot.layers:
        _say(
            f"{layer.path}  {_what(layer)}  {layer.parameters:,} parameters  {_bytes(layer.nbytes)}"
        )
        rows = [
            (f"  {role}", tensor.spec, str(tensor.layout if tensor.layout is not None else "?"))
            for role, tensor in layer.weights.items()
        ]
        _print_table(rows)
    totals = snapshot.to_json()["totals"]
    _say(
        f"{snapshot.source.format}: {len(snapshot)} layers, {totals['weights']} weights, "
        f"{totals['parameters']:,} parameters, {_bytes(totals['bytes'])}"
    )
    for path, table in snapshot.tables.items():
        _say(f"table: {path}: {_described(table)}")
    for reason, count in _counted(omission.reason for omission in snapshot.omitted).items():
        _say(f"left out: {_tensors(count)}, {reason}")
    for layer in snapshot.layers:
        if layer.note and layer.kind is None:
            _tell(f"note: {layer.path}: {layer.note}")


def _described(table: Mapping[str, Any]) -> str:
    """A vocabulary or the like in a line: of what class, how long, how it begins."""
    import json

    values = table["values"]
    first = ", ".join(json.dumps(value, ensure_ascii=False)[:40] for value in (values or [])[:3])
    more = ", …" if values and len(values) > 3 else ""
    said = [
        table["class"] or "unknown class",
        table["role"] if values is None else f"{table['role']} of {len(values):,}: {first}{more}",
    ]
    if table["role"] == "hash":
        said[1] = f"hash, salt {json.dumps(table['options'].get('salt'))}"
    return "  ".join([*said, *([table["note"]] if table["note"] else [])])


def _what(layer: Any) -> str:
    """A layer's class, and its kind where that says more."""
    kind = f"{layer.kind} (inferred)" if layer.inferred else layer.kind
    if layer.class_name and layer.kind and layer.class_name != layer.kind:
        return f"{layer.class_name} ({layer.kind})"
    return layer.class_name or kind or "unknown class"


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count:,} tensors"


def _formats(options: argparse.Namespace) -> None:
    from kerasport import formats

    rows = list(formats.known().values())
    if options.json:
        _print_json(
            [
                {
                    "name": row.name,
                    "holds": row.holds,
                    "suffixes": list(row.suffixes),
                    "reads": bool(row.reader),
                    "writes": bool(row.writer),
                    "extra": row.extra or None,
                }
                for row in rows
            ]
        )
        return
    table = [("format", "suffixes", "reads", "writes", "extra", "holds")]
    table += [
        (
            row.name,
            " ".join(row.suffixes),
            "yes" if row.reader else "",
            "yes" if row.writer else "",
            row.extra,
            row.holds,
        )
        for row in rows
    ]
    _print_table(table)


def _report(report: Any, options: argparse.Namespace) -> None:
    if options.json:
        _print_json(report.to_json())
        return
    arrow, done = ("→", "holds") if report.action == "convert" else ("=", "proven bit for bit:")
    if report.action == "verify" and any(note.kind == "cast" for note in report.notes):
        done = "proven, after the same cast, bit for bit:"
    _say(f"{report.source} {arrow} {report.target}  ({report.convention} layout)")
    _say(
        f"  {done} {report.placed} source tensors in {_tensors(report.tensors)}, "
        f"{report.parameters:,} parameters, {_bytes(report.nbytes)}"
    )
    for alias, name in list(report.aliases.items())[:1]:
        more = f" and {len(report.aliases) - 1:,} more" if len(report.aliases) > 1 else ""
        _say(f"  aliases: {alias} of {name}{more}")
    for reason, count in _counted(reason for _, reason in report.omitted).items():
        _say(f"  left out: {_tensors(count)}, {reason}")
    for line in _gathered(report.notes):
        _say(f"  {line}")


class _Progress:
    """A line on the terminal for work that is long enough to be waited for."""

    def __init__(self) -> None:
        self.shown = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // max(total, 1)
        if total < LONG or percent == self.shown:
            return
        self.shown = percent
        line = f"{_bytes(done)} of {_bytes(total)}, {percent} %"
        # The last step wipes the line: what remains on the terminal is the report.
        end = "\r" + " " * len(line) + "\r" if done >= total else ""
        print(f"\r{line}{end}", end="", file=sys.stderr, flush=True)


def _gathered(notes: Iterable[Any]) -> Iterator[str]:
    """What is said of many tensors alike, said once; JSON has each of them."""
    subjects: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        subjects.setdefault((note.kind, note.message), []).append(note.subject)
    for (kind, message), (first, *others) in subjects.items():
        more = f" and {len(others):,} more" if others else ""
        yield f"{kind}: {first}{more}: {message}"


def _counted(reasons: Iterable[str]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def _say(text: str) -> None:
    print(_printable(text))


def _tell(text: str) -> None:
    """Say on stderr what is no data, after the data where both go to one place."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _abandon_output()
    print(_printable(text), file=sys.stderr)


def _printable(text: str) -> str:
    r"""Names come from strangers: what would steer the terminal is shown, not sent.

    >>> _printable("conv\x1b[2J")
    'conv\\x1b[2J'
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def _print_json(data: Any) -> None:
    import json

    print(json.dumps(data, indent=2))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        _say("  ".join(cells).rstrip())


def _bytes(count: int) -> str:
    """A size for people, in powers of ten.

    >>> _bytes(553_430_000)
    '553.4 MB'
    """
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _file(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a file, found nothing")
    return text


def _size(text: str) -> int:
    """A size as people write it: `5GB`, `500MB`, `1.5GiB`, `1000`."""
    units = {
        "": 1,
        "B": 1,
        "KB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "KIB": 2**10,
        "MIB": 2**20,
        "GIB": 2**30,
    }
    number = text.rstrip("BbGgIiKkMm ")
    try:
        size = int(float(number) * units[text[len(number) :].strip().upper()])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size <= 0:
        raise argparse.ArgumentTypeError(f"expected a size such as 5GB or 500MB, found {text!r}")
    return size


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """A command that says all by its name."""


# What each command is for, what runs it, and what adds its arguments.
VERBS: Mapping[
    str,
    tuple[str, Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None]],
] = {
    "convert": ("write a model's weights in another format", _convert, _convert_arguments),
    "match": (
        "find the names that a PyTorch model has for the layers",
        _match,
        _match_arguments,
    ),
    "inspect": ("list all layers and weights of a file", _inspect, _inspect_arguments),
    "plan": ("show what a conversion would do, and write nothing", _plan, _plan_arguments),
    "verify": (
        "prove that a target holds its source, bit for bit",
        _verify,
        _verify_arguments,
    ),
    "formats": ("list what can be read and written", _formats, _no_arguments),
}
