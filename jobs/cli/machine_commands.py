"""Commands of `darkroom` about this machine and its files: `inspect`, `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.terminal import OUTPUT_DIR, Json, OutputDir, print_facts, print_json, print_line, print_lines, print_table

app = typer.Typer()


@app.command()
def inspect(
    weights: Annotated[str, typer.Argument(metavar="FILE|FOLDER", help="A model, a LoRA, a VAE or other weights.")],
    as_json: Json = False,
    with_hash: Annotated[bool, typer.Option("--hash", help="Read the whole file and print its hashes.")] = False,
) -> None:
    """Say what a model or a file of weights is, from its header alone.

    Examples:

        darkroom inspect /models/sdxl

        darkroom inspect style.safetensors --hash
    """
    from jobs.cli import inspect as inspecting

    found = inspecting.inspect(weights)
    hashes = inspecting.hashes(found) if with_hash else {}
    if as_json:
        print_json(inspecting.as_json(found) | hashes)
        return
    lines = inspecting.as_lines(found)
    if hashes:
        lines.append(("sha256", hashes["sha256"]))
    if "tensors_sha256" in hashes:
        lines.append(("AutoV3", hashes["tensors_sha256"][: inspecting.AUTOV3_DIGITS]))
    print_facts(lines)
    print_lines(inspecting.component_lines(found.components))


@app.command()
def doctor(
    as_json: Json = False,
    budget_gb: Annotated[
        float | None, typer.Option("--budget-gb", min=0.1, help="Show the memory plans for this budget in GB.")
    ] = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Show this machine's hardware, and the memory plan of each level for each model profile. Loads no model.

    Examples:

        darkroom doctor

        darkroom doctor --budget-gb 8
    """
    from jobs.cli import doctor as examining

    diagnosis = examining.examine(output_dir, budget_gb)
    if as_json:
        print_json(examining.as_json(diagnosis))
        return
    print_facts(examining.machine_lines(diagnosis.machine))
    if diagnosis.profiles:
        print_line("\n" + examining.heading(diagnosis))
        print_table(examining.table(diagnosis))
    for fault in diagnosis.faults:
        print_line(f"profile {fault}")
