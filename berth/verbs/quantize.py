"""Smaller models: `quantize`. Imports stand inside: `--help` must be quick."""

from pathlib import Path
from typing import Annotated

import typer

from berth.options import Device, DryRun, Env, Json, RuntimeName, Site, Time, examples
from berth.output import commands, show

app = typer.Typer()


@app.command(
    epilog=examples(
        "berth quantize meta-llama/Llama-3.1-8B-Instruct --to /models/llama-3.1-8b-fp8",
        "berth quantize /models/qwen3-8b --scheme w4a16 --data samples.jsonl --to /models/qwen3-8b-w4a16",
        "berth quantize --env env/hpu.env --data samples.jsonl --dry-run",
        "berth quantize --env env/cuda.env --runtime slurm --scheme w8a8 --data s.parquet --to /scratch/me/m-w8a8",
    )
)
def quantize(
    model: Annotated[
        str | None, typer.Argument(help="A folder, or a name on the hub; LLM_VLLM_MODEL_NAME unless given.")
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            help="fp8-dynamic, w8a8 or w4a16; fp8-inc on Gaudi. Unless given: FP8, as the device has it.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the smaller model goes: a new folder.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The calibration set: JSONL or parquet (docs/quantize.md).")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many of its rows are used.")] = 512,
    length: Annotated[int, typer.Option(min=16, help="The longest sample, in tokens.")] = 2048,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Gaudi: read a pickle, which runs whatever it holds.")
    ] = False,
    env: Env = None,
    device: Device = None,
    runtime: RuntimeName = None,
    site: Site = None,
    time: Time = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a model smaller, or calibrate it for FP8 on Gaudi.

    The device is the one that will serve it. The same command again does nothing, and goes on after a kill.
    """
    from berth.options import request
    from berth.progress import Progress
    from berth.quantizing import places
    from berth.quantizing.plan import settle

    plan = settle(model, env or [], device, scheme, to, data, samples, length, trust_pickle)
    chosen = runtime or ("slurm" if site or time else places.default_runtime(plan))
    found = places.steps(plan, chosen, request(site, None, time, None, False, None, None))
    if dry_run:
        commands(places.lines(plan, found), as_json)
        return
    with Progress() as progress:
        said = places.run(plan, chosen, found, progress)
    job = said.partition(";")[0] if chosen == "slurm" else ""
    if as_json:
        show({**plan.facts(), "job": job})
    else:
        print(f"submitted: job {job}; its log: berth-quantize-{job}.log" if job else plan.words())
