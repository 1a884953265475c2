"""The verbs `bench serve`, `bench startup` and `bench compare`. Imports stand inside: `--help` must be quick."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from berth.options import Device, DryRun, Env, Json, Name, RuntimeName, Site, examples
from berth.output import commands, show, table

if TYPE_CHECKING:
    from berth.bench.record import Record

app = typer.Typer(
    name="bench",
    help="vLLM's own benchmarks: a server under load, an engine's start; two results compared.",
    epilog=examples("berth bench serve", "berth bench startup", "berth bench compare A.json B.json"),
    no_args_is_help=True,
)
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Where the result goes; .berth/bench/ unless given."),
]


@app.command(
    epilog=examples(
        "berth bench serve",
        "berth bench serve --to both --requests 500 --concurrency 32",
        "berth bench serve --url https://gpu-box:9000 --key-file key --tokenizer Qwen/Qwen3-8B",
        "berth bench serve -- --dataset-name sharegpt --dataset-path sharegpt.json",
    )
)
def serve(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[-- FLAGS]", help="Flags for `vllm bench serve`, as they stand.")
    ] = None,
    to: Annotated[str, typer.Option("--to", help="service, engine, or both, one after the other.")] = "service",
    requests: Annotated[int, typer.Option(min=1, help="How many requests.")] = 200,
    concurrency: Annotated[int, typer.Option(min=1, help="How many at once, at most.")] = 8,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second; as --concurrency lets them, unless given.")
    ] = None,
    input_tokens: Annotated[int, typer.Option(min=1, help="Length of each prompt.")] = 128,
    output_tokens: Annotated[int, typer.Option(min=1, help="Length of each answer.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Another one makes other prompts.")] = 0,
    url: Annotated[str | None, typer.Option(help="A service anywhere, in place of what runs here.")] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="File with the key that the server asks for.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A name on the hub or a folder; the model's own unless given.")
    ] = None,
    runtime: RuntimeName = None,
    site: Site = None,
    name: Name = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Ask what runs here, or a service anywhere, as many chats at once would, and keep vLLM's figures.

    vLLM's client comes from the engine's image, or from the environment of plain processes.
    """
    from dataclasses import replace

    from berth.bench import asked, running, target
    from berth.errors import Exit, failed
    from berth.progress import Progress
    from berth.runtimes import Request

    load = asked.Load(requests, input_tokens, output_tokens, concurrency, rate, seed, asked.check_more(more or []))
    if to == target.BOTH and output:
        raise failed("--to both makes two results", "leave --output out", Exit.BAD_SETTING)
    with Progress() as progress:
        if url:
            found, targets = None, [target.anywhere(url, key_file, tokenizer)]
        else:
            found, targets = target.of_what_runs(to, runtime, Request(site=site, name=name), key_file, tokenizer)
        # Other prompts each time, since vLLM remembers those that it has read.
        loads = [replace(load, seed=seed + place) for place in range(len(targets))]
        kept = []
        for one, asks in zip(targets, loads, strict=True):
            made = running.serve(one, found, asks, progress)
            kept.append((made.write(output), made))
    _tell(kept, as_json)


@app.command(
    epilog=examples(
        "berth bench startup --env env/models/demo.env --runtime native", "berth bench startup --cold 3 --warm 5 --json"
    )
)
def startup(
    env: Env = None,
    device: Device = None,
    runtime: RuntimeName = None,
    cold: Annotated[int, typer.Option(min=1, help="Starts with fresh caches.")] = 1,
    warm: Annotated[
        int, typer.Option(min=1, help="Starts with the deployment's own caches, after one that warms.")
    ] = 3,
    output: Output = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start the engine again and again as `up` would, on this machine, and keep vLLM's figures."""
    from berth import up
    from berth.bench import running
    from berth.bench.asked import Starts
    from berth.progress import Progress
    from berth.runtimes import NOTHING

    with Progress() as progress:
        deployment, chosen = up.plan(env or [], device, runtime, progress, NOTHING)
        if dry_run:
            commands([running.startup_command(deployment, chosen)], as_json)
            return
        made = running.startup(deployment, chosen, Starts(cold, warm), progress)
    _tell([(made.write(output), made)], as_json)


@app.command(
    epilog=examples(
        "berth bench compare before.json after.json", "berth bench compare A.json B.json --plot ab.svg --json"
    )
)
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A result of `berth bench`.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another one of the same kind.")],
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw both, too.")] = None,
    as_json: Json = False,
) -> None:
    """Put two results side by side: every figure, the ratio, what is better, and what else differs."""
    from berth.bench import compare as comparing
    from berth.bench import plot as drawing
    from berth.bench import record
    from berth.errors import failed

    one, other = record.read(a), record.read(b)
    rows, different = comparing.compare(one, other), comparing.differences(one, other)
    if plot:
        try:
            plot.write_text(drawing.draw(one, other), encoding="utf-8")
        except OSError as error:
            raise failed(f"{plot} cannot be written: {error.strerror}", "name another file: --plot") from error
    if as_json:
        show({"rows": [row.__dict__ for row in rows], "differences": different})
        return
    table([row.cells() for row in rows], comparing.HEADS)
    for line in different:
        typer.echo(f"differs: {line}")


def _tell(kept: "list[tuple[Path, Record]]", as_json: bool) -> None:
    """Say what the results are, and where they are kept; two are put side by side."""
    from berth.bench import compare as comparing
    from berth.paths import shown

    if as_json:
        show({"results": [{"file": str(file), **one.facts()} for file, one in kept]})
        return
    records = [one for _, one in kept]
    if len(records) == 2:
        names = (records[0].part, records[1].part)
        rows = [row.cells(*names) for row in comparing.compare(*records)]
        table(rows, (comparing.HEADS[0], *names, f"{names[1]} / {names[0]}", "", ""))
    else:
        table(comparing.table(records[0]))
    for file, _ in kept:
        typer.echo(f"kept in {shown(file)}", err=True)
