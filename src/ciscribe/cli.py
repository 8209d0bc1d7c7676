"""The command line: one verb per function of the library.

Nothing heavy is imported before a verb runs, so that ``ciscribe --help`` answers at once.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from ciscribe import __version__
from ciscribe.errors import CiscribeError

app = App(name="ciscribe", version=__version__, suppress_keyboard_interrupt=False,  # `main` has a word to say
          help="Reads, explains and writes the cis-regulatory code.\n\n"
               "Start with `ciscribe demo`, then `ciscribe run configs/worm.yaml`.")
data_app = App(name="data", help="Build what a training reads.")
app.command(data_app)

Out = Annotated[Path | None, Parameter(help="Run folder; runs/<name> unless given.")]


def _workflow() -> Any:
    return import_module("ciscribe.workflow")  # torch and Lightning load here, not at start


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _options(quiet: bool) -> dict[str, Any]:
    console = _console()
    if quiet:
        return {"tell": lambda line: None, "progress": False}
    return {"tell": lambda line: console.print(Text(line)), "progress": console.is_terminal}


def _finish(folder: Path) -> None:
    _console().print(f"\n[bold]report[/bold]: {(folder / 'report.html').resolve()}")


@app.command
def demo(*, out: Out = None, fast: bool = False, seed: int = 0, quiet: bool = False) -> None:
    """Run the whole job on a simulated genome whose truth is known: train, evaluate, call elements, report.

    Parameters
    ----------
    fast
        A smaller world and a shorter training: does everything run? Its figures mean little.
    seed
        Of the world and of the training.
    quiet
        Print the path of the report only.
    """
    folder = import_module("ciscribe.demo").run_demo(out or Path("runs/demo"), fast=fast, seed=seed, **_options(quiet))
    _finish(folder)


@app.command
def run(config: Path, *, out: Out = None, quiet: bool = False) -> None:
    """Do every step of a configuration that is not done yet, from data to report.

    Parameters
    ----------
    config
        YAML file; see configs/.
    quiet
        Print the path of the report only.
    """
    _finish(_workflow().Run.from_config(config, out, **_options(quiet)).run())


@data_app.command(name="build")
def data_build(config: Path, *, out: Out = None, again: bool = False, quiet: bool = False) -> None:
    """Read genome, signals, genes and expression of a configuration into a run folder.

    Parameters
    ----------
    config
        YAML file; see configs/.
    again
        Build anew even when it is up to date.
    """
    _workflow().Run.from_config(config, out, **_options(quiet)).run("data", again=again)


def _step(folder: Path, step: str, again: bool, quiet: bool) -> None:
    _workflow().Run(folder, **_options(quiet)).run(step, again=again)


@app.command
def train(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Train the model of a run folder, continuing from its last checkpoint.

    Parameters
    ----------
    run_dir
        Made by `ciscribe data build` or `ciscribe run`.
    again
        Train anew even when it is done (a finished training's checkpoints are removed).
    """
    _step(run_dir, "train", again, quiet)


@app.command
def predict(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Predict every gene of a run folder: predictions.parquet.

    Parameters
    ----------
    run_dir
        A run folder with a trained model, or one to be trained.
    again
        Predict anew even when it is done.
    """
    _step(run_dir, "predict", again, quiet)


@app.command
def evaluate(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Compare predictions and baselines with the held-out genes: metrics.json.

    Parameters
    ----------
    run_dir
        A run folder.
    again
        Evaluate anew even when it is done.
    """
    _step(run_dir, "evaluate", again, quiet)


@app.command
def elements(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Call the regulatory elements of the held-out genes: elements.bed.

    Parameters
    ----------
    run_dir
        A run folder.
    again
        Call anew even when it is done.
    """
    _step(run_dir, "elements", again, quiet)


@app.command
def report(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Write the report of a run folder: report.html.

    Parameters
    ----------
    run_dir
        A run folder.
    again
        Write anew even when it is done.
    """
    _step(run_dir, "report", again, quiet)
    _finish(run_dir)


@app.command
def catalog(*, kind: Literal["all", "model", "baseline", "elements", "benchmark"] = "all") -> None:
    """List every method with its source.

    Parameters
    ----------
    kind
        Only methods of this kind.
    """
    table = import_module("rich.table").Table("name", "kind", "what it does", "paper")
    for card in _workflow().catalog():
        if kind in ("all", card.kind):
            table.add_row(card.name, card.kind, card.summary, card.paper)
    Console().print(table)


def main() -> None:
    """Entry point: run a verb; an expected error is one message and exit status 1, Ctrl-C is 130."""
    try:
        app()
    except CiscribeError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text.assemble(("error", "bold red"), f": {error}"))
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what was complete is kept, the same command continues")
        sys.exit(130)


if __name__ == "__main__":
    main()
