"""`berth plan`: what a model needs, before anything is fetched or started. Imports stand inside: help must be quick."""

from typing import Annotated

import typer

from berth.options import Env, Json, examples
from berth.output import show, table

app = typer.Typer()


@app.command(
    epilog=examples(
        "berth plan Qwen/Qwen3-8B --gpu l4 --context 16384",
        "berth plan meta-llama/Llama-3.1-70B-Instruct --gpu h100-80g --concurrency 32",
        "berth plan --env env/cuda.env --env env/models/llama-3.1-405b.env --gpu 96g",
        "berth plan ./my-model --gpu cpu --json",
    )
    + "\n\nHere: 0 fits, 1 does not fit on any number of such cards that was tried."
)
def plan(
    model: Annotated[
        str | None, typer.Argument(help="A folder, a name on the hub, or demo; the env files' model unless given.")
    ] = None,
    env: Env = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            metavar="CARD",
            help="h100-80g, a100-40g, l4, gaudi2, cpu, …, or a size such as 96g; what this machine has, unless given.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of the longest request; what the settings or the model say, unless given."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests of that length at once.")] = 1,
    read_rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="GB a second that the store delivers; measured where the weights are here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a model needs: weights, KV cache, cards and how to spread it, memory, and the lines for the env file."""
    import os

    from berth import deployment as deployments
    from berth import fitting
    from berth import fitting_words as words
    from berth.errors import Exit, failed
    from engine.fit import GB

    deployment = deployments.resolve(env) if env else None
    values = fitting.values_of(deployment) if deployment else {}
    environ = deployment.environ if deployment else dict(os.environ)
    name = model or (deployment.model if deployment else "")
    if not name:
        raise failed("no model to plan for", "name one, or give an env file that does: --env FILE", Exit.BAD_SETTING)
    found = fitting.look(name, environ, values)
    card = fitting.card(gpu, deployment.device if deployment else None, environ)
    wish, said = fitting.wish(values, environ, context, concurrency)
    made = fitting.make(found, card, wish)
    rate = read_rate * GB if read_rate else fitting.read_rate(found.folder) if found.folder else None
    if as_json:
        show(words.facts(found, made, rate))
    else:
        table(words.rows(found, made, rate, said))
        lines = words.env_lines(found, made)
        print("\n".join(["", "For the env file:", *(f"  {line}" for line in lines)]) if lines else "")
    raise typer.Exit(Exit.OK if made.layout else Exit.FAILED)
