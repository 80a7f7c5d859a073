"""The command line: options, and what becomes of errors."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from typing import NoReturn

import fastnn
from fastnn import demo
from fastnn.cli import commands
from fastnn.cli.configuration import LOSSES, OPTIMIZERS, Configuration
from fastnn.cli.info import info
from fastnn.cli.sources import EXPECTED
from fastnn_ext.checks.activations import FUSABLE

EXAMPLES = """\
examples:
  python -m fastnn train --data digits --hidden 128,64 --epochs 20 --save digits.safetensors --plot loss.png
  python -m fastnn train network.toml --data samples.csv --save model.safetensors
  python -m fastnn predict model.safetensors --data samples.csv --output predictions.csv
  python -m fastnn trace model.safetensors --data samples.csv --sample 3 --markdown

exit status:
  0, or 1 where the loss was no number any more, 2 for what was asked wrongly, 130 after Ctrl-C"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["bench"]:
        from fastnn.bench import command

        return command.main(given[1:])
    options = _parser().parse_args(given)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _complain(options, "interrupted; only what was said to be saved is")
        return 130
    except BrokenPipeError:  # who reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _complain(options, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ImportError, IndexError, MemoryError, RecursionError, TypeError, ValueError) as error:
        _complain(options, str(error))
    return 2


def _complain(options: argparse.Namespace, message: str) -> None:
    print(f"python -m fastnn {options.command}: {' '.join(message.split())}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m fastnn",
        description=fastnn.__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    subparsers.add_parser("bench", help="measure every kernel by every backend; bench --help tells how")
    for name, run, about, add_options in (
        ("info", _info, "versions, processor, and which backend stands behind each kernel", None),
        ("demo", _demo, "train a convolutional network on real digits with every backend", _demo_options),
        ("train", commands.train, "train a network that a file or options describe", _train_options),
        ("predict", commands.predict, "what a saved network makes of samples", _predict_options),
        ("trace", commands.trace, "every intermediate of one step of gradient descent", _trace_options),
    ):
        added = subparsers.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        added.set_defaults(run=run)
        if add_options:
            add_options(added)
    subparsers.metavar = f"{{{','.join(subparsers.choices)}}}"  # for the error where no command is given
    return parser


def _info(options: argparse.Namespace) -> int:
    print(info())
    return 0


def _demo(options: argparse.Namespace) -> int:
    demo.run(options.pictures)
    return 0


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", metavar="FOLDER", default="fastnn-demo", help="default: %(default)s")


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        nargs="?",
        help="TOML file with layers, loss, optimizer, schedule, epochs, ...; see the README",
    )
    parser.add_argument("--data", required=True, help=EXPECTED)
    parser.add_argument("--save", metavar="FILE", help="where to write the network (.safetensors)")
    parser.add_argument("--plot", metavar="FILE", help="where to draw the loss by epoch (.png, .svg or .pdf)")
    _configuration_options(parser)


def _predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="file that train or Sequential.save has written")
    parser.add_argument("--data", required=True, help=f"{EXPECTED}; without labels there is no accuracy")
    parser.add_argument("--output", metavar="FILE", help="write predictions there (.npy or .csv)")
    parser.add_argument(
        "--outputs", action="store_true", help="the network's outputs, not the largest one's number"
    )
    _loss_option(parser)


def _trace_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help="saved network, or TOML file for one with its first weights")
    parser.add_argument("--data", required=True, help=EXPECTED)
    parser.add_argument("--sample", type=int, default=0, help="which sample, from 0 (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true", help="print a table of Markdown")
    _loss_option(parser)
    _rate_option(parser)


def _configuration_options(parser: argparse.ArgumentParser) -> None:
    """Options in place of entries of a configuration; those not given are absent."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    hidden = ",".join(map(str, Configuration.hidden))
    add("--hidden", metavar="N,N,...", type=_sizes, help=f"sizes of hidden dense layers ({hidden})")
    _add_names(
        parser, "--activation", {name: name for name in FUSABLE if name}, "of the hidden layers (relu)"
    )
    _loss_option(parser)
    _add_names(parser, "--optimizer", {name.lower(): name for name in OPTIMIZERS}, "(adam)")
    _rate_option(parser)
    add("--epochs", type=int, help=f"how often to go through the samples ({Configuration.epochs})")
    add("--batch-size", type=int, metavar="N", help=f"samples in a step ({Configuration.batch_size})")
    add("--validation", type=float, metavar="SHARE", help=f"of samples held out ({Configuration.validation})")
    add("--seed", type=int, help=f"of first weights, split, order and dropout ({Configuration.seed})")


def _rate_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lr", type=float, default=argparse.SUPPRESS, help="learning rate")


def _loss_option(parser: argparse.ArgumentParser) -> None:
    about = "(cross_entropy for whole numbers, which are labels; else mse_loss)"
    _add_names(parser, "--loss", {loss.kernel: name for name, loss in LOSSES.items()}, about)


def _add_names(parser: argparse.ArgumentParser, option: str, names: dict[str, str], about: str) -> None:
    """An option whose value is one of the keys of `names`, and stands for the value there."""

    def chosen(word: str) -> str:
        if word not in names:
            raise argparse.ArgumentTypeError(f"{word!r} is unknown; expected one of {', '.join(names)}")
        return names[word]

    about = f"{', '.join(names)} {about}"
    parser.add_argument(option, metavar="NAME", type=chosen, default=argparse.SUPPRESS, help=about)


def _sizes(words: str) -> list[int]:
    try:
        return [int(word) for word in words.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is not a list of sizes such as 128,64") from None
