"""Commands of `darkroom profile`: `save`, `list`, `show`, `use`, `delete`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.terminal import OUTPUT_DIR, Json, OutputDir, aligned, one_line, print_json, print_line, print_lines
from pipeline.errors import ConfigError

app = typer.Typer(
    name="profile", no_args_is_help=True, help="Keep settings under a name, for python run.py profile=NAME."
)

Named = Annotated[str, typer.Argument(metavar="NAME", help="The profile's name.")]


@app.command()
def save(
    name: Named,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[group=option]... [key=value]...", help="As for a run; they win over the others."),
    ] = None,
    from_run: Annotated[
        str | None, typer.Option(metavar="ID", help="What a run was given; its id's beginning.")
    ] = None,
    from_image: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Model, sampling, memory and adapters of an image.")
    ] = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Save settings, in place of those that the name has. Proxies, keys and programs are not kept.

    Examples:

        darkroom profile save fast sampling=draft sampling.width=64

        darkroom profile save night --from-run 20250111T143022Z

        darkroom profile save postcard --from-image picture.png
    """
    from jobs.cli.run_py import composed
    from jobs.profiles.saving import arguments_of_run, save_profile

    given = [*(arguments_of_run(output_dir, from_run) if from_run else ()), *(arguments or ())]
    below = None
    if from_image:
        from jobs.archive.image_settings import settings_of_image

        below = settings_of_image(from_image, output_dir)
    path = save_profile(name, given, composed, below)
    print_line(one_line(f"{path}: saved; profile={name} takes it in a run"))


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List profiles; `last` is what the last run was given, and * marks the one of `use`.

    Examples:

        darkroom profile list
    """
    from jobs.profiles.saving import list_profiles

    found = list_profiles()
    if as_json:
        rows = [(one.name, one.is_used, one.settings) for one in found]
        print_json([{"name": n, "used": used, "options": s.choices, "keys": s.values} for n, used, s in rows])
    elif not found:
        print_line("no profiles here; darkroom profile save NAME key=value keeps one")
    else:
        table = [["", "name", "options", "keys of"]]
        for one in found:
            options = " ".join(f"{group}={option}" for group, option in one.settings.choices.items())
            cells = ("*" if one.is_used else "", one.name, options, ", ".join(one.settings.values))
            table.append([one_line(cell) for cell in cells])
        print_lines(aligned(table))


@app.command()
def show(name: Named, as_json: Json = False) -> None:
    """Print a profile.

    Examples:

        darkroom profile show last
    """
    from jobs.profiles.saving import find_profile

    found = find_profile(name)
    if as_json:
        print_json({"name": name, "options": found.settings.choices, "keys": found.settings.values})
    else:
        print_line(found.settings.text().rstrip("\n"))


@app.command()
def use(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The profile's name.")] = None,
    none: Annotated[bool, typer.Option("--none", help="No profile.")] = False,
) -> None:
    """Take a profile for every run that names no other. `python run.py profile=null` leaves it out once.

    Examples:

        darkroom profile use fast

        darkroom profile use --none
    """
    from jobs.profiles.saving import use_profile

    if (name is None) == (not none):
        raise ConfigError("profile use: give either the name of a profile or --none")
    use_profile(name)
    print_line(f"every run takes profile={name} now, unless it names another" if name else "runs take no profile now")


@app.command()
def delete(name: Named, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a profile.

    Examples:

        darkroom profile delete fast --yes
    """
    from jobs.profiles.saving import delete_profile, find_profile

    profile = find_profile(name)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"profile delete {name}: there is no terminal to ask on; --yes deletes without asking")
        if not typer.confirm(f"Delete the profile {name} ({one_line(str(profile.path))})?"):
            print_line("nothing was deleted")
            return
    delete_profile(profile)
    also = "; it was in use, and runs take no profile now" if profile.is_used else ""
    print_line(f"{name}: deleted{also}")
