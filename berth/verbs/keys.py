"""Keys of the service's clients: `key add`, `key list`, `key remove`. Imports stand inside: `--help` must be quick."""

from pathlib import Path
from typing import Annotated

import typer

from berth.options import Json, examples

app = typer.Typer()
key = typer.Typer(
    no_args_is_help=True,
    help="The keys that the service's clients show: make one, list them, take one away.",
    epilog=examples("berth key add alice", "berth key list", "berth key remove alice"),
)
app.add_typer(key, name="key")

File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The file of keys; LLM_API_KEYS_FILE unless given.")
]
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; logs and metrics show this name.")]


@key.command(
    epilog=examples("berth key add alice", "berth key add batch --max-in-flight 8 --requests-per-minute 600 --json")
)
def add(
    name: KeyName,
    file: File = None,
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, max=999_999_999, help="Requests that it may have at a time.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, max=999_999_999, help="Requests that it may send in a minute.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once; the file keeps its hash. A service that runs knows it within a second."""
    import sys

    from berth import keysfile
    from berth.output import show

    place = keysfile.find(file)
    made = keysfile.add(place, name, max_in_flight, requests_per_minute)
    if as_json:
        show({"name": name, "key": made, "file": str(place)})
        return
    print(made, flush=True)
    sys.stderr.write(f"berth: {place} keeps its hash only; what is printed here is not shown again\n")


@key.command("list", epilog=examples("berth key list", "berth key list --file /etc/berth/keys --json"))
def list_keys(file: File = None, as_json: Json = False) -> None:
    """Print the names of the keys and their limits."""
    from berth import keysfile
    from berth.output import show, table

    place = keysfile.find(file)
    keys = keysfile.listed(place)
    if as_json:
        facts = [
            {
                "name": each.name,
                "max_in_flight": each.max_in_flight,
                "requests_per_minute": each.requests_per_minute,
                "hashed": not each.plain,
            }
            for each in keys
        ]
        show({"file": str(place), "keys": facts})
        return
    rows = [
        (
            each.name,
            str(each.max_in_flight or ""),
            str(each.requests_per_minute or ""),
            "the key itself" if each.plain else "hash",
        )
        for each in keys
    ]
    table(rows, ("name", "at a time", "a minute", "kept as"))


@key.command(epilog=examples("berth key remove alice", "berth key remove alice --file /etc/berth/keys"))
def remove(name: KeyName, file: File = None, as_json: Json = False) -> None:
    """Take a key away. A service that runs refuses it within a second; requests that it has let in go on."""
    from berth import keysfile
    from berth.output import show

    place = keysfile.find(file)
    keysfile.remove(place, name)
    show({"removed": name, "file": str(place)}) if as_json else print(f"removed {name}")
